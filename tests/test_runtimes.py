"""ONNX Runtime instead of Keras: the same maps, only from files that belong to their record."""

import json
import shutil

import numpy as np
import pytest
from conftest import ROOT

from vessels import UserError
from vessels.data.images import EXAMPLE, read_photograph
from vessels.prediction import load_onnx, segment

from rsan_model import build_rsan

ONNX = ROOT / "weights" / "any_rsan.onnx"


@pytest.fixture
def copy(tmp_path):
    """A copy of the released ONNX file and its record."""
    shutil.copy(ONNX.with_suffix(".json"), tmp_path)
    return shutil.copy(ONNX, tmp_path / "any_rsan.onnx")


def test_the_released_onnx_file_says_what_the_released_weights_say():
    photograph, keras, onnx = read_photograph(EXAMPLE)[::3, ::3], build_rsan(weights="any"), load_onnx(ONNX)
    assert (onnx.record["diameters"], onnx.threshold) == (keras.record["diameters"], keras.threshold)
    np.testing.assert_allclose(segment(onnx, photograph), segment(keras, photograph), atol=1e-4)


def test_a_file_that_its_record_does_not_name_is_refused(copy):
    copy.write_bytes(copy.read_bytes() + b"x")
    with pytest.raises(UserError, match=r"not exported from the weights that any_rsan\.json describes"):
        load_onnx(copy)


def test_a_record_of_weights_released_since_is_refused(copy):
    path = copy.with_suffix(".json")
    record = json.loads(path.read_text(encoding="utf-8"))
    del record["onnx_sha256"]
    path.write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(UserError, match=r"export them again with `python predict\.py --export onnx`"):
        load_onnx(copy)


def test_a_broken_file_is_an_error_of_one_line(copy):
    from vessels.prediction.runtimes import OnnxNetwork

    copy.write_bytes(copy.read_bytes()[:10_000])
    with pytest.raises(UserError, match=r"^[^\n]*cannot be opened[^\n]*; export it again$"):
        OnnxNetwork(copy, {})


def test_without_onnx_runtime_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"pip install -r requirements-predict\.txt"):
        load_onnx(ONNX)
