"""Probability maps: of a whole image, in tiles, and at the scale that the network knows."""

import dataclasses

import cv2
import numpy as np

from vessels.data.fov import field_of_view
from vessels.data.images import crop, pad
from vessels.prediction.flips import average_flips

# How far the network sees, in pixels. Each level reaches 7 of its own pixels, four 3x3 convolutions and the 7x7 one
# of the attention: 7 (1 + 2 + 4 + 8 + 4 + 2 + 1) = 154; the three transposed convolutions add 2 + 4 + 8 = 14 to the
# left and upwards. tests/test_prediction.py measures it.
HALO = 168
TILE = 1152  # sees the general network's wider view in one pass
MARGIN = 16  # of black around the eye, in pixels that the network sees
# Widths of the whole disc, as multiples of the longer side of a photograph that shows no rim.
NO_RIM = (1.0, 1.25, 1.6)


def predict_image(model, image, side=None):
    """Vessel probability of each pixel of an RGB photograph, in one pass over the whole image.

    Args:
        model: The network.
        image: uint8 `(height, width, 3)`, RGB.
        side: Side of the square that the image is padded to, a multiple of 8 (592 for DRIVE,
            1008 for CHASE DB1); by default, the next multiple of 8 of each side.

    Returns:
        float32 `(height, width)` in [0, 1].

    Raises:
        ValueError: `image` is not uint8 `(height, width, 3)`.
    """
    check_photograph(image)
    height, width = image.shape[:2]
    padded = pad(image, side or -(-height // 8) * 8, side or -(-width // 8) * 8)
    probability = model.predict_on_batch(padded[None].astype("float32") / 255)
    return crop(np.asarray(probability, "float32")[0, ..., 0], height, width)


def check_photograph(image):
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"a photograph must be uint8 (height, width, 3), RGB; got {image.dtype} {image.shape}")


def predict_tiled(model, image, tile=TILE):
    """Vessel probability of each pixel, in one pass where the image fits into a tile, else tile by tile.

    Tiles overlap so far that what is used of them equals a pass over the whole image, to rounding.

    Args:
        model: The network; takes float `(1, height, width, 3)` in [0, 1].
        image: uint8 `(height, width, 3)`, RGB.
        tile: Side of the largest part seen at once, which bounds the memory: a multiple of 8 and more than 336, or a
            ValueError.

    Returns:
        float32 `(height, width)` in [0, 1].
    """
    if tile % 8 or tile <= 2 * HALO:
        raise ValueError(f"tiles must be multiples of 8 and larger than {2 * HALO}, got {tile}")
    height, width = image.shape[:2]
    padded = pad(image, -(-height // 8) * 8, -(-width // 8) * 8)
    result = np.empty(padded.shape[:2], "float32")
    for y, y_end, top, bottom in windows(padded.shape[0], tile):
        for x, x_end, left, right in windows(padded.shape[1], tile):
            part = padded[None, y:y_end, x:x_end].astype("float32") / 255
            found = np.asarray(model.predict_on_batch(part))[0, ..., 0]
            result[top:bottom, left:right] = found[top - y : bottom - y, left - x : right - x]
    return crop(result, height, width)


def windows(length, tile):
    """`(start, end, first, last)` along one side: from where to where each tile reaches, and is used.

    As few tiles as cover it, and those no larger than they must be; all numbers are multiples of 8, as `length` is.
    """
    if length <= tile:
        return [(0, length, 0, length)]
    count = -(-(length - 2 * HALO) // (tile - 2 * HALO))
    step = -(-(length - 2 * HALO) // count // 8) * 8
    starts = [min(i * step, length - 2 * HALO - step) for i in range(count)]
    edges = [0, *(start + HALO for start in starts[1:]), length]
    return [(start, start + step + 2 * HALO, first, last)
            for start, first, last in zip(starts, edges, edges[1:], strict=False)]


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What the network sees in a photograph.

    Attributes:
        probability: float32 `(height, width)` in [0, 1], 0 outside the field of view.
        fov: bool `(height, width)`, the field of view.
        diameter: Of the field of view's circle, in pixels, a float; None where no rim shows.
        scale: How many pixels the network saw for each of the photograph's, a float.
        confidence: `confidence` of the probabilities, a float in [0, 1].
    """

    probability: np.ndarray
    fov: np.ndarray
    diameter: float | None
    scale: float
    confidence: float


def predict_photograph(model, image, diameters, fov=None, tile=TILE, careful=False, threshold=0.5):
    """Vessels in an RGB photograph of any size, seen at the scale that the network knows.

    Args:
        model, tile: As in `predict_tiled`.
        image: uint8 `(height, width, 3)`, RGB.
        diameters: How wide the field of view should be for the network, in pixels; of several, the one at which the
            network is most confident.
        fov: bool `(height, width)`, the field of view where it is known; else it is found.
        careful: Take the mean of the maps at all `diameters` and of four mirror images instead: four times the time.
        threshold: What counts as vessel, for the confidence.

    Returns:
        A `Prediction`.

    Raises:
        ValueError: `image` is not uint8 `(height, width, 3)`.
    """
    check_photograph(image)
    found_fov, diameter = field_of_view(image)
    fov = found_fov if fov is None else fov
    # Without a rim, the photograph may be any part of the disc.
    known = [diameter] if diameter else [max(image.shape[:2]) * part for part in NO_RIM]
    scales = [wanted / pixels for wanted in diameters for pixels in known]
    maps = [predict_scaled(model, image, fov, scale, tile, flips=careful) for scale in scales]
    confidences = [confidence(found, threshold) for found in maps]
    best = int(np.argmax(confidences))
    found, sure = maps[best], confidences[best]
    if careful and diameter:
        found = np.mean(maps, axis=0, dtype="float32")
        sure = confidence(found, threshold)
    return Prediction(found, fov, diameter, scales[best], sure)


def predict_scaled(model, image, fov, scale, tile=TILE, flips=False):
    """float32 `(height, width)` in [0, 1]: the map of `image` seen at `scale`, 0 outside `fov`."""
    def see(part):
        return predict_tiled(model, part, tile)

    x, y, width, height = cv2.boundingRect(fov.astype("uint8"))
    box = np.s_[y : y + height, x : x + width]
    scale = 1.0 if abs(scale - 1) < 0.02 else scale  # so little is not worth an interpolation
    small = resize(image[box], max(round(width * scale), 1), max(round(height * scale), 1))
    # Black around the eye, whatever surround, lettering or frame the photograph has: what training showed.
    small[resize(fov[box].astype("uint8"), *small.shape[1::-1]) == 0] = 0
    padded = pad(small, small.shape[0] + 2 * MARGIN, small.shape[1] + 2 * MARGIN)
    found = average_flips(see, padded) if flips else see(padded)
    probability = np.zeros(fov.shape, "float32")
    probability[box] = resize(crop(found, *small.shape[:2]), width, height)
    return probability * fov


def confidence(probability, threshold=0.5):
    """Expected Dice of a map cut at `threshold`, were its probabilities true: float in [0, 1].

    Twice the sum of what is over the threshold, by its number plus the sum of all. It needs no label, and ranks the
    scales at which a photograph can be seen.
    """
    over = probability[probability >= threshold]
    return float(2 * over.sum(dtype="float64") / max(over.size + probability.sum(dtype="float64"), 1e-9))


def resize(array, width, height):
    how = cv2.INTER_AREA if width < array.shape[1] else cv2.INTER_LINEAR
    return cv2.resize(array, (width, height), interpolation=how)
