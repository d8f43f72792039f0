"""Scores of own photographs, of other programs' maps, at other thresholds, and of photographs seen in training."""

import functools
import gc
import json
import shutil
import weakref
from pathlib import Path

import numpy as np
import pytest
from conftest import save_weights
from PIL import Image
from test_custom import PAIRS, table

from vessels import evaluation
from vessels.data import custom, sources, synthetic
from vessels.data.images import checksum, read_mask, read_photograph
from vessels.data.published import DRIVE
from vessels.files import sha256
from vessels.report import tables

GENERAL = {"dataset": "DRIVE+CHASEDB1", "diameters": [800], "recipe": {"recipe": "any", "seed": 0}}


@pytest.fixture
def score(command):
    """`score(*flags)` -> exit code of eval_any.py."""
    return functools.partial(command, dataset=sources.Several())


def metrics_in(*parts):
    return json.loads(Path(*parts, "metrics.json").read_text())


def test_own_photographs_get_all_that_drive_gets(command, score, root, capsys, tmp_path):
    save_weights(tmp_path / "weights", "any_rsan", **GENERAL)
    lines = [f"{pair},second/{i}.png" for i, pair in enumerate(PAIRS)]
    assert score(table(root, *lines, header="image,label,second")) == 0
    output = capsys.readouterr().out
    assert "mine, 4 test images, inside the field of view" in output and "second observer" in output
    results = tmp_path / "results/mine/any_rsan"
    written = {str(path.relative_to(results)) for path in results.rglob("*") if path.is_file()}
    pictures = {f"{kind}/{i}.png" for kind in ("panels", "probabilities") for i in range(4)}
    assert written == {"metrics.json", "table.md", "roc.png", "pr.png", *pictures}
    metrics = metrics_in(results)
    assert command.diameters == [(800,)] * 4 and metrics["second_observer"]["inside_fov"]["f1"] > 0.5
    assert [one["image"] for one in metrics["per_image"]] == list("0123")
    assert all(set(one["measures"]) == {"map", "label", "second_observer"} for one in metrics["per_image"])
    assert "rsan, any camera" in (results / "table.md").read_text()


def test_only_the_test_part_is_scored_and_weights_before_the_table_do_not_swallow_it(score, root, tmp_path):
    weights = save_weights(tmp_path / "weights", "any_rsan", **GENERAL)
    lines = [f"{pair},{split}" for pair, split in zip(PAIRS, ("train", "validation", "test", "train"), strict=True)]
    assert score("--weights", weights, table(root, *lines, header="image,label,split")) == 0
    assert [one["image"] for one in metrics_in(tmp_path, "results/mine/any_rsan")["per_image"]] == ["2"]


@pytest.fixture
def drive(root, stand_in):
    """Replacements for the test images of DRIVE, and their files."""
    made = synthetic.make(DRIVE, "test")[:2]
    stand_in(made, [{"image": root / f"images/{i}.png"} for i in range(2)])
    return made


def test_the_sets_are_scored_one_after_another(score, drive, tmp_path):
    save_weights(tmp_path / "weights", "any_rsan", **GENERAL)
    assert score("DRIVE", "CHASE") == 0
    for name in ("DRIVE", "CHASEDB1"):
        metrics = metrics_in(tmp_path, "results", name, "any_rsan")
        assert metrics["published"]["method"] == "RSAN (paper)" and tables.label(metrics) == "rsan, any camera"


def test_a_general_network_of_one_set_sees_it_at_the_diameter_that_it_knows(command, drive, tmp_path):
    weights = save_weights(tmp_path / "run", "final", **{**GENERAL, "dataset": "DRIVE"})
    assert command(weights) == 0
    assert command.diameters == [(800,)] * 2


@pytest.mark.parametrize(("started", "validated"), [(False, False), (True, False), (False, True)])
def test_photographs_that_weights_have_learned_from(started, validated, score, root, capsys, tmp_path):
    learned = {"mine/images/1.png": sha256(root / "images/1.png"), "mine/labels/1.png": sha256(root / "labels/1.png")}
    record = {"validation_sha256" if validated else "data_sha256": learned}
    for _ in range(2 * started):  # fine-tuned twice, each time on another file of the same name
        record = {"data_sha256": {"mine/images/1.png": "0"}, "started_from": {"file": "any", **record}}
    weights = save_weights(tmp_path / "run", "final", **GENERAL, **record)
    path = table(root, *PAIRS[:2])
    assert score(path, "--weights", weights) == 2
    assert f"{weights}: trained or validated on 1 of the 2 photographs of mine (1); " in capsys.readouterr().err
    assert not (weights.parent / "results").exists()


@pytest.mark.parametrize(("started", "kind"), [(False, "image"), (True, "image"), (False, "label")])
def test_a_photograph_in_another_format_is_still_the_same(started, kind, score, root, capsys, tmp_path):
    """If it was saved anew with loss, its label tells."""
    pixels = checksum(read_photograph(root / "images/1.png") if kind == "image" else read_mask(root / "labels/1.png"))
    record = {"data_sha256": {"1.tif": "of another file"}, "pixels_sha256": {f"1 {kind}": pixels}}
    if started:
        record = {"data_sha256": {"2.png": "0"}, "pixels_sha256": {}, "started_from": {"file": "any", **record}}
    weights = save_weights(tmp_path / "run", "final", **GENERAL, **record)
    path = table(root, *PAIRS[:2])
    assert score(path, "--weights", weights) == 2
    assert "trained or validated on 1 of the 2 photographs of mine (1)" in capsys.readouterr().err
    save_weights(tmp_path / "run", "final", **GENERAL, data_sha256=record["data_sha256"])
    assert score(path, "--weights", weights) == 0
    assert f"{weights}: its record has no checksums of pixels, so" in capsys.readouterr().out


def test_drives_own_photographs_too(command, drive, root, capsys, tmp_path):
    weights = save_weights(tmp_path / "run", "final", **GENERAL,
                           data_sha256={"mine/a.png": sha256(root / "images/0.png")})
    assert command(weights) == 2
    assert "trained or validated on 1 of the 2 photographs of DRIVE (synthetic_test_01)" in capsys.readouterr().err


def test_the_threshold_is_the_records_or_the_commands_and_tables_say_so(score, root, capsys, tmp_path):
    save_weights(tmp_path / "weights", "any_rsan", **GENERAL, threshold=0.3)
    sensitivities = []
    other = tmp_path / "other"
    for flags, threshold, folder in (([], 0.3, tmp_path / "results/mine/any_rsan"),
                                     (["--threshold", "0.9", "--output-dir", other], 0.9, other)):
        assert score(table(root, *PAIRS[:2]), *flags) == 0
        assert f"threshold {threshold}" in capsys.readouterr().out
        assert (folder / "table.md").read_text().count(f", threshold {threshold}") == 2
        metrics = metrics_in(folder)
        assert metrics["threshold"] == threshold
        sensitivities.append(metrics["inside_fov"]["sensitivity"])
    assert sensitivities[0] > sensitivities[1]


def write_maps(folder, examples, binary=False):
    folder.mkdir()
    for example in examples:
        found = np.where(example.label, 200, example.image[..., 1] // 2).astype("uint8")
        Image.fromarray((found > 150) * np.uint8(255) if binary else found).save(folder / f"{example.name}.png")
    return folder


@pytest.mark.parametrize("binary", [False, True])
def test_maps_of_any_program_are_scored_in_the_same_tables(binary, command, drive, tmp_path, capsys):
    folder = write_maps(tmp_path / "unet", drive, binary)
    assert command("--maps", folder) == 0
    output, said = capsys.readouterr()
    assert "maps of unet" in output and "RSAN (paper)" in output and "chance" not in said
    assert ("black and white, so there is no AUC and no curve" in output) == binary
    metrics = metrics_in(folder, "results/DRIVE")
    assert (metrics["whole_image"]["auc"] or 0) == pytest.approx(0 if binary else 1, abs=0.01)
    assert "sha256" not in metrics["weights"] and command.diameters == []
    assert (folder / "results/DRIVE/roc.png").exists() != binary
    assert (folder / "results/DRIVE/panels/synthetic_test_01.png").exists()


def test_maps_that_are_hardly_better_than_chance_get_a_warning(command, drive, tmp_path, capsys):
    """As if they were mirrored."""
    folder, rng = tmp_path / "mirrored", np.random.default_rng(0)
    folder.mkdir()
    for example in drive:
        values = rng.integers(0, 200, example.label.shape) + 10 * example.label
        Image.fromarray(values.astype("uint8")).save(folder / f"{example.name}.png")
    assert command("--maps", folder) == 0
    assert capsys.readouterr().err.count("hardly better than chance;\nis the map") == len(drive)


def test_maps_of_own_photographs(score, root):
    assert score(table(root, *PAIRS), "--maps", root / "labels") == 0
    assert metrics_in(root / "labels/results/mine")["inside_fov"]["f1"] > 0.99


@pytest.mark.parametrize(("flags", "message"), [
    (["--maps", "maps", "--synthetic"], "--maps scores no network"),
    (["--threshold", "1.5"], "must be 0.001 to 0.999"),
    (["--threshold", "nan"], "must be 0.001 to 0.999"),
    (["mine.csv", "--synthetic"], "omit any SET"),
])
def test_flags_that_do_not_go_together(flags, message, score, capsys):
    with pytest.raises(SystemExit) as stop:
        score(*flags)
    assert stop.value.code == 2 and message in capsys.readouterr().err


def test_results_of_another_table_are_not_replaced(score, root, capsys, tmp_path):
    save_weights(tmp_path / "weights", "any_rsan", **GENERAL)
    assert score(table(root, *PAIRS[:2])) == 0
    results = tmp_path / "results/mine/any_rsan"
    assert score(table(root, *PAIRS[:3])) == 0  # the same table with one more photograph
    before = (results / "metrics.json").read_bytes()
    for kind in ("images", "labels"):  # another photograph of the same name
        shutil.copy(root / kind / "2.png", root / kind / "0.png")
    assert score(table(root, *PAIRS[:2])) == 2
    assert "mine.csv does not score, such as 0; remove it" in capsys.readouterr().err
    assert (results / "metrics.json").read_bytes() == before


def test_a_network_of_procedural_images_does_not_see_own_photographs(score, root, capsys, tmp_path):
    save_weights(tmp_path / "weights", "any_rsan", dataset="synthetic")
    assert score(table(root, *PAIRS[:2])) == 2
    assert "trained on procedural images" in capsys.readouterr().err


def test_an_evaluation_does_not_hold_all_photographs_or_maps(score, root, monkeypatch, tmp_path):
    photographs, maps = [], []

    def watched(kept, make):
        def made(*arguments):
            gc.collect()
            assert sum(reference() is not None for reference in kept) <= 2
            kept.append(weakref.ref(result := make(*arguments)))
            return result

        return made

    monkeypatch.setattr(custom.Row, "load", watched(photographs, custom.Row.load))
    monkeypatch.setattr(evaluation, "to_16_bit", watched(maps, evaluation.to_16_bit))
    save_weights(tmp_path / "weights", "any_rsan", **GENERAL)
    assert score(table(root, *PAIRS)) == 0
    assert len(photographs) > len(maps) == 4
