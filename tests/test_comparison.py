"""Comparison with published scores: how they were scored, and ours beside them."""

import json
import os
from pathlib import Path

import pytest
from test_report import measured

from vessels.data import published
from vessels.report import comparison


@pytest.fixture
def results(tmp_path):
    """RSAN and its backbone on DRIVE."""
    for variant in ("rsan", "backbone"):
        folder = tmp_path / "DRIVE" / variant
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text(json.dumps(measured(variant)))
    return tmp_path


def published_rows(found):
    return [(dataset.name, row) for dataset in published.DATASETS for row in found[dataset.name]]


def test_every_published_row_says_how_it_was_scored():
    for _, row in published_rows(comparison.published_figures()):
        assert {*comparison.HOW, "scored_by"} <= set(row), row["method"]
        assert row["pooling"] in comparison.POOLINGS and isinstance(row["comparable"], bool)
        assert row["caveat"] or row["comparable"]


def test_quoted_figures_are_the_references():
    path = Path(os.environ.get("RSAN_REFERENCE", "")) / "published.json"
    if not path.is_file():
        pytest.skip("needs published.json in $RSAN_REFERENCE")
    quoted = published_rows(json.loads(path.read_text(encoding="utf-8")))
    ours = published_rows(comparison.published_figures())
    assert [(name, {**row, **reference}) for (name, row), (_, reference) in zip(ours, quoted, strict=True)] == ours


def test_published_rows_stand_below_ours_scored_alike(results):
    metrics = measured()
    for scored, found in comparison.blocks(published.DRIVE, results).items():
        rows = [dict(zip(comparison.HEAD, cells, strict=True)) for _, cells in found]
        own = [row for row in rows if row["comparable"] == "ours"]
        assert [(row["pooling"], row["F1"]) for row in own] == [
            ("pooled", f"{metrics[scored]['f1']:.4f}"), ("mean over images", f"{metrics['mean'][scored]['f1']:.4f}")]
        above = None
        for row in rows:
            above = row if row["comparable"] == "ours" else above
            assert row["comparable"] != "yes" or row["pooling"] == above["pooling"], row["network"]
        assert len(rows) > 4


def test_what_is_not_comparable_is_marked(results):
    found = comparison.blocks(published.DRIVE, results)["whole_image"]
    kind, cells = next(row for row in found if row[1][0].startswith("FR-UNet"))
    assert kind == "no" and "no" in cells and "0.8316" in cells and "double threshold" in cells[-1]


def test_training_on_validation_images_and_flips_are_said(results):
    metrics = measured(tta=True)
    metrics["weights"]["recipe"]["train_on"] = "train+validation"
    (results / "DRIVE" / "rsan" / "metrics.json").write_text(json.dumps(metrics))
    kind, cells = comparison.blocks(published.DRIVE, results)["whole_image"][0]
    assert kind == "ours" and "averaging flips; images 20 training, 0 validation, 20 test" in cells[-2]


def test_markdown_has_a_table_for_each_set_with_results(results):
    text = comparison.markdown(results)
    assert "### DRIVE, whole image" in text and "### CHASE DB1" not in text and "arXiv:2111.03853" in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in tables}) == 1
    assert comparison.markdown(results / "none") == comparison.short_table(results / "none") == ""


def test_short_table_has_four_rows_a_set(results):
    lines = comparison.short_table(results).splitlines()
    names = [tuple(cell.strip() for cell in line.split("|")[1:4]) for line in lines[2:]]
    assert names == [("DRIVE", "whole image", "rsan (here)"), ("DRIVE", "whole image", "RSAN (paper)"),
                     ("DRIVE", "inside the field of view", "rsan (here)"),
                     ("DRIVE", "inside the field of view", "second observer")]
