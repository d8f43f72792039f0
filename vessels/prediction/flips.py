"""Averaging over mirror images, a test-time augmentation."""

import numpy as np

FLIPS = ((), (0,), (1,), (0, 1))


def average_flips(predict, *images):
    """Mean of the maps of a photograph and of its three mirror images, each flipped back.

    Args:
        predict: Function of `images`, or of their mirror images; returns float32 `(height, width)` in [0, 1].
        images: The photograph, uint8 `(height, width, 3)`, and other arrays of that height and width that `predict`
            needs, such as the field of view.

    Returns:
        float32 `(height, width)` in [0, 1].
    """
    maps = [np.flip(predict(*(np.ascontiguousarray(np.flip(image, axes)) for image in images)), axes)
            for axes in FLIPS]
    return np.mean(maps, axis=0, dtype="float32")
