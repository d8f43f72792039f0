"""Doubtful maps get a warning; usual photographs get none."""

import cv2
import numpy as np
import pytest

from vessels.data import published, sources
from vessels.data.fov import Widths, field_of_view
from vessels.prediction.maps import Prediction, predict_photograph
from vessels.prediction.quality import doubts

from rsan_model import build_rsan


def said(image, label, confidence=0.85):
    """The warnings for a photograph whose vessels were found as labelled."""
    fov, diameter = field_of_view(image)
    found = Prediction(label.astype("float32"), fov, diameter, 1.0, confidence)
    return "; ".join(doubts(image, found, label & fov))


def negative(image):
    return 255 - image


UNUSUAL = [
    (negative, "negative"),
    (lambda image: image[..., ::-1], "red and blue swapped"),
    (lambda image: image // 10, "nearly black"),
    (lambda image: np.concatenate([image, image[:, ::-1]], axis=1), "more than one eye"),
    (lambda image: np.concatenate([image, image[::-1]], axis=0), "more than one eye"),
    (lambda image: image[200:330, 200:330], "no rim"),
    (lambda image: np.pad(image[::4, ::4], ((400, 500), (450, 450), (0, 0)), constant_values=8), "crop it"),
]


@pytest.mark.parametrize(("change", "warning"), UNUSUAL)
def test_unusual_photographs_get_a_warning(change, warning, eye):
    image = np.ascontiguousarray(change(eye.image))
    label = cv2.resize(eye.label.astype("uint8"), image.shape[1::-1], interpolation=cv2.INTER_NEAREST) > 0
    assert warning in said(image, label)


@pytest.mark.parametrize(("change", "warning"), [
    (lambda label: label & False, "density 0.000"),
    (lambda label: cv2.dilate(label.astype("uint8"), np.ones((9, 9), "uint8")) > 0, "is implausible"),
])
def test_densities_that_eyes_do_not_have_get_a_warning(change, warning, eye):
    assert not said(eye.image, eye.label)
    assert warning in said(eye.image, change(eye.label))


@pytest.mark.slow
@pytest.mark.parametrize("dataset", published.DATASETS, ids=lambda dataset: dataset.name)
def test_the_released_network_is_sure_of_usual_photographs(dataset, data_root):
    model = build_rsan(weights="any")
    for one in dataset.at(data_root).load("validation")[:1]:
        for image, warned in ((one.image, False), (negative(one.image), True)):
            found = predict_photograph(model, image, Widths.of_record(model.record))
            assert bool(doubts(image, found, found.probability >= model.threshold)) == warned


def test_an_unsure_network_gets_a_warning(eye):
    assert "confidence 0.45" in said(eye.image, eye.label, 0.45)


@pytest.mark.parametrize("name", ["DRIVE", "CHASEDB1", "LES_AV/les_av.csv"])
def test_usual_photographs_get_none_and_unusual_ones_do(name, data_root):
    if not (data_root / name).exists():
        pytest.skip("needs LES_AV beside DRIVE")
    source = sources.find(str(data_root / name) if "/" in name else name).at(data_root)
    for photograph in source.photographs("test" if "/" in name else "validation")[:2]:
        example = photograph.load()
        assert not said(example.image, example.label)
        for change, warning in UNUSUAL[:4]:
            changed = np.ascontiguousarray(change(example.image))
            assert warning in said(changed, np.resize(example.label, changed.shape[:2]))
