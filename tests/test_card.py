"""The model card: model hubs can read its front matter, and its scores are those in results/."""

import json

import yaml
from conftest import ROOT
from test_report import measured

from vessels.report import card

TEXT = (ROOT / "weights" / "README.md").read_text(encoding="utf-8")


def write(root, folder, **changes):
    path = root / "results" / changes["dataset"] / folder / "metrics.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(metrics := measured(**changes)), encoding="utf-8")
    return metrics


def test_front_matter_says_what_the_hubs_ask_for():
    _, front, body = TEXT.split("---\n", 2)
    read = yaml.safe_load(front)
    assert read["license"] == "mit" and read["library_name"] == "keras" and read["datasets"] and read["tags"]
    names = {name for one in read["model-index"] for name in [one["name"]]}
    assert {"drive_rsan", "chase_rsan"} <= names
    assert all((ROOT / "weights" / f"{name}.weights.h5").exists() for name in names)
    for model in read["model-index"]:
        for result in model["results"]:
            assert set(read["metrics"]) == {metric["type"] for metric in result["metrics"]}
    assert names <= {row.strip("| ").split(" | ")[0].split(",")[0] for row in body.splitlines()}


def test_scores_of_rsan_are_those_of_the_results(tmp_path):
    file = {"file": "drive_rsan.weights.h5", "recipe": {"seed": 0}}
    own = write(tmp_path, "rsan", dataset="DRIVE", weights=file)
    other = write(tmp_path, "rsan_of_DRIVE", dataset="CHASEDB1", trained_on="DRIVE", weights=file)
    write(tmp_path, "backbone", dataset="DRIVE", variant="backbone", weights=file)
    write(tmp_path, "rsan", dataset="mine")
    write(tmp_path, "maps", dataset="DRIVE", maps="theirs", weights={"file": None, "recipe": {"seed": 0}})
    index = yaml.safe_load(card.model_index(tmp_path / "results"))["model-index"]
    assert [one["name"] for one in index] == ["drive_rsan"]
    for result, metrics in zip(index[0]["results"], (other, own), strict=True):
        found = {metric["type"]: metric["value"] for metric in result["metrics"]}
        assert found == {kind: round(metrics["inside_fov"][key], 4) for key, kind in card.METRICS.items()}


def test_without_results_the_card_is_still_yaml(tmp_path):
    assert yaml.safe_load(card.model_index(tmp_path)) == {"model-index": []}


def test_training_hours_are_those_of_the_records(tmp_path):
    (tmp_path / "weights").mkdir()
    record = {"dataset": "DRIVE", "history": [{}] * 60, "wall_time_s": 5400, "environment": {"device": "two cores"}}
    (tmp_path / "weights" / "drive_rsan.json").write_text(json.dumps(record), encoding="utf-8")
    assert card.training(tmp_path / "results").splitlines()[2:] == ["| drive_rsan | DRIVE | 60 | 1.5 | two cores |"]
