import json
import shutil

import cv2
import keras
import numpy as np
import pytest
import tensorflow
from conftest import ROOT, TINY
from PIL import Image

from vessels import UserError, evaluation
from vessels.data import published, synthetic
from vessels.data.fov import Widths
from vessels.prediction import command, precision, segment
from vessels.prediction.maps import predict_photograph
from vessels.prediction.precision import with_precision

from pretrained import files_in, read_record, record_path, released, weights_file
from rsan_model import build_rsan, load_weights

DIAMETERS = {dataset.name: dataset.widths.diameters for dataset in published.DATASETS}


@pytest.mark.parametrize("name", released())
def test_all_released_weights_have_a_name_and_a_diameter(name):
    path = weights_file(name)
    record = json.loads(record_path(path).read_text(encoding="utf-8"))
    assert path.parent == ROOT / "weights" and record["parameters"] > 1e6
    assert record["diameters"] == list(DIAMETERS.get(record["dataset"], record["diameters"])) > [0]
    assert set(record["model"]) == {"filters", "keep_prob", "block_size", "variant"} and record["name"]
    assert read_record(path) == record  # in today's form


@pytest.mark.parametrize("name", ["drive", "drive_rsan", ROOT / "weights" / "drive_rsan.weights.h5"], ids=str)
def test_weights_by_one_call_are_those_loaded_by_hand(name):
    model = build_rsan(weights=name)
    by_hand = build_rsan()
    load_weights(by_hand, ROOT / "weights" / "drive_rsan.weights.h5")
    for one, other in zip(model.weights, by_hand.weights, strict=True):
        np.testing.assert_array_equal(one, other)
    assert Widths.of_record(model.record) == Widths((537,))
    assert model.threshold == 0.5 and model.input_shape == (None, None, None, 3)


def test_weights_predict_the_same_after_a_default_has_changed(monkeypatch):
    x = np.random.default_rng(0).random((1, 64, 64, 3), "float32")
    before = build_rsan(weights="drive").predict_on_batch(x)
    monkeypatch.setattr(build_rsan, "__defaults__", ((64, 64, 3), 8, 0.5, 3, "backbone", None))
    changed = build_rsan(weights="drive")
    np.testing.assert_array_equal(changed.predict_on_batch(x), before)
    assert {layer.block_size for layer in changed.layers if hasattr(layer, "block_size")} == {7}


def test_a_network_of_weights_is_the_one_that_predict_py_uses(monkeypatch, tmp_path):
    """Both compute in full float32; neither changes the precision of a training of the user's own."""
    seen, rounds = [], tensorflow.config.experimental.tensor_float_32_execution_enabled

    def predict_on_batch(model, x):
        seen.append((rounds(), model.jit_compile, [weight.numpy() for weight in model.weights]))
        return x[..., :1]

    monkeypatch.setattr(keras.Model, "predict_on_batch", predict_on_batch)
    image = np.tile(np.arange(60, 124, dtype="uint8")[:, None], (64, 1, 3))
    Image.fromarray(image).save(tmp_path / "eye.png")
    segment(build_rsan(weights="drive"), image)
    flags = [str(tmp_path / "eye.png"), "--weights", "drive", "-o", str(tmp_path)]
    assert command.main("", "rsan_model", flags) == 0
    half = len(seen) // 2
    assert half and rounds()
    for (rounded, compiled, arrays), other in zip(seen[:half], seen[half:], strict=True):
        assert (rounded, compiled) == other[:2] == (False, False)
        for a, b in zip(arrays, other[2], strict=True):
            np.testing.assert_array_equal(a, b)


def test_the_network_is_the_one_that_was_trained():
    model = build_rsan((64, 64, 3), weights="drive_backbone")
    assert model.name == "backbone" and model.input_shape == (None, 64, 64, 3)


@pytest.mark.parametrize("asked", [{"keep_prob": 0.5}, {"filters": 4}, {"block_size": 3}, {"variant": "backbone"}])
def test_what_contradicts_the_record_is_refused(asked):
    with pytest.raises(ValueError, match=f"have {next(iter(asked))}="):
        build_rsan(weights="drive", **asked)


def test_another_file_than_the_record_describes_is_refused(tmp_path):
    path = tmp_path / "mine.weights.h5"
    shutil.copy(ROOT / "weights" / "drive_rsan.weights.h5", path)
    shutil.copy(ROOT / "weights" / "drive_rsan.json", tmp_path / "mine.json")
    (tmp_path / "._mine.weights.h5").write_bytes(b"of macOS")
    assert files_in(tmp_path) == [path] and read_record(path)["dataset"] == "DRIVE"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(ValueError, match=r"mine.weights.h5: not the file"):
        build_rsan(weights=str(path))
    (tmp_path / "mine.json").write_text('{"sha256": ""}', encoding="utf-8")
    with pytest.raises(ValueError, match=r"mine.json: lacks data_sha256, dataset, diameters, model"):
        build_rsan(weights=path)


class Darkness:
    """Replaces the network: dark pixels inside a bright eye are vessels."""

    def __init__(self):
        self.record = {"diameters": [537], "own_width": [1.1]}

    def predict_on_batch(self, x):
        return 1 - x[..., 1:2]


@pytest.mark.parametrize(("widths", "seen"), [
    (None, Widths((537,), (1.1,))), ((300, 500), Widths((300, 500))), (300, Widths((300,)))])
def test_a_photograph_of_any_size_is_segmented_by_one_call(widths, seen):
    eye = cv2.resize(synthetic.make(published.DRIVE, "validation")[0].image, None, fx=1.3, fy=1.3)
    probability = segment(Darkness(), eye, widths)
    assert probability.shape == eye.shape[:2] and probability.dtype == np.float32
    np.testing.assert_array_equal(probability, predict_photograph(Darkness(), eye, seen).probability)


@pytest.mark.parametrize("kind", [Image.fromarray, keras.ops.convert_to_tensor,
                                  lambda eye: Image.fromarray(eye).convert("RGBA")])
def test_images_of_other_libraries_are_segmented_too(kind):
    eye = synthetic.make(published.DRIVE, "validation")[0].image
    np.testing.assert_array_equal(segment(Darkness(), kind(eye)), segment(Darkness(), eye))


@pytest.mark.parametrize(("image", "diameters", "message"), [
    (Image.new("I;16", (99, 99)), None, "more than 8 bits: read it by vessels"),
    ("photo.jpg", None, "must be uint8"), (np.zeros((9, 9, 3)), None, "must be uint8"),
    (np.zeros((1, 99, 99, 3), "uint8"), None, "must be uint8"), (np.zeros((99, 99), "uint8"), -1, "give diameters")])
def test_what_cannot_be_segmented_is_one_sentence(image, diameters, message):
    with pytest.raises(ValueError, match=message):
        segment(Darkness(), image, diameters=diameters)


def test_a_copy_in_bfloat16_follows_the_weights_and_keeps_its_output_in_float32():
    model = build_rsan(filters=2)
    x = np.random.default_rng(0).random((1, 64, 64, 3), "float32")
    for _ in range(2):
        reduced, name = with_precision(model, True)
        assert name == "bfloat16" and {layer.compute_dtype for layer in reduced.layers[1:-1]} == {"bfloat16"}
        exact, found = (np.asarray(network.predict_on_batch(x)) for network in (model, reduced))
        assert found.dtype == np.float32 and 0 < np.abs(found - exact).max() < 0.02
        model.set_weights([1.05 * weight for weight in model.get_weights()])
    assert with_precision(model, False) == (model, "float32") and model.layers[3].compute_dtype == "float32"
    with pytest.raises(UserError, match="mixed precision needs a network of Keras"):
        with_precision(Darkness(), True)


@pytest.mark.parametrize("native", [True, False])
def test_bfloat16_is_the_default_where_the_processor_has_it(native, monkeypatch):
    monkeypatch.setattr(precision, "native_bfloat16", lambda keras: native)
    assert with_precision(build_rsan(filters=2))[1] == ("bfloat16" if native else "float32")


def test_weights_score_under_another_name_with_their_record_beside_them(tmp_path, stand_in, capsys):
    stand_in(synthetic.make(TINY, "test"))
    ours = weights_file("drive_rsan")
    shutil.copy(ours, tmp_path / "ours.weights.h5")
    assert evaluation.main(TINY, "rsan_model", "", [str(tmp_path / "ours.weights.h5")]) == 2
    assert "it says which network ours.weights.h5 belongs to; put it there" in capsys.readouterr().err
    record = {**read_record(ours), "data_sha256": {}, "pixels_sha256": {}}
    (tmp_path / "ours.json").write_text(json.dumps(record), encoding="utf-8")
    assert evaluation.main(TINY, "rsan_model", "", [str(tmp_path / "ours.weights.h5")]) == 0
    metrics = json.loads((tmp_path / "results" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["trained_on"] == "DRIVE" and metrics["inside_fov"]["auc"] > 0.55
