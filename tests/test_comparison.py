"""Comparison with published scores: how they were scored, and ours beside them."""

import json
import os
from pathlib import Path

import pytest
from conftest import ROOT
from test_report import measured, write

from vessels.data import published
from vessels.report import comparison


@pytest.fixture
def results(tmp_path):
    """RSAN and its backbone on DRIVE."""
    for variant in ("rsan", "backbone"):
        write(tmp_path, variant, measured(variant))
    return tmp_path


def test_every_published_row_says_how_it_was_scored():
    for row in (row for dataset in published.DATASETS for row in comparison.published_scores(dataset.name)):
        assert {"threshold", "test_time", "split", "scored_by"} <= set(row), row["method"]
        assert row["pooling"] in ("pooled", "mean over images", "not stated") and isinstance(row["comparable"], bool)
        assert row["caveat"] or row["comparable"]


def test_quoted_figures_are_the_references():
    path = Path(os.environ.get("RSAN_REFERENCE", "")) / "published.json"
    if not path.is_file():
        pytest.skip("needs published.json in $RSAN_REFERENCE")
    quoted = json.loads(path.read_text(encoding="utf-8"))
    for dataset in published.DATASETS:
        ours = comparison.published_scores(dataset.name)
        assert [{**row, **reference}
                for row, reference in zip(ours, quoted.get(dataset.name, []), strict=True)] == ours


def test_published_rows_stand_below_ours_scored_alike(results):
    metrics = measured()
    found = [line.strip("| ").split(" | ") for line in comparison.methods(results).splitlines()[2:]]
    assert [(row[1], row[2], row[8]) for row in found] == [
        ("whole image", "rsan", "pooled"), ("whole image", "RSAN (paper), 2020", "pooled"),
        ("whole image", "SA-UNet, 2020", "pooled"), ("whole image", "rsan", "mean over images"),
        ("whole image", "SA-UNetv2, 2025", "mean over images"), ("inside the field of view", "rsan", "pooled"),
        ("inside the field of view", "IterNet, 2020", "pooled"),
        ("inside the field of view", "rsan", "mean over images"),
        ("inside the field of view", "SA-UNetv2, 2025", "mean over images")]
    ours = [f"{scores['whole_image']['f1']:.4f}" for scores in (metrics, metrics["mean"])]
    assert [found[0][7], found[3][7]] == ours


def test_short_table_has_four_rows_a_set(results):
    lines = comparison.short_table(results).splitlines()
    names = [tuple(cell.strip() for cell in line.split("|")[1:4]) for line in lines[2:]]
    assert names == [("DRIVE", "whole image", "rsan"), ("DRIVE", "whole image", "RSAN (paper)"),
                     ("DRIVE", "inside the field of view", "rsan"),
                     ("DRIVE", "inside the field of view", "second observer")]


def test_reproduction_and_cameras_give_means_over_trainings(results):
    write(results, "rsan_seed1", measured(seed=1))
    write(results, "any_rsan", measured(dataset="les_av", trained_on="DRIVE+CHASEDB1", name="general"))
    names = [line.split(" | ")[1:3] for line in comparison.reproduction(results).splitlines()[2:]]
    assert names == [["rsan", "2"], ["backbone", "1"], ["RSAN (paper)", ""], ["second observer", ""]]
    (row,) = comparison.general(results).splitlines()[2:]
    assert row.startswith("| LES-AV | general | 1 | 2 | ")


def test_hrfs_eyes_are_grouped_by_their_names(results):
    metrics = measured(dataset="HRF", name="general")
    for image, name, f1 in zip(metrics["per_image"], ("06_h", "06_dr"), (0.9, 0.7), strict=True):
        image["image"], image["inside_fov"]["f1"] = name, f1
    write(results, "any_rsan", metrics)
    rows = [line.split(" | ")[2:4] for line in comparison.groups(results).splitlines() if "| HRF | general" in line]
    assert rows[1:] == [["healthy eyes: 1, mean", "0.9000"], ["diabetic retinopathy: 1, mean", "0.7000"]]


@pytest.mark.parametrize("make", [comparison.reproduction, comparison.cameras, comparison.methods,
                                  comparison.groups, comparison.short_table])
def test_tables_are_short_and_empty_without_results(make, tmp_path):
    assert make(tmp_path) == "" and 0 < len(make(ROOT / "results").splitlines()) - 2 <= 14


def test_training_hours_are_those_of_the_records(tmp_path):
    (tmp_path / "weights").mkdir()
    record = {"dataset": "DRIVE", "history": [{}] * 60, "wall_time_s": 5400, "environment": {"device": "two cores"}}
    (tmp_path / "weights" / "drive_rsan.json").write_text(json.dumps(record), encoding="utf-8")
    row = comparison.training(tmp_path / "results").splitlines()[2]
    assert row == "| drive_rsan | DRIVE | 60 | 1.5 | two cores |"
