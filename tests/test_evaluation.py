import dataclasses
import hashlib
import json
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from vessels import UserError, evaluation, files, jobs, network, record, release
from vessels.data import published, synthetic
from vessels.data.examples import Example
from vessels.metrics import METRICS, PROTOCOLS, best_threshold, centreline_dice, evaluate, score
from vessels.report import comparison

import pretrained


def example(name, seed, second=True, size=(64, 72)):
    """A disc with a few straight vessels, some of them outside the field of view."""
    rng = np.random.default_rng(seed)
    y, x = np.indices(size)
    fov = np.hypot(y - size[0] / 2, x - size[1] / 2) < size[0] / 2 - 4
    label = np.zeros(size, bool)
    for column in rng.integers(5, size[1] - 5, 4):
        label[:, column : column + 3] = True
    observer = np.roll(label, 1, axis=1) if second else None
    return Example(name, rng.integers(0, 256, (*size, 3), "uint8"), label, fov, observer)


def maps(examples, noise=0.8):
    rng = np.random.default_rng(1)
    return [(1 / (1 + np.exp(-(4 * one.label - 2 + rng.normal(0, noise, one.label.shape))))).astype("float32")
            for one in examples]


@pytest.mark.filterwarnings("ignore:A single label was found")
@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=60), st.integers(0, 6))
def test_score_equals_scikit_learn_with_ties(pixels, threshold):
    probability = np.array([value / 6 for value, _ in pixels], "float32")
    label = np.array([vessel for _, vessel in pixels])
    found = probability >= threshold / 6
    scores = score(probability, label, threshold=threshold / 6)
    assert scores["accuracy"] == pytest.approx(sk.accuracy_score(label, found), abs=1e-12)
    assert scores["mcc"] == pytest.approx(sk.matthews_corrcoef(label, found), abs=1e-12)
    if (label | found).any():
        assert scores["f1"] == pytest.approx(sk.f1_score(label, found), abs=1e-12)
    if 0 < label.sum() < label.size:
        assert scores["auc"] == pytest.approx(sk.roc_auc_score(label, probability), abs=1e-12)
        assert scores["average_precision"] == pytest.approx(
            sk.average_precision_score(label, probability), abs=1e-12)
        assert scores["sensitivity"] == pytest.approx(sk.recall_score(label, found), abs=1e-12)
        assert scores["specificity"] == pytest.approx(sk.recall_score(~label, ~found), abs=1e-12)
    else:
        assert scores["auc"] is scores["average_precision"] is None


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["float32", "float64"]))
def test_areas_do_not_depend_on_order_or_monotone_rescaling(seed, dtype):
    rng = np.random.default_rng(seed)
    probability, label = rng.integers(0, 64, 200).astype(dtype) / 64, rng.random(200) < 0.3
    scores, order = score(probability, label), rng.permutation(200)
    for same in (score(probability[order], label[order]), score(probability / 4, label)):
        assert (same["auc"], same["average_precision"]) == (scores["auc"], scores["average_precision"])
    if scores["auc"] is not None:
        assert score(1 - probability, label)["auc"] == pytest.approx(1 - scores["auc"], abs=1e-12)


def test_score_by_hand():
    probability = np.array([0.9, 0.8, 0.5, 0.4, 0.3, 0.1], "float32")
    label = np.array([1, 0, 1, 1, 0, 0], bool)
    scores = score(probability, label)  # two true positives, one false negative, one false positive, two true negatives
    assert scores == pytest.approx({
        "auc": 7 / 9, "average_precision": (1 + 2 / 3 + 3 / 4) / 3, "accuracy": 4 / 6, "sensitivity": 2 / 3,
        "specificity": 2 / 3, "f1": 2 / 3, "mcc": 1 / 3})
    assert all(type(value) is float for value in scores.values())
    inside = np.array([1, 1, 0, 0, 0, 1], bool)
    assert score(probability, label, inside) == score(probability[inside], label[inside])
    stacked = score(probability.reshape(2, 3), label.reshape(2, 3), inside.reshape(2, 3))
    assert stacked == score(probability, label, inside)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_constant_predictions(value):
    label = np.arange(10) < 3
    scores = score(np.full(10, value, "float32"), label)
    assert (scores["auc"], scores["mcc"]) == (0.5, 0)
    assert scores["average_precision"] == pytest.approx(0.3)


@pytest.mark.parametrize("vessel", [False, True])
def test_single_class_has_no_areas(vessel):
    scores = score(np.linspace(0, 1, 9), np.full(9, vessel))
    assert scores["auc"] is scores["average_precision"] is None
    assert scores["specificity" if vessel else "sensitivity"] is None


@pytest.mark.parametrize(("probability", "label", "where"), [
    ([0.1, 0.9], [0, 1], np.array([1, 0], "uint8")),
    ([0.1, np.nan], [0, 1], None),
    ([0.1, 0.9], [0.0, np.nan], None),
])
def test_what_would_be_scored_wrongly_is_refused(probability, label, where):
    with pytest.raises(ValueError, match=r"where must be bool|holds NaN"):
        score(np.array(probability), np.array(label), where)


def test_observer_has_no_areas():
    label = np.arange(8) < 4
    scores = score(np.arange(8) < 3, label)
    assert scores["auc"] is scores["average_precision"] is None
    assert (scores["sensitivity"], scores["specificity"], scores["accuracy"]) == (0.75, 1, 0.875)


def test_no_overflow_and_fast_on_all_pixels_of_drive():
    rng = np.random.default_rng(0)
    label = rng.random(20 * 584 * 565) < 0.0876
    probability = np.clip(rng.normal(0.3 + 0.4 * label, 0.15), 0, 1).astype("float32")
    began = time.process_time()
    scores = score(probability, label)
    assert time.process_time() - began < 3
    assert scores["auc"] == pytest.approx(sk.roc_auc_score(label, probability), abs=1e-12)
    assert scores["mcc"] == pytest.approx(sk.matthews_corrcoef(label, probability >= 0.5), abs=1e-9)


def line(*columns, height=40, width=60):
    """A horizontal vessel three pixels thick, in the given ranges of columns."""
    found = np.zeros((height, width), bool)
    for start, stop in columns:
        found[18:21, start:stop] = True
    return found


def test_centreline_dice_by_hand():
    whole, half, elsewhere = line((5, 55)), line((5, 30)), np.roll(line((5, 55)), 12, axis=0)
    empty = np.zeros_like(whole)
    assert centreline_dice(whole, whole) == 1
    # One pixel thick, it keeps the centreline except for the bent ends, but loses most pixels.
    thin = np.zeros_like(whole)
    thin[19, 5:55] = True
    assert centreline_dice(thin, whole) > 0.98 and score(thin, whole)["f1"] == pytest.approx(0.5)
    # Half the line: its whole skeleton is on the label, and half of the label's skeleton is on it.
    assert centreline_dice(half, whole) == pytest.approx(2 / 3, abs=0.02)
    assert centreline_dice(half, whole) == centreline_dice(whole, half)
    for prediction, label in ((elsewhere, whole), (empty, whole), (whole, empty)):
        assert centreline_dice(prediction, label) == 0
    assert centreline_dice(empty, empty) is None
    inside = np.zeros_like(whole)
    inside[:, :30] = True
    assert centreline_dice(half, whole, inside) == 1


def test_evaluate():
    examples = [example("a", 1), example("b", 2)]
    probabilities = maps(examples)
    result = evaluate(examples, probabilities)
    assert set(result) == {*PROTOCOLS, "per_image", "mean", "std", "second_observer"}
    pooled = np.concatenate([one[e.fov] for one, e in zip(probabilities, examples, strict=True)])
    labels = np.concatenate([e.label[e.fov] for e in examples])
    assert result["inside_fov"]["auc"] == pytest.approx(sk.roc_auc_score(labels, pooled), abs=1e-6)
    assert result["whole_image"]["auc"] == pytest.approx(
        sk.roc_auc_score(np.ravel([e.label for e in examples]), np.ravel(probabilities)), abs=1e-6)
    assert [one["image"] for one in result["per_image"]] == ["a", "b"]
    for protocol in PROTOCOLS:
        assert tuple(result[protocol]) == METRICS
        each = [one[protocol]["f1"] for one in result["per_image"]]
        assert result["mean"][protocol]["f1"] == pytest.approx(np.mean(each), abs=1e-6)
        assert result["std"][protocol]["f1"] == pytest.approx(np.std(each), abs=1e-6)
        assert result["second_observer"][protocol]["auc"] is None
        assert 0 < result["second_observer"][protocol]["f1"] < 1
        cldice = [centreline_dice(found >= 0.5, e.label, e.fov if protocol == "inside_fov" else None)
                  for found, e in zip(probabilities, examples, strict=True)]
        assert [one[protocol]["cldice"] for one in result["per_image"]] == pytest.approx(cldice, abs=1e-6)
        assert min(cldice) <= result[protocol]["cldice"] <= max(cldice)
    assert result == evaluate(examples, probabilities)
    assert json.loads(json.dumps(result)) == result


def test_pixels_outside_the_field_of_view_change_only_the_whole_image():
    examples = [example("a", 1)]
    before = maps(examples)
    after = [np.where(examples[0].fov, before[0], 0).astype("float32")]
    found = evaluate(examples, before), evaluate(examples, after)
    for key in set(METRICS) - {"cldice"}:  # its skeletons are those of the whole map
        assert found[0]["inside_fov"][key] == found[1]["inside_fov"][key]
    assert found[0]["whole_image"]["sensitivity"] > found[1]["whole_image"]["sensitivity"]


def test_evaluate_without_observer_and_with_bad_maps():
    examples = [example("a", 1), example("b", 2, second=False)]
    good = maps(examples)
    assert evaluate(examples, good)["second_observer"] is None
    for bad, message in ((good[1] * np.nan, "outside"), (good[1] + 1, "outside"), (good[1][1:], "not")):
        with pytest.raises(ValueError, match=f"map of b .*{message}"):
            evaluate(examples, [good[0], bad])
    with pytest.raises(ValueError, match="zip"):
        evaluate(examples, good[:1])


def test_environment_does_not_import_tensorflow(monkeypatch):
    for name in ("keras", "tensorflow", "jax", "torch"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    found = record.environment()
    assert not {"keras", "tensorflow"} & set(sys.modules)
    assert found["numpy"] == np.__version__ and found["python"] and found["device"]
    json.dumps(found)
    monkeypatch.setenv("PATH", "")
    assert record.environment()["commit"] is record.environment()["dirty"] is None


# The command line, with a replacement for the network, so that TensorFlow is not needed.


class FakeModel:
    def count_params(self):
        return 7


@pytest.fixture
def command(tmp_path, monkeypatch, stand_in):
    """`command(*flags)` -> exit code; weights lie in tmp_path/weights, results go to tmp_path/results."""
    examples = [example("01_test", 1), example("02_test", 2)]
    predicted = dict(zip((one.image.tobytes() for one in examples), maps(examples), strict=True))
    (tmp_path / "results").mkdir()
    figures = files.ROOT / "results" / "published.json"
    (tmp_path / "results" / "published.json").write_bytes(figures.read_bytes())
    for module in (jobs, release, comparison):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    stand_in(examples)
    monkeypatch.setattr(synthetic.Procedural, "load", lambda *_: examples)
    monkeypatch.setattr(evaluation.maps, "predict_image", lambda model, image, side: predicted[image.tobytes()])

    def build(filters, variant):
        assert filters == 16
        return FakeModel()

    def load_weights(model, path):
        if path.read_bytes() == b"other arrays":
            raise ValueError(f"{path} holds 3 arrays that do not match the 5 of rsan")

    def predict_photograph(model, image, widths, fov):
        run.diameters.append(widths.diameters)
        return evaluation.maps.Prediction(predicted[image.tobytes()], fov, None, 1.0, 1.0)

    monkeypatch.setattr(evaluation.maps, "predict_photograph", predict_photograph)

    module = network.Network("rsan_model", build, None, load_weights)
    monkeypatch.setattr(network, "load", lambda name: module)

    def run(*flags, dataset=published.DRIVE):
        return evaluation.main(dataset, "rsan_model", "Scores.", list(map(str, flags)))

    run.diameters = []  # diameters that were asked for, one tuple for each image of another set's network
    run.predicted = predicted
    return run


def save(folder, stem="drive_rsan", content=b"weights", **changes):
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / f"{stem}.weights.h5"
    weights.write_bytes(content)
    record = {"dataset": "DRIVE", "variant": "rsan", "model": {"filters": 16, "variant": "rsan"},
              "parameters": 7, "sha256": hashlib.sha256(content).hexdigest(), "seed": 0,
              "recipe": {"epochs": 3, "seed": changes.get("seed", 0)}}
    record = {key: value for key, value in {**record, **changes}.items() if value is not None}
    (folder / f"{stem}.json").write_text(json.dumps(record))
    return weights


def test_command_writes_all_and_ends_with_the_table(command, tmp_path, capsys):
    save(tmp_path / "weights")
    assert command() == 0
    output = capsys.readouterr()
    assert max(map(len, output.out.replace(str(tmp_path), "").splitlines())) <= 80
    assert max(map(len, output.err.replace("\r", "\n").splitlines())) <= 80
    assert output.out.splitlines()[-1].startswith("second observer")
    assert "RSAN (paper)" in output.out and "0.9855" in output.out and "SYNTHETIC" not in output.out
    results = tmp_path / "results" / "DRIVE" / "rsan"
    written = {path.relative_to(results).as_posix() for path in results.rglob("*") if path.is_file()}
    pictures = {f"{kind}/{name}_test.png" for kind in ("panels", "probabilities") for name in ("01", "02")}
    assert written == {"metrics.json", "table.md", "roc.png", "pr.png", "reliability.png", *pictures}
    metrics = json.loads((results / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["weights"] == {"file": "drive_rsan.weights.h5", "parameters": 7,
                                  "recipe": {"epochs": 3, "seed": 0},
                                  "sha256": hashlib.sha256(b"weights").hexdigest()}
    assert (metrics["dataset"], metrics["n_images"], metrics["published"]["auc"]) == ("DRIVE", 2, 0.9855)
    assert metrics["environment"]["tf32"] is False
    assert str(tmp_path) not in (results / "metrics.json").read_text(encoding="utf-8")
    saved = cv2.imread(str(results / "probabilities" / "01_test.png"), cv2.IMREAD_UNCHANGED)
    expected = next(iter(command.predicted.values()))
    assert saved.dtype == "uint16" and abs(saved / 65535 - expected).max() < 1 / 65535


def test_command_twice_gives_the_same_bytes(command, tmp_path):
    save(tmp_path / "weights")
    contents = []
    for name in ("first", "second"):
        folder = tmp_path / name
        assert command("--output-dir", str(folder)) == 0
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        metrics["seconds"] = None
        files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.*")}
        contents.append({**files, "metrics.json": json.dumps(metrics)})
    assert contents[0] == contents[1]


def test_synthetic_scores_are_marked_and_stay_in_their_run_folder(command, tmp_path, capsys):
    run = tmp_path / "runs" / "drive-synthetic-rsan-0"
    assert command("--synthetic") == 2
    assert "train_drive.py --synthetic" in capsys.readouterr().err
    save(run, "final", dataset="synthetic")
    assert command("--synthetic") == 0
    output = capsys.readouterr().out
    assert "SYNTHETIC IMAGES: these scores say nothing about DRIVE" in output and "paper" not in output
    assert "DRIVE, 2 test images" not in output
    assert "paper" not in (run / "results" / "table.md").read_text(encoding="utf-8")
    assert not (tmp_path / "results" / "DRIVE").exists()


def read(tmp_path, *parts):
    return json.loads(tmp_path.joinpath(*parts).read_text(encoding="utf-8"))


def test_release_adds_the_test_scores(command, tmp_path, capsys):
    weights = save(tmp_path / "runs" / "drive-rsan-0", "final")
    assert release.main([str(weights.parent)]) == 2
    assert f"make them with `python eval_drive.py {weights}`" in capsys.readouterr().err
    assert command(weights.parent) == 0 and not (tmp_path / "results" / "DRIVE").exists()
    assert release.main([str(weights.parent)]) == 0
    scores = read(weights.parent, "results", "metrics.json")
    assert read(tmp_path, "weights", "drive_rsan.json")["test"]["inside_fov"] == scores["inside_fov"]
    assert command() == 0
    assert read(tmp_path, "results", "DRIVE", "rsan", "metrics.json")["inside_fov"] == scores["inside_fov"]


def test_a_threshold_is_released_with_its_scores(command, tmp_path, capsys):
    weights = save(tmp_path / "runs" / "drive-rsan-0", "final")
    assert command(weights.parent) == 0
    assert release.main([str(weights), "--threshold", "0.6"]) == 2
    assert "no scores of these weights at this threshold" in capsys.readouterr().err
    assert command(weights.parent, "--threshold", "0.6") == 0
    assert release.main([str(weights), "--threshold", "0.6", "--name", "rsan, my way"]) == 0
    record = read(tmp_path, "weights", "drive_rsan.json")
    assert (record["threshold"], record["name"]) == (0.6, "rsan, my way")


@pytest.mark.parametrize(("name", "shown", "changes"), [
    ("drive_rsan_seed1", "rsan", {"seed": 1}),
    ("drive_rsan_authors", "rsan, authors' recipe", {"recipe": {"recipe": "authors", "seed": 0}}),
    ("chase_backbone_authors_seed2", "backbone, authors' recipe", {
        "dataset": "CHASEDB1", "variant": "backbone", "seed": 2, "recipe": {"recipe": "authors", "seed": 2}}),
    ("chase_rsan_all", "rsan, all training images", {
        "dataset": "CHASEDB1", "recipe": {"seed": 0, "train_on": "train+validation"}}),
    ("any_rsan", "rsan, any camera", {"dataset": "DRIVE+CHASEDB1", "diameters": [800],
                                      "recipe": {"seed": 0, "train_on": "train+validation"}}),
    ("drive_rsan", "mine", {"name": "mine"}),
])
def test_a_release_has_a_file_name_and_a_name_for_tables(command, tmp_path, name, shown, changes):
    weights = save(tmp_path / "run", "final", **changes)
    for dataset in published.DATASETS:
        assert command(weights, dataset=dataset) == 0
    if changes.get("dataset") == "CHASEDB1":  # scores on its own set are beside it, others in a folder
        assert (tmp_path / "run" / "results" / "DRIVE" / "metrics.json").exists()
    assert release.main([str(weights)]) == 0
    assert [path.name for path in sorted((tmp_path / "weights").iterdir())] == [f"{name}.json", f"{name}.weights.h5"]
    record = read(tmp_path, "weights", f"{name}.json")
    test = record["test"]
    assert record["name"] == shown
    assert set(test) == ({"DRIVE", "CHASEDB1"} if name.startswith("any") else set(PROTOCOLS))


def test_weights_have_names_on_the_command_line(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "FOLDER", tmp_path / "weights")
    run, drive = save(tmp_path / "run", "final"), save(tmp_path / "weights")
    seed = save(tmp_path / "weights", "drive_rsan_authors_seed1")
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
    save(tmp_path / "weights")
    for run, content in (("same", b"weights"), ("new", b"new weights")):
        assert command(save(tmp_path / run, "final", content)) == 0
    assert release.main([str(tmp_path / "same")]) == 0
    assert release.main([str(tmp_path / "new")]) == 2
    assert "drive_rsan.weights.h5: other weights have this name" in capsys.readouterr().err
    assert (tmp_path / "weights" / "drive_rsan.weights.h5").read_bytes() == b"weights"
    assert release.main([str(tmp_path / "new"), "--replace"]) == 0 and command() == 0


@pytest.mark.parametrize(("changes", "message"), [
    ({"unfinished": True}, "the training is unfinished"),
    ({"dataset": "synthetic"}, "trained on synthetic"),
    ({"dataset": "DRIVE+mine", "diameters": [500]}, "trained on DRIVE+mine"),
    ({"sha256": "0" * 64}, "not the file that final.json describes"),
])
def test_what_is_not_released(command, tmp_path, capsys, changes, message):
    weights = save(tmp_path / "run", "final", **changes)
    command(weights, "--allow-modified")
    assert release.main([str(weights)]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "weights").exists()


def test_all_rows_of_a_set_come_from_one_command(command, tmp_path, monkeypatch):
    save(tmp_path / "weights")
    save(tmp_path / "weights", "drive_rsan_seed1", seed=1)
    save(tmp_path / "weights", "chase_rsan", dataset="CHASEDB1")
    save(tmp_path / "weights", "any_rsan", dataset="DRIVE+CHASEDB1", diameters=[800])
    (tmp_path / "weights" / "no_record.weights.h5").write_bytes(b"")
    assert command(tmp_path / "weights") == 0
    folders = {"rsan": None, "rsan_seed1": None, "rsan_of_CHASEDB1": published.CHASEDB1.diameter, "any_rsan": 800}
    results = tmp_path / "results" / "DRIVE"
    assert {path.name for path in results.iterdir()} == set(folders)
    # Networks of the set itself see photographs unscaled; the folder is read in the order of names.
    assert command.diameters == [(folders["any_rsan"],)] * 2 + [(folders["rsan_of_CHASEDB1"],)] * 2
    metrics = read(results, "rsan_of_CHASEDB1", "metrics.json")
    assert (metrics["dataset"], metrics["trained_on"]) == ("DRIVE", "CHASEDB1")
    monkeypatch.chdir(tmp_path)
    assert command("weights/drive*.weights.h5") == 0  # not every shell expands it


def test_results_that_would_overwrite_others_are_refused(command, tmp_path, capsys):
    first, second = save(tmp_path / "run", "one"), save(tmp_path / "run", "two")
    assert command(first, second) == 2
    assert "would overwrite others" in capsys.readouterr().err and not (tmp_path / "run" / "results").exists()
    assert command(tmp_path / "results") == 2
    assert "no weights with their JSON" in capsys.readouterr().err


def test_weights_of_an_unfinished_run_are_scored_and_marked(command, tmp_path, capsys):
    assert command(save(tmp_path / "run", "final", unfinished=True)) == 0
    assert "rsan, unfinished" in capsys.readouterr().out
    assert "| rsan, unfinished (here) |" in (tmp_path / "run" / "results" / "table.md").read_text(encoding="utf-8")


def test_another_data_set_is_one_more_instance(command, tmp_path, monkeypatch, capsys):
    third = dataclasses.replace(published.DRIVE, name="STARE", title="Stare", key="stare", diameter=640)
    monkeypatch.setattr(published, "DATASETS", (*published.DATASETS, third))
    save(tmp_path / "weights", "stare_rsan", dataset="STARE")
    assert command(dataset=third) == 0
    assert "Stare, 2 test images" in capsys.readouterr().out
    assert command(tmp_path / "weights" / "stare_rsan.weights.h5") == 0
    assert command.diameters == [(640,)] * 2
    assert (tmp_path / "results" / "DRIVE" / "rsan_of_STARE" / "metrics.json").exists()


@pytest.mark.parametrize(("prepare", "message"), [
    (lambda folder: None, "drive_rsan.weights.h5: no such weights; train them with `python train_drive.py"),
    (lambda folder: (save(folder), (folder / "drive_rsan.json").unlink()), "drive_rsan.json: missing"),
    (lambda folder: (save(folder), (folder / "drive_rsan.json").write_text("{")), "json: cannot be read"),
    (lambda folder: (save(folder), (folder / "drive_rsan.json").write_text("3")), "json: cannot be read"),
    (lambda folder: save(folder, model=None), "json: lacks model"),
    (lambda folder: save(folder, dataset="unknown"), "trained on unknown, whose fields of view have no known diameter"),
    (lambda folder: save(folder, sha256="0" * 64), "use --allow-modified"),
    (lambda folder: save(folder, content=b""), "the file is empty"),
    (lambda folder: save(folder, content=b"other arrays"), "3 arrays that do not match the 5"),
    (lambda folder: save(folder, model={"depth": 3}), "does not fit"),
])
def test_user_errors_are_one_line_and_exit_code_2(command, tmp_path, capsys, prepare, message):
    prepare(tmp_path / "weights")
    assert command() == 2
    output = capsys.readouterr()
    assert message in output.err and output.err.startswith("error: ") and output.err.count("\n") == 1
    assert output.out == "" and not (tmp_path / "results" / "DRIVE").exists()


def test_the_folder_of_a_run_is_scored_from_within(command, tmp_path, monkeypatch):
    save(tmp_path / "run", "final")
    monkeypatch.chdir(tmp_path / "run")
    (tmp_path / "results" / "published.json").unlink()  # results/ may be an empty folder
    assert command(".") == 0
    assert json.loads((tmp_path / "run" / "results" / "metrics.json").read_text())["published"] == {}


def test_a_folder_where_one_file_is_needed_is_said(tmp_path):
    with pytest.raises(pretrained.WeightsError, match=r"a folder without final\.weights\.h5; name a file"):
        pretrained.read_record(tmp_path)


def test_modified_weights_are_scored_under_their_own_checksum(command, tmp_path):
    save(tmp_path / "weights", sha256="0" * 64)
    assert command("--allow-modified") == 0
    metrics = json.loads((tmp_path / "results" / "DRIVE" / "rsan" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["weights"]["sha256"] == hashlib.sha256(b"weights").hexdigest()


def test_a_network_that_predicts_no_probabilities_is_not_scored(command, tmp_path, capsys):
    save(tmp_path / "weights")
    next(iter(command.predicted.values()))[0, 0] = np.nan
    assert command() == 2
    assert "map of 01_test holds values outside [0, 1]" in capsys.readouterr().err
    assert not (tmp_path / "results" / "DRIVE").exists()


def test_data_errors_come_before_the_network_is_built(command, tmp_path, capsys, monkeypatch):
    save(tmp_path / "weights")
    missing = UserError("data/DRIVE: no such folder; get it")
    monkeypatch.setattr(published.Dataset, "load", lambda *_: (_ for _ in ()).throw(missing))
    monkeypatch.setattr(FakeModel, "__init__", lambda self: pytest.fail("built"), raising=False)
    assert command() == 2
    assert capsys.readouterr().err == "error: data/DRIVE: no such folder; get it\n"


@pytest.mark.parametrize("trained_on", ["DRIVE", "CHASEDB1"])
def test_flips_are_averaged_and_marked(command, tmp_path, capsys, trained_on):
    stem = {"DRIVE": "drive_rsan", "CHASEDB1": "chase_rsan"}[trained_on]
    weights = save(tmp_path / "weights", stem, dataset=trained_on)
    for image, found in list(command.predicted.items()):
        photograph = np.frombuffer(image, "uint8").reshape(*found.shape, 3)
        for axes in ((0,), (1,), (0, 1)):  # the replacement finds nothing in mirror images
            command.predicted[np.flip(photograph, axes).tobytes()] = found * 0
    assert command(weights, "--flips") == 0
    assert "flips averaged" in capsys.readouterr().out
    other = "" if trained_on == "DRIVE" else "_of_CHASEDB1"
    results = tmp_path / "results" / "DRIVE" / f"rsan{other}_flips"
    assert json.loads((results / "metrics.json").read_text())["tta"] is True
    saved = cv2.imread(str(results / "probabilities" / "01_test.png"), cv2.IMREAD_UNCHANGED)
    expected = next(iter(command.predicted.values())) / 4
    assert abs(saved / 65535 - expected).max() < 1 / 65535
    assert command(weights) == 0
    assert "flips averaged" not in capsys.readouterr().out
    assert "tta" not in json.loads((results.with_name(f"rsan{other}") / "metrics.json").read_text())


def test_output_that_cannot_be_written(command, tmp_path, capsys):
    save(tmp_path / "weights")
    (tmp_path / "file").write_text("")
    (tmp_path / "folder" / "roc.png").mkdir(parents=True)  # a file cannot be renamed onto a folder
    for name in ("file", "folder"):
        assert command("--output-dir", str(tmp_path / name)) == 2
        assert "cannot be written" in capsys.readouterr().err
    assert not list(tmp_path.rglob(".*")) and not (tmp_path / "folder" / "metrics.json").exists()


def test_help_names_the_defaults(command, capsys):
    with pytest.raises(SystemExit, match="0"):
        command("--help")
    shown = " ".join(capsys.readouterr().out.split())
    assert "weights/drive_rsan.weights.h5" in shown and "results/<set>/<name of the weights>" in shown


@pytest.mark.parametrize("threshold", [0.3, 0.7])
def test_maps_are_scored_at_the_threshold_asked_for(threshold):
    examples = [example("one", 1), example("two", 2)]
    probabilities = maps(examples)
    result = evaluate(examples, probabilities, threshold)
    labels, found, fovs = (np.stack(arrays) for arrays in (
        [one.label for one in examples], probabilities, [one.fov for one in examples]))
    assert result["inside_fov"]["f1"] == pytest.approx(sk.f1_score(labels[fovs], found[fovs] >= threshold), abs=1e-6)
    observers = np.stack([one.second for one in examples])
    wanted = sk.f1_score(labels[fovs], observers[fovs])
    assert result["second_observer"]["inside_fov"]["f1"] == pytest.approx(wanted, abs=1e-6)


def test_the_best_threshold_does_not_depend_on_pixels_outside_the_field_of_view():
    one = example("one", 1)
    (probability,) = maps([one])
    best = best_threshold([one], [probability])
    vessels_outside = dataclasses.replace(one, label=one.label | ~one.fov)
    assert best_threshold([vessels_outside], [np.where(one.fov, probability, 0.1)]) == best > 0.1


def test_the_best_threshold_is_where_the_mean_f1_of_the_images_is_highest():
    def of(values, label, fov):
        fields = np.array([label]), np.array([fov])
        return Example("one", None, *(field.astype(bool) for field in fields)), np.array([values])

    pairs = [of([0.1, 0.62, 0.72, 0.9, 0.99], [0, 0, 1, 1, 0], [1, 1, 1, 1, 0]),
             of([0.2, 0.66] * 50, [0, 1] * 50, [1, 1] * 50)]
    assert best_threshold(*zip(*pairs, strict=True)) == 0.65
    assert best_threshold(*zip(*pairs[:1], strict=True)) == 0.65
