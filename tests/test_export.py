"""The network in an ONNX file, run by ONNX Runtime."""

import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import ROOT

from vessels import UserError
from vessels.data.images import EXAMPLE, read_photograph
from vessels.prediction import export, load_onnx
from vessels.prediction.maps import predict_image

from rsan_model import build_rsan

pytestmark = pytest.mark.slow
pytest.importorskip("onnxruntime", reason="needs ONNX: pip install onnxruntime tf2onnx")
pytest.importorskip("tf2onnx", reason="needs ONNX: pip install onnxruntime tf2onnx")


@pytest.fixture(scope="module")
def model():
    return build_rsan(weights="drive")


def test_the_exported_network_says_what_keras_says_at_any_size(model, tmp_path):
    weights = Path(shutil.copy(ROOT / "weights/drive_rsan.weights.h5", tmp_path))
    shutil.copy(ROOT / "weights/drive_rsan.json", tmp_path)
    export.main(model, weights)
    exported, photograph = load_onnx(tmp_path / "drive_rsan.onnx"), read_photograph(EXAMPLE)
    for height, width in ((72, 120), (128, 64), (584, 565), (61, 75)):
        part = photograph[300 : 300 + height, 400 : 400 + width]
        np.testing.assert_allclose(predict_image(exported, part), predict_image(model, part), atol=1e-4)
    assert len(list(tmp_path.iterdir())) == 3
    export.main(model, weights)  # again, after another training
    record = tmp_path / "other.json"
    record.write_text(json.dumps({}))
    for path, message in ((weights.with_name("drive_rsan.onnx"), "exists"), (record.with_suffix(".onnx"), "exists"),
                          (tmp_path / "rsan.tflite", "must end in .onnx"), (record / "rsan.onnx", "cannot be written")):
        with pytest.raises(UserError, match=message):
            export.main(model, weights, path)


@pytest.mark.parametrize(("error", "said"), [(0.001, r"1\.0e-03"), (np.nan, "nan")])
def test_a_network_that_differs_is_not_written(error, said, model, tmp_path, monkeypatch):
    monkeypatch.setattr(keras.Model, "export", lambda self, path, **_: None)
    monkeypatch.setattr(export, "OnnxNetwork", lambda *_: None)
    monkeypatch.setattr(export, "predict_image", lambda network, image: image[..., 0] * 0.0 + (error if network else 0))
    with pytest.raises(UserError, match=f"not written.* by {said}"):
        export.export(model, tmp_path / "rsan.onnx")
    assert not list(tmp_path.iterdir())
