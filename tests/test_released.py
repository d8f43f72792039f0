"""The weights in weights/: they give the figures that stand in results/."""

import json

import pytest
from conftest import ROOT

from vessels.data import datasets
from vessels.files import sha256
from vessels.metrics import PROTOCOLS, score
from vessels.prediction.maps import predict_image
from vessels.record import record_path

import rsan_model

WEIGHTS = sorted((ROOT / "weights").glob("*.weights.h5"))


@pytest.mark.parametrize("path", WEIGHTS, ids=lambda path: path.name.removesuffix(".weights.h5"))
def test_two_images_score_as_recorded(path, data_root):
    record = json.loads(record_path(path).read_text())
    dataset = next(one for one in datasets.DATASETS if one.name == record["dataset"])
    folder = path.name.removesuffix(".weights.h5").removeprefix(f"{dataset.key}_")
    metrics = json.loads((ROOT / "results" / dataset.name / folder / "metrics.json").read_text())
    assert metrics["weights"]["sha256"] == record["sha256"] == sha256(path)
    assert record["test"]["inside_fov"] == metrics["inside_fov"]
    model = rsan_model.build_rsan(**record["model"])
    rsan_model.load_weights(model, path)
    recorded = {one["image"]: one for one in metrics["per_image"]}
    for example in datasets.load(dataset, "test", data_root / dataset.name)[:2]:
        probability = predict_image(model, example.image, dataset.padded)
        for protocol, where in zip(PROTOCOLS, (None, example.fov), strict=True):
            for key, value in score(probability, example.label, where).items():
                assert value == pytest.approx(recorded[example.name][protocol][key], abs=1e-4), (protocol, key)
