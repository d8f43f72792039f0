"""Averaging over mirror images at prediction."""

import numpy as np

FLIPS = ((), (0,), (1,), (0, 1))


def average_flips(predict, image):
    """Mean of the maps of a photograph and of its three mirror images, each turned back.

    Args:
        predict: Gives float32 `(height, width)` in [0, 1] for uint8 `(height, width, 3)`.
        image: uint8 `(height, width, 3)`.

    Returns:
        float32 `(height, width)` in [0, 1].
    """
    maps = [np.flip(predict(np.ascontiguousarray(np.flip(image, axes))), axes) for axes in FLIPS]
    return np.mean(maps, axis=0, dtype="float32")
