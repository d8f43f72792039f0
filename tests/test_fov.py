"""The field of view and its diameter, in photographs with different surrounds, frames and cuts."""

import cv2
import numpy as np
import pytest

from vessels.data import synthetic
from vessels.data.fov import field_of_view
from vessels.data.published import DRIVE

DIAMETER = 2 * 0.478 * 565  # of the synthetic eyes


@pytest.fixture(scope="module")
def eyes():
    return synthetic.make(DRIVE, "validation")


def framed(image, fov, value):
    around = ((20, 20), (30, 30))
    return np.pad(image, (*around, (0, 0)), constant_values=value), np.pad(fov, around)


def white_frame(image, fov):
    return framed(image, fov, 255)


def grey_frame(image, fov):
    return framed(image, fov, 128)


def far_away(image, fov):
    height, width = fov.shape
    around = (height, height), (width, width)
    return np.pad(image, (*around, (0, 0))), np.pad(fov, around)


def glow(image, fov):
    light = 0.8 * cv2.GaussianBlur(image, (0, 0), 40)
    return np.where(fov[..., None], image, np.maximum(image, light)).astype("uint8"), fov


def window_of_text(image, fov):
    image = image.copy()
    cv2.putText(image, "OD 45", (5, 25), 0, 0.8, (255, 255, 255), 2)
    cv2.rectangle(image, (480, 550), (564, 583), (200, 200, 200), -1)
    return image, fov


def cut(pixels):
    def change(image, fov):
        inside = slice(pixels, -pixels)
        return image[inside, inside], fov[inside, inside]

    return change


@pytest.mark.parametrize("change", [white_frame, grey_frame, far_away, glow, window_of_text, cut(20), cut(60), cut(75)])
def test_surrounds_frames_and_cuts_leave_field_and_diameter(change, eyes):
    for eye in eyes:
        image, fov = change(eye.image, eye.fov)
        found, diameter = field_of_view(np.ascontiguousarray(image))
        assert 2 * (found & fov).sum() / (found.sum() + fov.sum()) > 0.98
        assert diameter == pytest.approx(DIAMETER, rel=0.02)


@pytest.mark.parametrize("pixels", [100, 130])
def test_a_part_without_a_rim_has_no_diameter(pixels, eyes):
    for eye in eyes:
        found, diameter = field_of_view(np.ascontiguousarray(cut(pixels)(eye.image, eye.fov)[0]))
        assert found.all() and diameter is None
