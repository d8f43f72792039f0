"""Measures of maps compared with those of labels, on values with known mean difference, limits and correlation."""

import json

import numpy as np
import pytest
from test_metrics import example
from test_report import measured, write

from vessels.metrics import to_16_bit
from vessels.prediction.measures import measure
from vessels.report import bland_altman

FIRST = np.array([3.0, 1.0, 4.0, 1.5, 5.0, 9.0])
SPREAD = np.array([-1.0, 1.0, 0.0, 0.0, 1.0, -1.0]) / 0.8**0.5  # of mean 0 and standard deviation 1


def metrics_of(**sides):
    """Content of `metrics.json` in which all measures of an image have the given value, for the map, the label, ..."""
    images = [dict(zip(sides, values, strict=True)) for values in zip(*sides.values(), strict=True)]
    return measured(per_image=[
        {"measures": {who: dict.fromkeys(bland_altman.SHOWN, value) for who, value in image.items()}}
        for image in images])


def test_table_holds_known_values_of_all_that_are_compared(tmp_path):
    write(tmp_path, "any_rsan", metrics_of(map=FIRST + 2 + 0.5 * SPREAD, label=FIRST, second_observer=3 * FIRST))
    head, _, *rows = (line[2:-2].split(" | ") for line in bland_altman.markdown(tmp_path).splitlines()[:10])
    assert head == ["measure", "DRIVE: first observer", "DRIVE: rsan", "DRIVE: second observer"]
    assert [row[0] for row in rows] == [title for title, _ in bland_altman.SHOWN.values()]
    row = dict(zip(bland_altman.SHOWN, rows, strict=True))["width_px"]
    reach = 1.96 * (2 * FIRST).std(ddof=1)
    assert row[1] == f"{FIRST.mean():.2f}" and row[2].startswith("+2.00 [+1.02, +2.98], r 0.9")
    mean = 2 * FIRST.mean()
    assert row[3] == f"{mean:+.2f} [{mean - reach:+.2f}, {mean + reach:+.2f}], r 1.00"


def test_without_a_second_observer_there_is_no_table(tmp_path):
    write(tmp_path, "any_rsan", metrics_of(map=FIRST, label=FIRST) | {"second_observer": None})
    assert bland_altman.markdown(tmp_path) == ""


@pytest.mark.parametrize("second", [False, True])
def test_measures_of_an_image(second):
    one = example("01_test", 1, second=second)
    found = bland_altman.measures(one, to_16_bit(one.label * np.float32(0.6)), 0.55)
    assert list(found) == ["map", "label", *["second_observer"] * second]
    assert found["map"] == found["label"] == pytest.approx(measure(one.label, one.fov), rel=1e-4, nan_ok=True)


def test_a_map_without_vessels_is_measured():
    one = example("01_test", 1)
    found = bland_altman.measures(one, np.zeros(one.label.shape, "uint16"), 0.5)
    assert found["map"]["density"] == 0 and found["map"]["width_px"] is None
    json.dumps(found, allow_nan=False)
