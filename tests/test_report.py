import io
import json

import numpy as np
import pytest
from PIL import Image
from test_metrics import example, maps, scored

from vessels.data import published
from vessels.metrics import to_16_bit
from vessels.report import plots, tables

import rsan_model


def measured(variant="rsan", dataset="DRIVE", seed=0, recipe="patches", **changes):
    examples = [example("01_test", 1), example("02_test", 2)]
    return {"dataset": dataset, "variant": variant, "trained_on": dataset,
            "weights": {"file": "w.h5", "recipe": {"recipe": recipe, "seed": seed, "epochs": 60}},
            "threshold": 0.5, "n_images": 2, **scored(examples, maps(examples)).result(),
            "published": {"method": "RSAN (paper)", "scored": "whole_image", "auc": 0.9855}, **changes}


@pytest.mark.parametrize("variant", rsan_model.VARIANTS)
@pytest.mark.parametrize("recipe", ["patches", "authors"])
def test_table_fits_a_terminal(variant, recipe):
    text = tables.table(measured(variant, recipe=recipe, seed=1))
    assert max(map(len, text.splitlines())) <= 80
    assert ("RSAN (paper)" in text) == (variant == "rsan")  # the paper's row is for its full network


def test_table_fits_a_terminal_with_another_metric_too(monkeypatch):
    monkeypatch.setitem(tables.COLUMNS, "kappa", "kappa")
    metrics = measured()
    metrics["whole_image"] |= {"kappa": -0.1234, "mcc": -0.5678}
    text = tables.table(metrics)
    assert max(map(len, text.splitlines())) <= 80
    assert {"-0.1234", "-0.5678"} <= set(text.split())


def test_paper_is_compared_only_where_it_was_scored_so():
    lines = tables.table(measured()).splitlines()
    whole, inside = (line.split() for line in lines if line.startswith("RSAN (paper)"))
    assert whole[2] == "0.9855" and set(inside[2:]) == {"-"}
    assert "paper" not in tables.table(measured(published={}, second_observer=None))


def test_markdown_rows_have_equal_widths():
    lines = tables.table_markdown(measured()).splitlines()
    assert len(lines) == 2 + 2 * 4 and len({line.count("|") for line in lines}) == 1
    assert sum("±" in line for line in lines) == 2


def test_curves_are_the_same_bytes_each_time():
    examples = [example("01_test", 1), example("02_test", 2)]
    first, second = (curves(examples, maps(examples)) for _ in range(2))
    assert first == second and set(first) == {"roc.png", "pr.png", "reliability.png"}
    assert Image.open(io.BytesIO(first["roc.png"])).size == (600, 540)


def curves(examples, probabilities):
    scores = scored(examples, probabilities)
    histograms = {protocol: counts.histogram for protocol, counts in scores.pooled.items()}
    return plots.curves(histograms, {"threshold": 0.5, **scores.result()})


@pytest.mark.parametrize(("value", "count"), [(0.2, 3), (0, 0), (1, 0)])
def test_curves_of_a_network_that_has_learned_nothing(value, count):
    examples = [example("01_test", 1, second=False)]
    assert len(curves(examples, [np.full(examples[0].label.shape, value, "float32")])) == count


def test_agreement_colours():
    one = example("01_test", 1)
    everything = np.ones(one.label.shape, "float32")
    for probability, colours in ((one.label, {plots.FOUND}), (everything * 0, {plots.MISSED}),
                                 (everything, {plots.FOUND, plots.FALSE})):
        shown = plots.agreement(one, to_16_bit(probability))
        assert {tuple(map(int, pixel)) for pixel in shown[one.fov]} - {(25, 25, 25)} == colours
        assert not shown[~one.fov].any()


@pytest.mark.parametrize("dataset", published.DATASETS, ids=lambda dataset: dataset.key)
def test_panel_shows_four_tiles_wide_enough_for_a_readme(dataset):
    one = example("01_test", 1, size=dataset.size)
    picture = Image.open(io.BytesIO(plots.panel(one, to_16_bit(one.label))))
    assert picture.mode == "RGB" and picture.width >= 900
    pixels = np.asarray(picture)
    tile = min(dataset.size[1], 640)
    assert picture.width == 2 * tile + 10
    if tile == dataset.size[1]:  # not scaled: photograph and label appear unchanged
        assert (pixels[34 : 34 + dataset.size[0], :tile] == one.image).all()
        assert ((pixels[34 : 34 + dataset.size[0], -tile:, 0] == 255) == one.label).all()


def test_panel_of_a_small_or_empty_map():
    one = example("01_test", 1)
    panels = (plots.panel(one, np.full(one.label.shape, value, "uint16")) for value in (0, 65535))
    empty, full = (np.asarray(Image.open(io.BytesIO(panel))) for panel in panels)
    assert empty.shape == full.shape and (empty != full).any()
    assert [(picture == plots.FALSE).all(-1).any() for picture in (empty, full)] == [False, True]


def test_history_plot():
    history = [{"epoch": 1, "loss": 0.5, "val_auc": 0.7, "learning_rate": 0.001}]
    history.append({**history[0], "epoch": 2, "loss": 0.4})
    plain, marked = plots.history_plot(history), plots.history_plot(history, exported=2)
    assert plain != marked and Image.open(io.BytesIO(marked)).size == (720, 600)


def test_table_of_all_networks(tmp_path):
    assert tables.readme_table(tmp_path) == ""
    for dataset, variant in (("CHASEDB1", "rsan"), ("DRIVE", "backbone"), ("DRIVE", "rsan")):
        folder = tmp_path / dataset / variant
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text(json.dumps(measured(variant, dataset)))
    lines = tables.readme_table(tmp_path).splitlines()
    names = [tuple(cell.strip() for cell in line.split("|")[1:4]) for line in lines]
    assert names[2:6] == [("DRIVE", "whole image", name) for name in
                          ("rsan (here)", "backbone (here)", "RSAN (paper)", "second observer")]
    assert len(names) == 2 + 2 * 4 + 2 * 3


def names_of(networks):
    return [name for name, _ in tables.all_rows(networks, "inside_fov")][:-2]  # the paper, the second observer


def test_seeds_become_a_mean_and_another_set_a_row():
    networks = [measured(), measured(seed=1), measured("backbone"), measured(trained_on="CHASEDB1"),
                measured(trained_on="DRIVE+CHASEDB1"), measured("backbone", trained_on="mine", unfinished=True)]
    networks[1]["inside_fov"] = {**networks[0]["inside_fov"], "f1": networks[0]["inside_fov"]["f1"] - 0.02}
    assert names_of(networks) == ["rsan (here)", "rsan, mean ± std of 2 seeds", "backbone (here)",
                                  "rsan of CHASE DB1", "rsan, any camera (here)", "backbone, unfinished of mine"]
    rows = tables.all_rows(networks, "inside_fov")
    assert rows[1][1]["f1"] == f"{networks[0]['inside_fov']['f1'] - 0.01:.4f} ± 0.0141"
    assert rows[1][1]["auc"].endswith("± 0.0000")


def test_no_two_recipes_share_a_name_or_a_mean():
    networks = [measured(), measured(seed=1), measured(recipe="authors"), measured(recipe="authors", seed=1),
                measured(seed=2), measured(), measured()]
    networks[4]["weights"]["recipe"]["epochs"] = 7
    networks[5]["weights"]["file"] = "copy.h5"
    networks[6]["weights"]["recipe"]["train_on"] = "train+validation"
    assert names_of(networks) == [
        "rsan (here)", "rsan, mean ± std of 2 seeds", "rsan, authors' recipe (here)",
        "rsan, authors' recipe, mean ± std of 2 seeds", "rsan, epochs 7, seed 2 (here)", "rsan, copy.h5 (here)",
        "rsan, all training images (here)"]
    # A key that an older version did not write does not make a different recipe.
    networks[1]["weights"]["recipe"]["augmentation"] = {"noise": 0.02}
    assert names_of(networks[:2]) == ["rsan (here)", "rsan, mean ± std of 2 seeds"]
    networks[0]["weights"]["recipe"]["augmentation"] = {"noise": 0.05}
    assert names_of(networks[:2]) == ["rsan (here)", "rsan, other augmentation, seed 1 (here)"]


def test_results_of_other_versions_can_be_read(tmp_path, monkeypatch):
    for folder, metrics in (("new", measured("attention_u_net")), ("authors", measured(recipe="authors")),
                            ("rsan_seed1", measured(seed=1)), ("rsan", measured())):
        (tmp_path / "DRIVE" / folder).mkdir(parents=True)
        (tmp_path / "DRIVE" / folder / "metrics.json").write_text(json.dumps(metrics))
    found = [metrics for _, metrics in tables.results_of(published.DRIVE, tmp_path)]
    assert names_of(found) == ["rsan (here)", "rsan, mean ± std of 2 seeds", "attention_u_net (here)",
                               "rsan, authors' recipe (here)"]
    monkeypatch.setitem(tables.COLUMNS, "topology", "topology")  # a metric that older results lack
    assert tables.readme_table(tmp_path).splitlines()[2].endswith("| - |")
    assert "topology" in tables.table_markdown(found[0]) and "- ± -" in tables.table_markdown(found[0])
    assert tables.table({**found[0], "dataset": "STARE"}).startswith("\nSTARE, 2 test images")
