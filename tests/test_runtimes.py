"""ONNX Runtime instead of Keras: the same maps, only from files that belong to their record."""

import csv
import json
import shutil
import sys

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from vessels import UserError
from vessels.data.images import EXAMPLE, read_photograph
from vessels.prediction import command, load_onnx, runtimes, segment

from pretrained import WeightsError
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
    np.testing.assert_allclose(segment(onnx, photograph), segment(keras, photograph, mixed_precision=False), atol=1e-4)


def test_a_file_that_does_not_belong_to_its_record_is_refused(copy):
    path = copy.with_suffix(".json")
    path.write_text(path.read_text(encoding="utf-8").replace("onnx_sha256", "old"), encoding="utf-8")
    with pytest.raises(WeightsError, match=r"not the file that any_rsan\.json .* export it again with `predict"):
        load_onnx(copy)


def test_a_broken_file_is_an_error_of_one_line(copy):
    copy.write_bytes(copy.read_bytes()[:10_000])
    with pytest.raises(UserError, match=r"^[^\n]*cannot be opened[^\n]*; export it again$"):
        runtimes.OnnxNetwork(copy, {})


def test_without_onnx_runtime_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"pip install -r requirements-predict\.txt"):
        load_onnx(ONNX)


@pytest.mark.parametrize(("installed", "words", "said"), [
    (True, [], "[1/1]"),
    (True, ["--weights", ONNX], "ONNX Runtime runs any_rsan.onnx\n"),
    (False, [], "ONNX Runtime runs any_rsan.onnx, as Keras is not installed\n"),
])
def test_predict_py_changes_the_runtime_and_nothing_else(installed, words, said, tmp_path, capsys, monkeypatch):
    photograph = tmp_path / "eye.png"
    Image.fromarray(read_photograph(EXAMPLE)[::4, ::4]).save(photograph)
    monkeypatch.setattr(runtimes, "only_onnx", lambda: not installed)
    assert command.main("", "rsan_model", [photograph, "-o", tmp_path, *words]) == 0
    assert capsys.readouterr().err.startswith(said)
    row = next(csv.DictReader((tmp_path / "vessels.csv").open(encoding="utf-8")))
    assert row["settings"].startswith("keras" if said == "[1/1]" else "onnx")
    record = json.loads(ONNX.with_suffix(".json").read_text(encoding="utf-8"))
    assert row["weights"] == f"any_rsan {record['sha256'][:12]}" and row["threshold"] == f"{record['threshold']:g}"
    assert float(row["density"]) == pytest.approx(0.145, abs=0.03)


@pytest.mark.parametrize(("installed", "backend", "only"), [
    ([], None, True), (["keras"], None, False), (["tensorflow"], None, False), ([], "jax", False)])
def test_onnx_runtime_is_chosen_only_where_keras_cannot_be_meant(installed, backend, only, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name in installed or None)
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    if backend:
        monkeypatch.setenv("KERAS_BACKEND", backend)
    assert runtimes.only_onnx() is only
