"""The network in other formats, run by the programs for these formats."""

from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import ROOT

from vessels import UserError
from vessels.data.images import EXAMPLE, read_photograph
from vessels.prediction import export
from vessels.prediction.maps import predict_tiled

from rsan_model import build_rsan, load_weights

pytestmark = pytest.mark.slow
NAMES = {"onnx": "rsan.onnx", "litert": "rsan.tflite", "saved_model": "rsan"}


@pytest.fixture(scope="module")
def model():
    model = build_rsan()
    load_weights(model, ROOT / "weights" / "drive_rsan.weights.h5")
    return model


@pytest.mark.parametrize("kind", NAMES)
def test_exported_networks_say_what_keras_says_at_any_size(kind, model, tmp_path):
    if kind == "onnx":
        pytest.importorskip("onnxruntime", reason="needs ONNX: pip install onnxruntime tf2onnx")
        pytest.importorskip("tf2onnx", reason="needs ONNX: pip install onnxruntime tf2onnx")
    assert export.export(model, kind, tmp_path / NAMES[kind]) <= 1e-4
    assert [path.name for path in tmp_path.iterdir()] == [NAMES[kind]]
    photograph = read_photograph(EXAMPLE)
    run = export.RUNNERS[kind](tmp_path / NAMES[kind])
    for batch, height, width in ((1, 72, 120), (2, 128, 64), (1, 584, 565), (1, 61, 75)):
        part = photograph[300 : 300 + height, 400 : 400 + width]
        found = run(np.stack([part] * batch).astype("float32") / 255)
        np.testing.assert_allclose(found[..., 0], [predict_tiled(model, part)] * batch, atol=1e-4)


@pytest.mark.parametrize(("error", "said"), [(0.001, r"1\.0e-03"), (np.nan, "nan")])
def test_a_network_that_differs_is_not_written(error, said, model, tmp_path, monkeypatch):
    monkeypatch.setattr(keras.Model, "export", lambda self, path, **_: Path(path).write_text("", encoding="utf-8"))
    monkeypatch.setitem(export.RUNNERS, "litert", lambda path: lambda x: export.AnySize(model)(x).numpy() + error)
    with pytest.raises(UserError, match=f"not written.* by {said}"):
        export.export(model, "litert", tmp_path / "rsan.tflite")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("kind", "name", "message"), [
    ("onnx", "rsan.tflite", "must end in .onnx"),
    ("onnx", "taken.onnx", "exists"),
    ("saved_model", "taken", "exists"),
    ("onnx", "file/rsan.onnx", "cannot be written"),
])
def test_impossible_places_are_refused(kind, name, message, model, tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken.onnx").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=message):
        export.export(model, kind, tmp_path / name)
