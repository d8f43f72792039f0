"""Averaging over mirror images at prediction."""

import numpy as np

FLIPS = ((), (0,), (1,), (0, 1))


def average_flips(predict, *images):
    """Mean of the maps of a photograph and of its three mirror images, each turned back.

    Args:
        predict: Gives float32 `(height, width)` in [0, 1] for `images`, or for mirror images of them.
        images: The photograph, uint8 `(height, width, 3)`, and what else `predict` takes with that height and width,
            as the field of view.

    Returns:
        float32 `(height, width)` in [0, 1].
    """
    maps = [np.flip(predict(*(np.ascontiguousarray(np.flip(image, axes)) for image in images)), axes)
            for axes in FLIPS]
    return np.mean(maps, axis=0, dtype="float32")
