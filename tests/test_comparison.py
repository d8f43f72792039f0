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


def cells(table):
    """The cells of a Markdown table, a list for each row."""
    return [line[2:-2].split(" | ") for line in table.splitlines()[2:]]


def test_published_rows_stand_below_ours_scored_alike(results):
    metrics = measured()
    found = cells(comparison.methods(results))
    assert [row[2] for row in found] == ["rsan", "RSAN (paper), 2020", "SA-UNet, 2020", "rsan", "SA-UNetv2, 2025",
                                         "rsan", "IterNet, 2020", "rsan", "SA-UNetv2, 2025"]
    assert [row[8][0] for row in found] == list("pppmmppmm")  # pooled, mean over images
    assert [found[i][7] for i in (0, 3)] == [f"{one['whole_image']['f1']:.4f}" for one in (metrics, metrics["mean"])]


def test_tables_of_the_networks(results):
    write(results, "rsan_seed1", measured(seed=1))
    write(results, "any_rsan", measured(dataset="les_av", trained_on="DRIVE+CHASEDB1", name="general"))
    whole, inside = ["DRIVE", "whole image"], ["DRIVE", "inside the field of view"]
    assert [row[:3] for row in cells(comparison.short_table(results))] == [
        [*whole, "rsan"], [*whole, "RSAN (paper)"], [*inside, "rsan"], [*inside, "second observer"]]
    assert [row[1:3] for row in cells(comparison.reproduction(results))] == [
        ["rsan", "2"], ["backbone", "1"], ["RSAN (paper)", ""], ["second observer", ""]]
    assert [row[:4] for row in cells(comparison.general(results))] == [["LES-AV", "general", "1", "2"]]


def test_hrfs_eyes_are_grouped_by_their_names(results):
    metrics = measured(dataset="HRF", name="general")
    for image, name, f1 in zip(metrics["per_image"], ("06_h", "06_dr"), (0.9, 0.7), strict=True):
        image["image"], image["inside_fov"]["f1"] = name, f1
    write(results, "any_rsan", metrics)
    assert [row[2:4] for row in cells(comparison.groups(results))][-2:] == [
        ["healthy eyes: 1, mean", "0.9000"], ["diabetic retinopathy: 1, mean", "0.7000"]]


@pytest.mark.parametrize("make", [comparison.reproduction, comparison.cameras, comparison.methods,
                                  comparison.groups, comparison.short_table])
def test_tables_are_short_and_empty_without_results(make, tmp_path):
    assert make(tmp_path) == "" and 0 < len(make(ROOT / "results").splitlines()) - 2 <= 14
