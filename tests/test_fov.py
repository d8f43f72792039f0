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


def framed(value, rows=20, columns=30):
    """A change of photograph and field of view, as all below."""
    around = (rows, rows), (columns, columns)
    return lambda image, fov: (np.pad(image, (*around, (0, 0)), constant_values=value), np.pad(fov, around))


def cut(rows, columns):
    inside = np.s_[rows:-rows, columns:-columns]
    return lambda image, fov: (image[inside], fov[inside])


def glow(image, fov):
    light = 0.8 * cv2.GaussianBlur(image, (0, 0), 40)
    return np.where(fov[..., None], image, np.maximum(image, light)).astype("uint8"), fov


def noisy_surround(image, fov):
    noise = np.random.default_rng(0).normal(8, 5, image.shape)
    return np.clip(image + noise, 0, 255).astype("uint8"), fov


def window_of_text(image, fov):
    image = image.copy()
    cv2.putText(image, "OD 45", (5, 25), 0, 0.8, (255, 255, 255), 2)
    cv2.rectangle(image, (480, 550), (564, 583), (200, 200, 200), -1)
    return image, fov


CHANGES = {
    "white frame": framed(255), "grey frame": framed(128), "far away": framed(0, 584, 565), "glow": glow,
    "noisy surround": noisy_surround, "window of text": window_of_text, "dark": lambda image, fov: (image // 4, fov),
    "white surround": lambda image, fov: (np.where(fov[..., None], image, np.uint8(255)), fov),
    "cut by 20": cut(20, 20), "cut by 75": cut(75, 75), "cut above and below": cut(70, 1),
}


@pytest.mark.parametrize("change", CHANGES)
def test_surrounds_frames_and_cuts_leave_field_and_diameter(change, eyes):
    for eye in eyes:
        image, fov = CHANGES[change](eye.image, eye.fov)
        found, diameter = field_of_view(np.ascontiguousarray(image))
        assert 2 * (found & fov).sum() / (found.sum() + fov.sum()) > 0.98
        assert diameter == pytest.approx(DIAMETER, rel=0.02)


@pytest.mark.parametrize("pixels", [100, 130])
def test_a_part_without_a_rim_has_no_diameter(pixels, eyes):
    for image in (*(cut(pixels, pixels)(eye.image, eye.fov)[0] for eye in eyes), np.zeros((60, 80, 3), "uint8")):
        found, diameter = field_of_view(np.ascontiguousarray(image))
        assert found.all() and diameter is None
