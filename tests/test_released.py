"""The weights in weights/ give the scores in results/."""

import json

import pytest
from conftest import ROOT

from vessels.data import published
from vessels.evaluation import widths_for
from vessels.jobs import results_folder
from vessels.metrics import PROTOCOLS, Reference, to_16_bit
from vessels.prediction.maps import predict_map

from rsan_model import build_rsan

WEIGHTS = sorted((ROOT / "weights").glob("*.weights.h5"))


def assert_scores_as_recorded(dataset, path, model, examples):
    """Returns what metrics.json holds."""
    record = model.record
    folder = results_folder(dataset, path, record)
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["weights"]["sha256"] == record["sha256"]
    recorded = {one["image"]: one for one in metrics["per_image"]}
    widths = widths_for(dataset, record)
    for example in examples:
        values = to_16_bit(predict_map(model, widths, dataset.padded, example.image, example.fov))
        counts = Reference(example.label, example.fov, example.diameter).counts(values, metrics["threshold"])
        scores = counts.scores(metrics["threshold"])
        for protocol in PROTOCOLS:
            wanted, found = recorded[example.name][protocol], scores[protocol]
            assert {"auc", "f1"} <= found.keys() & wanted.keys()  # older results lack newer metrics
            for key in found.keys() & wanted.keys():
                # Records from before maps were scored in 16 bits hold the precision of maps in 32 bits.
                tolerance = 1e-3 if key == "average_precision" else 1e-4
                assert found[key] == pytest.approx(wanted[key], abs=tolerance), (protocol, key)
    return metrics


@pytest.mark.parametrize("path", [
    pytest.param(path, id=path.name.removesuffix(".weights.h5"),
                 marks=[] if path.name == "drive_rsan.weights.h5" else pytest.mark.slow) for path in WEIGHTS])
def test_an_image_scores_as_recorded(path, data_root):
    model = build_rsan(weights=path)
    record = model.record
    sets = [one for one in published.DATASETS if one.name in record["dataset"].split("+")]
    for dataset in sets:
        examples = dataset.at(data_root / dataset.name).load("test")[:1]
        metrics = assert_scores_as_recorded(dataset, path, model, examples)
        test = record["test"] if len(sets) == 1 else record["test"][dataset.name]
        for key, value in test["inside_fov"].items():  # some records hold the precision of maps in 32 bits
            assert metrics["inside_fov"][key] == pytest.approx(value, abs=2e-3 if key == "average_precision" else 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "dataset"), [("drive_rsan", published.CHASEDB1), ("chase_rsan", published.DRIVE)])
def test_an_image_of_the_other_set_scores_as_recorded(name, dataset, data_root):
    path = ROOT / "weights" / f"{name}.weights.h5"
    examples = dataset.at(data_root / dataset.name).load("test")[:1]
    metrics = assert_scores_as_recorded(dataset, path, build_rsan(weights=path), examples)
    assert metrics["trained_on"] != metrics["dataset"] == dataset.name
