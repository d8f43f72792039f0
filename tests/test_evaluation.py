import dataclasses
import hashlib
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import Shown, save_weights
from test_metrics import example

from vessels import UserError, evaluation, network, record, release
from vessels.data import published
from vessels.metrics import PROTOCOLS

import pretrained

pytestmark = pytest.mark.usefixtures("examples")


def read(path, *parts):
    return json.loads(path.joinpath(*parts).read_text(encoding="utf-8"))


def test_environment_does_not_import_tensorflow(monkeypatch):
    for name in ("keras", "tensorflow", "jax", "torch"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    found = record.environment()
    assert not {"keras", "tensorflow"} & set(sys.modules)
    assert found["numpy"] == np.__version__ and found["python"] and found["device"]
    json.dumps(found)
    monkeypatch.setenv("PATH", "")
    assert record.environment()["commit"] is record.environment()["dirty"] is None


@pytest.fixture
def examples(stand_in):
    """The two test photographs of all sets."""
    made = [example("01_test", 1), example("02_test", 2)]
    stand_in(made)
    return made


def test_command_writes_all_and_ends_with_the_table(command, examples, tmp_path, capsys):
    save_weights(tmp_path / "weights")
    assert command() == 0
    output = capsys.readouterr()
    assert max(map(len, output.out.replace(str(tmp_path), "").splitlines())) <= 80
    assert max(map(len, output.err.replace("\r", "\n").splitlines())) <= 80
    assert output.out.splitlines()[-1].startswith("standard deviation") and "second observer" in output.out
    assert "RSAN (paper)" in output.out and "0.9855" in output.out and "SYNTHETIC" not in output.out
    results = tmp_path / "results" / "DRIVE" / "rsan"
    written = {path.relative_to(results).as_posix() for path in results.rglob("*") if path.is_file()}
    pictures = {f"{kind}/{name}_test.png" for kind in ("panels", "probabilities") for name in ("01", "02")}
    assert written == {"metrics.json", "table.md", "roc.png", "pr.png", *pictures}
    metrics = read(results, "metrics.json")
    assert metrics["weights"] == {"file": "drive_rsan.weights.h5", "parameters": 7,
                                  "recipe": {"epochs": 3, "seed": 0},
                                  "sha256": hashlib.sha256(b"weights").hexdigest()}
    assert (metrics["dataset"], metrics["n_images"], metrics["published"]["auc"]) == ("DRIVE", 2, 0.9855)
    assert str(tmp_path) not in (results / "metrics.json").read_text(encoding="utf-8")
    saved = cv2.imread(str(results / "probabilities" / "01_test.png"), cv2.IMREAD_UNCHANGED)
    green = examples[0].image[..., 1]
    assert saved.dtype == "uint16" and abs(saved / 65535 - (1 - green / green.max())).max() < 1 / 65535


def test_scoring_again_changes_no_file(command, tmp_path):
    save_weights(tmp_path / "weights")
    assert command() == 0
    metrics = tmp_path / "results" / "DRIVE" / "rsan" / "metrics.json"
    metrics.write_text(metrics.read_text(encoding="utf-8").replace('"numpy": "', '"numpy": "other '))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    assert command() == 0
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before


def test_synthetic_scores_are_marked_and_stay_in_their_run_folder(command, tmp_path, capsys):
    run = tmp_path / "runs" / "drive-synthetic-rsan-0"
    assert command("--synthetic") == 2
    assert "drive-synthetic-rsan-0/final.weights.h5: no such weights" in capsys.readouterr().err
    save_weights(run, "final", dataset="synthetic")
    assert command("--synthetic") == 0
    output = capsys.readouterr().out
    assert "SYNTHETIC IMAGES: these scores say nothing about DRIVE" in output and "paper" not in output
    assert "DRIVE, 2 test images" not in output
    assert "paper" not in (run / "results" / "table.md").read_text(encoding="utf-8")
    assert not (tmp_path / "results" / "DRIVE").exists()


def test_a_release_holds_its_test_scores_at_its_threshold(command, tmp_path, capsys):
    weights = save_weights(tmp_path / "runs" / "drive-rsan-0", "final", threshold=0.6)
    assert release.main([str(weights.parent), "drive_rsan"]) == 2
    assert f"make them with `python eval_drive.py {weights}`" in capsys.readouterr().err
    assert command(weights.parent, "--threshold", "0.5") == 0 and not (tmp_path / "results").exists()
    assert release.main([str(weights), "drive_rsan"]) == 2
    assert "no scores of these weights at this threshold" in capsys.readouterr().err
    assert command(weights.parent) == 0
    assert release.main([str(weights), "drive_rsan", "--name", "rsan, my way"]) == 0
    record = read(tmp_path, "weights", "drive_rsan.json")
    assert (record["threshold"], record["name"]) == (0.6, "rsan, my way")
    assert command() == 0
    for folder in (weights.parent / "results", tmp_path / "results" / "DRIVE" / "rsan"):
        assert read(folder, "metrics.json")["inside_fov"] == record["test"]["inside_fov"]


@pytest.mark.parametrize(("name", "shown", "changes"), [
    ("chase_backbone_authors_seed2", "backbone, authors' recipe", {
        "dataset": "CHASEDB1", "variant": "backbone", "seed": 2, "recipe": {"recipe": "authors", "seed": 2}}),
    ("chase_rsan_all", "rsan, all training images", {
        "dataset": "CHASEDB1", "recipe": {"seed": 0, "train_on": "train+validation"}}),
    ("any_rsan", "rsan, any camera", {"dataset": "DRIVE+CHASEDB1", "diameters": [800],
                                      "recipe": {"seed": 0, "train_on": "train+validation"}}),
    ("drive_rsan", "mine", {"name": "mine"}),
])
def test_a_release_has_a_file_name_and_a_name_for_tables(command, tmp_path, name, shown, changes):
    weights = save_weights(tmp_path / "run", "final", **changes)
    for dataset in published.DATASETS:
        assert command(weights, dataset=dataset) == 0
    if changes.get("dataset") == "CHASEDB1":  # scores on its own set are beside it, others in a folder
        assert (tmp_path / "run" / "results" / "DRIVE" / "metrics.json").exists()
    assert release.main([str(weights), name]) == 0
    assert [path.name for path in sorted((tmp_path / "weights").iterdir())] == [f"{name}.json", f"{name}.weights.h5"]
    record = read(tmp_path, "weights", f"{name}.json")
    test = record["test"]
    assert record["name"] == shown
    assert set(test) == ({"DRIVE", "CHASEDB1"} if name.startswith("any") else set(PROTOCOLS))


def test_weights_have_names_on_the_command_line(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path / "weights")
    run, drive = save_weights(tmp_path / "run", "final"), save_weights(tmp_path / "weights")
    seed = save_weights(tmp_path / "weights", "drive_rsan_authors_seed1")
    for name, path in ((run.parent, run), (run, run), ("drive", drive), ("drive_rsan", drive),
                       ("drive_authors_seed1", seed), (tmp_path / "weights" / "drive_rsan", drive)):
        assert pretrained.weights_file(name) == path, name
    monkeypatch.chdir(tmp_path)
    (tmp_path / "drive").mkdir()  # the data, perhaps
    assert record.find_weights([Path("drive")]) == [drive]
    for name in ("drave", "elsewhere/drive"):
        assert pretrained.weights_file(name) == Path(name)
    with pytest.raises(pretrained.WeightsError, match=r"drave: no such weights \(but drive_rsan, drive_rsan_authors"):
        pretrained.read_record(tmp_path / "weights" / "drave")


def test_released_weights_are_replaced_only_when_asked(command, tmp_path, capsys):
    save_weights(tmp_path / "weights")
    for run, content in (("same", b"weights"), ("new", b"new weights")):
        assert command(save_weights(tmp_path / run, "final", content)) == 0
    assert release.main([str(tmp_path / "same"), "drive_rsan"]) == 0
    assert release.main([str(tmp_path / "new"), "drive_rsan"]) == 2
    assert "drive_rsan.weights.h5: other weights have this name" in capsys.readouterr().err
    assert (tmp_path / "weights" / "drive_rsan.weights.h5").read_bytes() == b"weights"
    assert release.main([str(tmp_path / "new"), "drive_rsan", "--replace"]) == 0 and command() == 0


@pytest.mark.parametrize(("changes", "message"), [
    ({"unfinished": True}, "the training is unfinished"),
    ({"dataset": "synthetic"}, "trained on synthetic"),
    ({"dataset": "DRIVE+mine", "diameters": [500]}, "trained on DRIVE+mine"),
])
def test_what_is_scored_but_not_released(command, tmp_path, capsys, changes, message):
    weights = save_weights(tmp_path / "run", "final", **changes)
    assert command(weights) == 0
    assert ("rsan, unfinished" in capsys.readouterr().out) == ("unfinished" in changes)
    assert release.main([str(weights), "drive_rsan"]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "weights").exists()


def test_all_rows_of_a_set_come_from_one_command(command, tmp_path):
    save_weights(tmp_path / "weights")
    save_weights(tmp_path / "weights", "drive_rsan_seed1", seed=1)
    save_weights(tmp_path / "weights", "chase_rsan", dataset="CHASEDB1", diameters=[919])
    save_weights(tmp_path / "weights", "any_rsan", dataset="DRIVE+CHASEDB1", diameters=[800])
    (tmp_path / "weights" / "no_record.weights.h5").write_bytes(b"")
    assert command(tmp_path / "weights") == 0
    folders = {"rsan": None, "rsan_seed1": None, "rsan_of_CHASEDB1": 919, "any_rsan": 800}
    results = tmp_path / "results" / "DRIVE"
    assert {path.name for path in results.iterdir()} == set(folders)
    # Networks of the set itself see photographs unscaled; the folder is read in the order of names.
    assert command.diameters == [(folders["any_rsan"],)] * 2 + [(folders["rsan_of_CHASEDB1"],)] * 2
    metrics = read(results, "rsan_of_CHASEDB1", "metrics.json")
    assert (metrics["dataset"], metrics["trained_on"]) == ("DRIVE", "CHASEDB1")


def test_results_that_would_overwrite_others_are_refused(command, tmp_path, capsys):
    first, second = save_weights(tmp_path / "run", "one"), save_weights(tmp_path / "run", "two")
    assert command(first, second) == 2
    assert "would overwrite others" in capsys.readouterr().err and not (tmp_path / "run" / "results").exists()
    (tmp_path / "empty").mkdir()
    assert command(tmp_path / "empty") == 2
    assert "empty: no such weights; name others" in capsys.readouterr().err


def test_another_data_set_is_one_more_instance(command, tmp_path, monkeypatch, capsys):
    third = dataclasses.replace(published.DRIVE, name="STARE", title="Stare", key="stare", diameter=640)
    monkeypatch.setattr(published, "DATASETS", (*published.DATASETS, third))
    save_weights(tmp_path / "weights", "stare_rsan", dataset="STARE", diameters=[640])
    assert command(dataset=third) == 0
    assert "Stare, 2 test images" in capsys.readouterr().out
    assert command(tmp_path / "weights" / "stare_rsan.weights.h5") == 0
    assert command.diameters == [(640,)] * 2
    assert (tmp_path / "results" / "DRIVE" / "rsan_of_STARE" / "metrics.json").exists()


@pytest.mark.parametrize(("changes", "written", "message"), [
    (None, None, "drive_rsan.weights.h5: no such weights; name others, or train some"),
    ({}, "", "drive_rsan.json: cannot be read"),
    ({}, "{", "json: cannot be read"),
    ({}, "3", "json: cannot be read"),
    ({"model": None}, None, "json: lacks model; restore it"),
    ({"sha256": "0" * 64}, None, "not the file that drive_rsan.json describes"),
    ({"content": b"other arrays"}, None, "3 arrays that do not match the 5"),
    ({"model": {"depth": 3}}, None, "does not fit"),
])
def test_user_errors_are_one_line_and_exit_code_2(command, tmp_path, capsys, changes, written, message):
    if changes is not None:
        record = save_weights(tmp_path / "weights", **changes).with_name("drive_rsan.json")
        if written is not None:
            record.write_text(written) if written else record.unlink()
    assert command() == 2
    output = capsys.readouterr()
    assert message in output.err and output.err.startswith("error: ") and output.err.count("\n") == 1
    assert output.out == "" and not (tmp_path / "results").exists()


def test_the_folder_of_a_run_is_scored_from_within(command, tmp_path, monkeypatch):
    save_weights(tmp_path / "run", "final")
    monkeypatch.chdir(tmp_path / "run")
    assert command(".") == 0
    assert (tmp_path / "run" / "results" / "metrics.json").exists()


def test_a_folder_where_one_file_is_needed_is_said(tmp_path):
    with pytest.raises(pretrained.WeightsError, match="no such weights; name others"):
        pretrained.read_record(tmp_path)


def test_a_network_that_predicts_no_probabilities_is_not_scored(command, examples, tmp_path, capsys, monkeypatch):
    save_weights(tmp_path / "weights")
    monkeypatch.setattr(evaluation.maps, "predict_image", lambda model, image, side: image[..., 1] * np.float32(np.nan))
    assert command() == 2
    assert "map of 01_test holds values outside [0, 1]" in capsys.readouterr().err
    assert not (tmp_path / "results" / "DRIVE").exists()


def test_data_errors_come_before_the_network_is_built(command, tmp_path, capsys, monkeypatch):
    save_weights(tmp_path / "weights")
    missing = UserError("data/DRIVE: no such folder; get it")
    monkeypatch.setattr(Shown, "load", lambda *_: (_ for _ in ()).throw(missing))
    monkeypatch.setattr(network, "load", lambda name: pytest.fail("built"))
    assert command() == 2
    assert capsys.readouterr().err == "error: data/DRIVE: no such folder; get it\n"


def test_flips_are_averaged_and_marked(command, tmp_path, capsys, monkeypatch):
    save_weights(tmp_path / "weights")
    ramp = np.broadcast_to(np.linspace(0, 1, 72, dtype="float32"), (64, 72))
    monkeypatch.setattr(evaluation.maps, "predict_map", lambda model, widths, padded, image, fov: ramp)
    for flags, folder in ((["--tta"], "rsan_tta"), ([], "rsan")):
        assert command(*flags) == 0
        assert ("TTA" in capsys.readouterr().out) == bool(flags)
        results = tmp_path / "results" / "DRIVE" / folder
        assert read(results, "metrics.json").get("tta", False) == bool(flags)
        saved = cv2.imread(str(results / "probabilities" / "01_test.png"), cv2.IMREAD_UNCHANGED)
        assert abs(saved / 65535 - (0.5 if flags else ramp)).max() < 1 / 65535


def test_output_that_cannot_be_written(command, tmp_path, capsys):
    save_weights(tmp_path / "weights")
    (tmp_path / "file").write_text("")
    (tmp_path / "folder" / "roc.png").mkdir(parents=True)  # a file cannot be renamed onto a folder
    for name in ("file", "folder"):
        assert command("--output-dir", str(tmp_path / name)) == 2
        assert "cannot be written" in capsys.readouterr().err
    assert not list(tmp_path.rglob(".*")) and not (tmp_path / "folder" / "metrics.json").exists()
