"""Averaging over flips, with replacements for the network."""

import numpy as np

from vessels.prediction.flips import average_flips

IMAGE = np.random.default_rng(0).integers(0, 256, (5, 8, 3), "uint8")


def test_what_sees_each_pixel_alone_is_left_as_it_is():
    def predict(image):
        assert image.flags["C_CONTIGUOUS"] and image.dtype == "uint8"
        return image[..., 0].astype("float32") / 255

    found = average_flips(predict, IMAGE)
    assert found.dtype == "float32" and abs(found - IMAGE[..., 0] / 255).max() < 1e-6


def test_what_depends_on_the_place_becomes_symmetric():
    ramp = np.arange(40, dtype="float32").reshape(5, 8) / 40
    found = average_flips(lambda image: ramp, IMAGE)
    assert abs(found - ramp.mean()).max() < 1e-6


def test_four_different_images_are_seen():
    seen = []

    def predict(image):
        seen.append(image.tobytes())
        return image[..., 0] / np.float32(255)

    average_flips(predict, IMAGE)
    mirrored = IMAGE[::-1], IMAGE[:, ::-1], IMAGE[::-1, ::-1]
    assert set(seen) == {IMAGE.tobytes(), *(one.tobytes() for one in mirrored)}


def test_the_field_of_view_turns_with_the_photograph():
    fov = IMAGE[..., 1] > 100
    found = average_flips(lambda image, fov: fov * image[..., 0] / np.float32(255), IMAGE, fov)
    assert abs(found - fov * IMAGE[..., 0] / 255).max() < 1e-6
