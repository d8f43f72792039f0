import dataclasses
import inspect
import json
import shutil

import cv2
import h5py
import numpy as np
import pytest
from conftest import ROOT

import eval_chase
import eval_drive
from vessels import evaluation
from vessels.data import published, synthetic
from vessels.data.fov import Widths
from vessels.metrics import PROTOCOLS
from vessels.prediction import segment
from vessels.prediction.maps import predict_photograph

from pretrained import names, released
from rsan_model import build_rsan, load_weights

DIAMETERS = {dataset.name: dataset.widths.diameters for dataset in published.DATASETS}


@pytest.mark.parametrize("name", names())
def test_all_released_weights_have_a_name_and_a_diameter(name):
    path, record = released(name)
    assert path.parent == ROOT / "weights" and record["parameters"] > 1e6
    assert record["diameters"] == list(DIAMETERS.get(record["dataset"], record["diameters"])) > [0]


@pytest.mark.parametrize("name", ["drive", "drive_rsan", ROOT / "weights" / "drive_rsan.weights.h5"], ids=str)
def test_weights_by_one_call_are_those_loaded_by_hand(name):
    model = build_rsan(weights=name)
    by_hand = build_rsan()
    load_weights(by_hand, ROOT / "weights" / "drive_rsan.weights.h5")
    for one, other in zip(model.weights, by_hand.weights, strict=True):
        np.testing.assert_array_equal(one, other)
    assert Widths.of_record(model.record) == Widths((537,))
    assert model.threshold == 0.5 and model.input_shape == (None, None, None, 3)


def test_the_network_is_the_one_that_was_trained():
    model = build_rsan((64, 64, 3), weights="drive_backbone")
    assert model.name == "backbone" and model.input_shape == (None, 64, 64, 3)


@pytest.mark.parametrize("asked", [{"keep_prob": 0.5}, {"filters": 4}, {"block_size": 3}, {"variant": "backbone"}])
def test_what_contradicts_the_record_is_refused(asked):
    with pytest.raises(ValueError, match=f"have {next(iter(asked))}="):
        build_rsan(weights="drive", **asked)


def test_an_explicit_default_may_contradict_the_record_too():
    with pytest.raises(ValueError, match="'drive_backbone' have variant='backbone', not 'rsan'"):
        build_rsan(variant="rsan", weights="drive_backbone")


@pytest.mark.parametrize("name", ["imagenet", "drive.json", "", "../weights/drive"])
def test_an_unknown_name_lists_what_there_is(name):
    with pytest.raises(ValueError, match=r"chase, .*drive_backbone"):
        build_rsan(weights=name)


def test_another_file_than_the_record_describes_is_refused(tmp_path):
    path = tmp_path / "mine.weights.h5"
    shutil.copy(ROOT / "weights" / "drive_rsan.weights.h5", path)
    shutil.copy(ROOT / "weights" / "drive_rsan.json", tmp_path / "mine.json")
    assert released(path)[1] == json.loads((tmp_path / "mine.json").read_text(encoding="utf-8"))
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(ValueError, match=r"mine.weights.h5 is not the file"):
        build_rsan(weights=str(path))
    (tmp_path / "mine.json").write_text('{"sha256": ""}', encoding="utf-8")
    with pytest.raises(ValueError, match=r"mine.json lacks diameters, model"):
        build_rsan(weights=path)


def test_the_signature_is_that_of_the_network_and_weights():
    assert str(inspect.signature(build_rsan)) == (
        "(input_shape=(None, None, 3), filters=16, keep_prob=0.85, block_size=7, variant='rsan', *, weights=None)")


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


@pytest.mark.parametrize(("script", "dataset"), [
    (eval_drive, published.DRIVE), pytest.param(eval_chase, published.CHASEDB1, marks=pytest.mark.slow)])
def test_weights_of_the_authors_form_score_without_a_record_and_ours_under_any_name(script, dataset, tmp_path,
                                                                                    stand_in, capsys):
    tiny = dataclasses.replace(dataset, size=(60, 70), padded=72)
    stand_in(synthetic.make(tiny, "test"))
    ours, record = released(f"{dataset.key}_rsan")
    shutil.copy(ours, tmp_path / "ours.h5")
    assert evaluation.main(tiny, "rsan_model", "", [str(tmp_path / "ours.h5")]) == 2
    assert "ours.json: missing; it says which network ours.h5 belongs to; put it there" in capsys.readouterr().err
    (tmp_path / "ours.json").write_text(json.dumps({**record, "data_sha256": {}}), encoding="utf-8")
    build_rsan(weights=ours).save(tmp_path / "whole.h5")
    with h5py.File(tmp_path / "whole.h5") as whole, h5py.File(tmp_path / "authors.h5", "w") as authors:
        for layer in whole["model_weights"]:
            whole.copy(f"model_weights/{layer}", authors)
        authors.attrs.update(whole["model_weights"].attrs)
    found = {}
    for name in ("ours", "authors"):
        folder = tmp_path / name
        assert evaluation.main(tiny, "rsan_model", "", [f"{folder}.h5", "--output-dir", str(folder)]) == 0
        found[name] = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        assert found[name]["trained_on"] == dataset.name
    assert found["authors"]["weights"]["recipe"]["recipe"] == "authors"
    assert [found["authors"][key] for key in PROTOCOLS] == [found["ours"][key] for key in PROTOCOLS]
    assert found["ours"]["inside_fov"]["auc"] > 0.55
