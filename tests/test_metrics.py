"""Scores from histograms, against scikit-learn and by hand."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from vessels.data.examples import Example
from vessels.metrics import METRICS, PROTOCOLS, Reference, Scores, best_threshold, histogram, level, score, to_16_bit


def example(name, seed, second=True, size=(64, 72)):
    """A disc with a few straight vessels, some of them outside the field of view."""
    rng = np.random.default_rng(seed)
    y, x = np.indices(size)
    fov = np.hypot(y - size[0] / 2, x - size[1] / 2) < size[0] / 2 - 4
    label = np.zeros(size, bool)
    for column in rng.integers(5, size[1] - 5, 4):
        label[:, column : column + 3] = True
    observer = np.roll(label, 1, axis=1) if second else None
    return Example(name, rng.integers(0, 256, (*size, 3), "uint8"), label, fov, observer)


def maps(examples, noise=0.8):
    """Probabilities, float32, that are mostly right."""
    rng = np.random.default_rng(1)
    return [(1 / (1 + np.exp(-(4 * one.label - 2 + rng.normal(0, noise, one.label.shape))))).astype("float32")
            for one in examples]


def scored(examples, probabilities, threshold=0.5):
    """`Scores` of all examples."""
    scores = Scores(threshold)
    for one, probability in zip(examples, probabilities, strict=True):
        scores.add(one, to_16_bit(probability))
    return scores


def score_of(probability, label, threshold=0.5):
    return score(histogram(to_16_bit(np.asarray(probability)), np.asarray(label, bool)), threshold)


@pytest.mark.filterwarnings("ignore:A single label was found")
@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0, 1, 9362, 32767, 32768, 65534, 65535]), st.booleans()), min_size=1,
                max_size=60), st.sampled_from([1 / 65535, 0.3, 0.5, 1]))
def test_scores_equal_scikit_learns_on_the_same_16_bit_values(pixels, threshold):
    values, label = np.array([value for value, _ in pixels], "uint16"), np.array([vessel for _, vessel in pixels])
    scores, mask = score(histogram(values, label), threshold), values >= level(threshold)
    ranks = np.isin(values, (0, 65535), invert=True).any()
    areas = ranks and 0 < label.sum() < label.size
    expected = {
        "accuracy": sk.accuracy_score(label, mask),
        "mcc": sk.matthews_corrcoef(label, mask),
        "sensitivity": sk.recall_score(label, mask) if label.any() else None,
        "specificity": sk.recall_score(~label, ~mask) if not label.all() else None,
        "f1": sk.f1_score(label, mask) if (label | mask).any() else None,
        "auc": sk.roc_auc_score(label, values) if areas else None,
        "average_precision": sk.average_precision_score(label, values) if areas else None,
        "brier": np.mean((values / 65535 - label) ** 2) if ranks else None,
    }
    assert {name: scores[name] for name in expected} == pytest.approx(expected, abs=1e-12)


def test_score_by_hand():
    scores = score_of([0.9, 0.8, 0.5, 0.4, 0.3, 0.1], [1, 0, 1, 1, 0, 0])  # two hits, one miss, one false alarm
    assert scores == pytest.approx({
        "auc": 7 / 9, "average_precision": (1 + 2 / 3 + 3 / 4) / 3, "accuracy": 4 / 6, "sensitivity": 2 / 3,
        "specificity": 2 / 3, "f1": 2 / 3, "mcc": 1 / 3, "brier": (0.01 + 0.64 + 0.25 + 0.36 + 0.09 + 0.01) / 6,
        "ece": (0.1 + 0.8 + 0.5 + 0.6 + 0.3 + 0.1) / 6}, abs=1e-4)
    assert all(type(value) is float for value in scores.values())


def test_calibration_error_compares_bins_and_not_pixels():
    # Of ten pixels at .34 and .38, in one bin, four are vessels: on average, .36 is .04 too low.
    assert score_of([0.34, 0.38] * 5, [1] * 4 + [0] * 6)["ece"] == pytest.approx(0.04, abs=1e-5)
    assert score_of([0.32, 0.38], [0, 1])["ece"] == pytest.approx((0.32 + 0.62) / 2, abs=1e-5)  # in two bins


def test_histograms_of_large_photographs_do_not_overflow():
    counts = histogram(to_16_bit(np.linspace(0, 1, 99)), np.arange(99) % 3 == 0)
    assert score(counts * 10**9) == pytest.approx(score(counts))


@pytest.mark.parametrize("threshold", [0.2, 0.4, 0.6])
def test_8_bit_maps_at_a_threshold_that_is_one_of_their_values(threshold):
    values = to_16_bit(np.arange(256, dtype="uint8") / np.float32(255))
    assert np.flatnonzero(values >= level(threshold))[0] == round(255 * threshold)


@pytest.mark.parametrize("arrays", [
    (np.zeros(2, "uint8"), np.ones(2, bool)), (np.zeros(2, "uint16"), np.ones(2)),
])
def test_what_would_be_counted_wrongly_is_refused(arrays):
    with pytest.raises(ValueError, match="must be uint16 and label bool; got"):
        histogram(*arrays)


def test_photographs_are_pooled_and_counted_one_by_one():
    examples = [example("a", 1), example("b", 2)]
    probabilities = maps(examples)
    result = scored(examples, probabilities, 0.7).result()
    values = np.stack([to_16_bit(probability) for probability in probabilities])
    labels, fovs, observers = (np.stack([getattr(one, name) for one in examples]) for name in
                               ("label", "fov", "second"))
    for protocol, where in zip(PROTOCOLS, (np.ones_like(fovs), fovs), strict=True):
        assert set(result[protocol]) == set(METRICS)
        for found, mapped in ((result, values), (result["second_observer"], to_16_bit(observers))):
            expected = score(histogram(mapped, labels, where), 0.7)
            assert {key: found[protocol][key] for key in expected} == pytest.approx(expected, abs=1e-6)
        each = [image[protocol]["f1"] for image in result["per_image"]]
        statistics = (result[name][protocol]["f1"] for name in ("mean", "std"))
        assert tuple(statistics) == pytest.approx((np.mean(each), np.std(each)), abs=1e-6)
    assert [image["image"] for image in result["per_image"]] == ["a", "b"]
    assert json.loads(json.dumps(result)) == result


def test_only_if_all_photographs_have_a_second_observer_is_it_scored():
    examples = [example("a", 1), example("b", 2, second=False)]
    assert scored(examples, maps(examples)).result()["second_observer"] is None


def test_pixels_outside_the_field_of_view_change_only_the_whole_image():
    examples = [example("a", 1)]
    (before,) = maps(examples)
    after = np.where(examples[0].fov, before, 0)
    found = [scored(examples, [one]).result() for one in (before, after)]
    for key in set(METRICS) - {"cldice"}:  # its skeletons are those of the whole map
        assert found[0]["inside_fov"][key] == found[1]["inside_fov"][key]
    assert found[0]["whole_image"]["sensitivity"] > found[1]["whole_image"]["sensitivity"]


@pytest.mark.parametrize(("change", "message"), [
    (lambda found: found + 1, "outside"),
    (lambda found: found[1:], r"has the shape \(63, 72\), not \(64, 72\)")])
def test_what_is_no_map_is_refused(change, message):
    examples = [example("a", 1)]
    with pytest.raises(ValueError, match=message):
        scored(examples, [change(maps(examples)[0])])


def line(*columns, height=40, width=60, thickness=3):
    """A horizontal vessel in the given ranges of columns."""
    found = np.zeros((height, width), bool)
    for start, stop in columns:
        found[18 : 18 + thickness, start:stop] = True
    return found


def scores_of(mask, label, fov=None, diameter=537):
    """Scores of a bool map inside the field of view."""
    reference = Reference(label, np.ones_like(label) if fov is None else fov, diameter)
    return reference.counts(to_16_bit(mask), 0.5).scores(0.5)["inside_fov"]


def test_centreline_dice_by_hand():
    whole, half, elsewhere = line((5, 55)), line((5, 30)), np.roll(line((5, 55)), 12, axis=0)
    empty = np.zeros_like(whole)

    def cldice(mask, label, fov=None):
        return scores_of(mask, label, fov)["cldice"]

    assert cldice(whole, whole) == 1
    # One pixel thick, it keeps the centreline except for the bent ends, but loses most pixels.
    thin = np.roll(line((5, 55), thickness=1), 1, axis=0)
    assert cldice(thin, whole) > 0.98 and scores_of(thin, whole)["f1"] == pytest.approx(0.5)
    # Half the line: its whole skeleton is on the label, and half of the label's skeleton is on it.
    assert cldice(half, whole) == cldice(whole, half) == pytest.approx(2 / 3, abs=0.02)
    for prediction, label in ((elsewhere, whole), (empty, whole), (whole, empty)):
        assert cldice(prediction, label) == 0
    assert cldice(empty, empty) is None
    assert cldice(half, whole, np.indices(whole.shape)[1] < 30) == 1


@pytest.mark.parametrize(("diameter", "thin", "thick"), [(537, 0.5, 1), (150, None, 0.75), (2000, 0.75, None)])
def test_thin_and_thick_vessels_are_told_apart_at_drives_scale(diameter, thin, thick):
    """Two vessels of as many pixels, one 2 and the other 4 pixels wide; of the thin one, half is found."""
    narrow, wide = line((10, 50), thickness=2), np.roll(line((20, 40), thickness=4), 12, axis=0)
    narrow_half = line((10, 30), thickness=2)
    scores = scores_of(narrow_half | wide, narrow | wide, diameter=diameter)
    assert (scores["sensitivity_thin"], scores["sensitivity_thick"]) == (thin, thick)


def test_the_best_threshold_is_where_the_mean_f1_of_the_photographs_is_highest():
    one, other = (histogram(to_16_bit(np.array(values)), np.array(label, bool)) for values, label in (
        ([0.1, 0.62, 0.72, 0.9], [0, 0, 1, 1]), ([0.2, 0.66] * 50, [0, 1] * 50)))
    assert best_threshold([one]) == best_threshold([one, other]) == 0.65
    assert best_threshold([other]) == 0.25
