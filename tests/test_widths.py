"""Tests of the widths at which the network sees a photograph."""

import pytest

from vessels.data.fov import Widths

RULE = Widths((800, 1250), (0.5, 0.8), 2800)


@pytest.mark.parametrize(("own", "widths"), [
    (537, (800, 1250)), (1444, (800, 1250)), (2400, (1200, 1920)), (3268, (1634, 2614.4)), (6000, (2800, 2800))])
def test_large_photographs_are_seen_near_their_own_width(own, widths):
    assert RULE.of(own) == pytest.approx(widths)


@pytest.mark.parametrize("rule", [RULE, Widths((537,))])
def test_the_rule_is_in_the_record(rule):
    assert Widths.of_record(rule.as_record()) == rule


def test_records_without_a_rule_have_fixed_widths():
    assert Widths.of_record({"diameters": [800, 1250]}).of(3268) == (800, 1250)
