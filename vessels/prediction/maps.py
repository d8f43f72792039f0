"""Probability maps: of a whole image, in tiles, and at the scale that the network knows."""

import cv2
import numpy as np

from vessels.data.fov import estimate_fov
from vessels.data.images import crop, pad

# How far the network sees, in pixels. Each level reaches 7 of its own pixels, four 3x3 convolutions and the 7x7 one
# of the attention: 7 (1 + 2 + 4 + 8 + 4 + 2 + 1) = 154; the three transposed convolutions add 2 + 4 + 8 = 14 to the
# left and upwards. tests/test_prediction.py measures it.
HALO = 168


def predict_image(model, image, side=None):
    """Vessel probability of each pixel of a photograph, in one pass over the whole image.

    Args:
        model: The network.
        image: uint8 `(height, width, 3)`, RGB.
        side: Side of the square that the image is padded to, a multiple of 8 (592 for DRIVE,
            1008 for CHASE DB1); by default, the next multiple of 8 of each side.

    Returns:
        float32 `(height, width)` in [0, 1].
    """
    height, width = image.shape[:2]
    padded = pad(image, side or -(-height // 8) * 8, side or -(-width // 8) * 8)
    probability = model.predict_on_batch(padded[None].astype("float32") / 255)
    return crop(np.asarray(probability, "float32")[0, ..., 0], height, width)


def predict_tiled(model, image, tile=1024):
    """Vessel probability of each pixel, in one pass where the image fits into a tile, else tile by tile.

    Tiles overlap so far that what is used of them equals a pass over the whole image, to rounding.

    Args:
        model: The network; takes float `(1, height, width, 3)` in [0, 1].
        image: uint8 `(height, width, 3)`, RGB.
        tile: Side of the squares, which bounds the memory: a multiple of 8 and more than 336, or a ValueError.

    Returns:
        float32 `(height, width)` in [0, 1].
    """
    if tile % 8 or tile <= 2 * HALO:
        raise ValueError(f"tiles must be multiples of 8 and larger than {2 * HALO}, got {tile}")
    height, width = image.shape[:2]
    padded = pad(image, -(-height // 8) * 8, -(-width // 8) * 8)
    result = np.empty(padded.shape[:2], "float32")
    for y, top, bottom in windows(padded.shape[0], tile):
        for x, left, right in windows(padded.shape[1], tile):
            part = padded[None, y : y + tile, x : x + tile].astype("float32") / 255
            found = np.asarray(model.predict_on_batch(part))[0, ..., 0]
            result[top:bottom, left:right] = found[top - y : bottom - y, left - x : right - x]
    return crop(result, height, width)


def windows(length, tile):
    """`(start, first, end)` along one side: where each tile starts, and from where to where it is used."""
    step = tile - 2 * HALO if length > tile else length
    return [(max(min(first - HALO, length - tile), 0), first, min(first + step, length))
            for first in range(0, length, step)]


def predict_photograph(model, image, dataset, tile=1024):
    """Vessels in a photograph of any size, seen at the scale of the photographs that the network knows.

    Args as in `predict_tiled`, and `dataset`: the `datasets.Dataset` that the network was trained on.

    Returns:
        `(probability, fov, scale)`: float32 `(height, width)` in [0, 1], 0 outside the field of view; bool
        `(height, width)`; and how many pixels the network saw for each of the photograph's, a float.
    """
    fov = estimate_fov(image)
    x, y, width, height = cv2.boundingRect(fov.astype("uint8"))
    box = np.s_[y : y + height, x : x + width]
    scale = dataset.diameter / max(width, height)
    scale = 1.0 if abs(scale - 1) < 0.02 else scale  # so little is not worth an interpolation
    small = resize(image[box], max(round(width * scale), 1), max(round(height * scale), 1))
    # Black around the eye, whatever surround, lettering or frame the photograph has: what training showed.
    small[resize(fov[box].astype("uint8"), *small.shape[1::-1]) == 0] = 0
    found = predict_tiled(model, pad(small, dataset.padded, dataset.padded), tile)
    probability = np.zeros(fov.shape, "float32")
    probability[box] = resize(crop(found, *small.shape[:2]), width, height)
    return probability * fov, fov, scale


def resize(array, width, height):
    how = cv2.INTER_AREA if width < array.shape[1] else cv2.INTER_LINEAR
    return cv2.resize(array, (width, height), interpolation=how)
