"""Measures of maps compared with those of labels, on values with known mean difference, limits and correlation."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_metrics import example
from test_report import measured

from vessels.metrics import to_16_bit
from vessels.prediction.measures import measure
from vessels.report import bland_altman

FIRST = np.array([3.0, 1.0, 4.0, 1.5, 5.0, 9.0])


def spread(seed=0):
    """Values of mean 0 and standard deviation 1."""
    values = np.random.default_rng(seed).normal(size=FIRST.size)
    return (values - values.mean()) / values.std(ddof=1)


def metrics_of(seed=0, **sides):
    """Content of `metrics.json` in which all measures of an image have the given value, for the map, the label, ..."""
    images = [dict(zip(sides, values, strict=True)) for values in zip(*sides.values(), strict=True)]
    shown = bland_altman.SHOWN
    return measured(seed=seed, per_image=[
        {"measures": {who: dict.fromkeys(shown, value) for who, value in image.items()}} for image in images])


@given(st.floats(-50, 50), st.floats(0.01, 9), st.integers(0, 99))
def test_known_bias_and_limits(bias, deviation, seed):
    found = bland_altman.bland_altman(FIRST, FIRST + bias + deviation * spread(seed))
    assert found[:3] == pytest.approx((bias, bias - 1.96 * deviation, bias + 1.96 * deviation), abs=1e-9)


@pytest.mark.parametrize(("other", "r"), [(2 * FIRST + 7, 1), (-FIRST, -1), (0 * FIRST, np.nan)])
def test_known_correlation(other, r):
    assert bland_altman.bland_altman(FIRST, other)[3] == pytest.approx(r, nan_ok=True)


def test_table_holds_known_values_of_all_that_are_compared():
    metrics = metrics_of(map=FIRST + 2 + 0.5 * spread(), label=FIRST, second_observer=3 * FIRST)
    head, rows = bland_altman.table(metrics)
    assert head == ["measure", "first observer", "rsan", "second observer"]
    assert [row[0] for row in rows] == [title for title, _ in bland_altman.SHOWN.values()]
    row = dict(zip(bland_altman.SHOWN, rows, strict=True))["width_px"]
    reach = 1.96 * (2 * FIRST).std(ddof=1)
    assert row[1] == f"{FIRST.mean():.2f}" and row[2].startswith("+2.00 [+1.02, +2.98], r 0.9")
    mean = 2 * FIRST.mean()
    assert row[3] == f"{mean:+.2f} [{mean - reach:+.2f}, {mean + reach:+.2f}], r 1.00"


def test_results_without_measures_or_of_two_images_are_left_out():
    assert bland_altman.table(metrics_of(map=FIRST, label=FIRST))[0][2:] == ["rsan"]  # no second observer
    for metrics in (measured(), metrics_of(map=FIRST[:2], label=FIRST[:2])):
        assert bland_altman.table(metrics)[1] == []


@pytest.mark.parametrize("second", [False, True])
def test_measures_of_an_image(second):
    one = example("01_test", 1, second=second)
    found = bland_altman.measures(one, to_16_bit(one.label * np.float32(0.6)), 0.55)
    assert list(found) == ["map", "label", *["second_observer"] * second]
    assert found["map"] == found["label"] == pytest.approx(measure(one.label, one.fov), rel=1e-4, nan_ok=True)


def test_a_map_without_vessels_is_measured_and_compared():
    one = example("01_test", 1)
    found = bland_altman.measures(one, np.zeros(one.label.shape, "uint16"), 0.5)
    assert found["map"]["density"] == 0 and found["map"]["width_px"] is None
    json.dumps(found, allow_nan=False)
    rows = bland_altman.table(measured(per_image=[{"measures": found}] * 3))[1]
    assert rows[2][1:3] == ["-", "-"]
