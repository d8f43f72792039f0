import csv
import io
import json

import numpy as np
import pytest
from PIL import Image
from test_metrics import example, maps, scored

from vessels.metrics import to_16_bit
from vessels.report import plots, scores, tables


def measured(variant="rsan", dataset="DRIVE", seed=0, **changes):
    examples = [example("01_test", 1), example("02_test", 2)]
    return {"name": variant, "dataset": dataset, "variant": variant, "trained_on": dataset,
            "weights": {"file": "w.h5", "recipe": {"seed": seed}},
            "threshold": 0.5, "n_images": 2, **scored(examples, maps(examples)).result(),
            "published": {"method": "RSAN (paper)", "scored": "whole_image", "auc": 0.9855}, **changes}


@pytest.mark.parametrize("variant", ["rsan", "backbone_dropblock"])
def test_table_fits_a_terminal_with_another_metric_too(variant, monkeypatch):
    monkeypatch.setitem(tables.COLUMNS, "kappa", "kappa")
    metrics = measured(variant)
    metrics["whole_image"] |= {"kappa": -0.1234, "mcc": -0.5678}
    text = tables.table(metrics)
    assert max(map(len, text.splitlines())) <= 80
    assert {"-0.1234", "-0.5678"} <= set(text.split())
    assert ("RSAN (paper)" in text) == (variant == "rsan")  # the paper's row is for its full network


def test_rows_of_both_protocols():
    def names(metrics):
        return [line[:27].strip() for line in tables.table(metrics).splitlines() if "0." in line[27:]]

    rest = ["second observer", "mean of the images", "standard deviation"]
    assert names(measured()) == ["rsan", "RSAN (paper)", *rest, "rsan", *rest]
    assert names(measured(published={}, second_observer=None)) == 2 * ["rsan", *rest[1:]]


@pytest.mark.parametrize(("value", "count"), [(0.2, 2), (0, 0), (1, 0)])
def test_curves_of_a_network_that_has_learned_nothing(value, count):
    one = example("01_test", 1, second=False)
    scores = scored([one], [np.full(one.label.shape, value, "float32")])
    assert len(plots.curves(scores.pooled.histograms, {"threshold": 0.5, **scores.result()})) == count


def test_agreement_colours():
    one = example("01_test", 1)
    everything = np.ones(one.label.shape, "float32")
    for probability, colours in ((one.label, {plots.FOUND}), (everything * 0, {plots.MISSED}),
                                 (everything, {plots.FOUND, plots.FALSE})):
        shown = plots.agreement(one, to_16_bit(probability))
        assert {tuple(map(int, pixel)) for pixel in shown[one.fov]} - {(25, 25, 25)} == colours
        assert not shown[~one.fov].any()


def test_panel_shows_four_tiles():
    one = example("01_test", 1)
    pixels = np.asarray(Image.open(io.BytesIO(plots.panel(one, to_16_bit(one.label)))))
    height, width = (side // 2 for side in pixels.shape[:2])
    tiles = pixels[:height, :width], pixels[:height, width:], pixels[height:, :width], pixels[height:, width:]
    green, black = ((tile[..., :3] == colour).all(axis=-1).mean() for tile, colour in (
        (tiles[3], plots.FOUND), (tiles[1], (0, 0, 0))))
    assert width > 500 and green > 0.05 and black > 0.5 and tiles[0].std() > 50


def write(results, folder, metrics):
    """Writes `metrics` to `results/<set>/<folder>/metrics.json`."""
    (results / metrics["dataset"] / folder).mkdir(parents=True)
    (results / metrics["dataset"] / folder / "metrics.json").write_text(json.dumps(metrics))


@pytest.mark.parametrize(("changes", "name"), [
    ({}, "rsan"),
    ({"name": "my net"}, "my net"),
    ({"trained_on": "CHASEDB1"}, "rsan of CHASE DB1"),
    ({"trained_on": "DRIVE+CHASEDB1", "threshold": 0.55}, "rsan, threshold 0.55"),
    ({"unfinished": True}, "rsan, unfinished"),
    ({"precision": "bfloat16"}, "rsan, bfloat16"),
    ({"trained_on": "", "name": "maps of x"}, "maps of x"),
])
def test_a_row_has_the_name_that_is_said_and_what_is_unusual(changes, name):
    assert tables.label(measured(**changes)) == name


def test_a_row_of_several_trainings_says_all_their_thresholds():
    trainings = [measured(threshold=threshold) for threshold in (0.6, 0.5, 0.6)]
    assert tables.label(*trainings) == "rsan, threshold 0.5 or 0.6"


def test_results_of_older_versions_are_called_as_their_folders(tmp_path):
    metrics = measured()
    del metrics["name"]
    write(tmp_path, "rsan_authors", metrics)
    write(tmp_path, "seen", measured(seen_in_training=["a"]))
    assert list(tables.results_of("DRIVE", tmp_path)) == ["rsan_authors"]
    assert tables.label(tables.results_of("DRIVE", tmp_path)["rsan_authors"]) == "rsan_authors"


def test_trainings_of_one_network_are_together_and_have_a_mean(tmp_path):
    for folder in ("rsan", "rsan_seed1", "rsan_seed2", "rsan_authors", "rsan_seed1_of_CHASEDB1", "rsan_of_CHASEDB1"):
        write(tmp_path, folder, measured())
    groups = tables.trainings(tables.results_of("DRIVE", tmp_path))
    assert {folder: len(seeds) for folder, seeds in groups.items()} == {
        "rsan": 3, "rsan_authors": 1, "rsan_of_CHASEDB1": 2}
    seeds = [{"inside_fov": {"f1": value}} for value in (0.8, 0.82)]
    assert tables.spread(seeds, "inside_fov", "f1") == "0.8100 ± 0.0141"
    assert tables.spread(seeds[:1], "inside_fov", "f1") == "0.8000"
    assert tables.spread(seeds, "inside_fov", "a newer metric") == "-"


def test_scores_csv_has_each_network_set_and_protocol_with_intervals(tmp_path):
    write(tmp_path, "rsan", measured())
    write(tmp_path, "any_rsan", older := measured(dataset="CHASEDB1"))
    del older["whole_image"]["ece"]
    (tmp_path / "CHASEDB1/any_rsan/metrics.json").write_text(json.dumps(older))
    rows = list(csv.DictReader(io.StringIO(scores.csv_text(tmp_path))))
    assert [(row["set"], row["folder"], row["scored"]) for row in rows] == [
        (name, folder, protocol) for name, folder in (("DRIVE", "rsan"), ("CHASEDB1", "any_rsan"))
        for protocol in tables.SCORED]
    assert rows[2]["ece"] == "" and float(rows[0]["ece"]) == measured()["whole_image"]["ece"]
    for row in rows:
        assert 0 < float(row["f1_low"]) < float(row["f1_mean"]) < float(row["f1_high"]) < 1


def test_interval_of_a_mean_is_that_of_the_normal_distribution():
    values = np.random.default_rng(1).normal(0.3, 1, 1000)
    metrics = {"per_image": [{"inside_fov": {"f1": value, "auc": None}} for value in values]}
    mean, low, high = scores.mean_and_interval(metrics, "inside_fov", ["f1", "auc"])
    assert (mean[0] - low[0], high[0] - mean[0]) == pytest.approx([1.96 * values.std() / 1000**0.5] * 2, rel=0.05)
    assert np.isnan([mean[1], low[1], high[1]]).all()
