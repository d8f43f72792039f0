"""Predicts probability maps: of a whole image, in tiles, and at the scale on which the network was trained."""

import dataclasses
import functools
import math
import threading

import cv2
import numpy as np

from vessels.data.fov import field_of_view
from vessels.data.images import crop, pad
from vessels.record import full_float32

# Radius of the network's receptive field, in pixels. Each level adds 7 of its own pixels, by four 3x3 convolutions and
# the attention's 7x7 convolution: 7 (1 + 2 + 4 + 8 + 4 + 2 + 1) = 154. The three transposed convolutions add
# 2 + 4 + 8 = 14 to the left and upwards. tests/test_prediction.py measures it.
HALO = 168
TILE = 1304  # a field of view 1,250 pixels wide fits into one tile
MARGIN = 16  # width of the black border around the field of view, in pixels of the network's input
# Diameters of the whole disc to try if no rim is visible, as multiples of the photograph's longer side. The first is
# for ultra-wide fields, whose vessels are finer than in an ordinary field of that width.
NO_RIM = (0.65, 1.0, 1.25, 1.6)
FLIPS = ((), (0,), (1,), (0, 1))
ONE_AT_A_TIME = threading.Lock()  # several threads may share a network


def predict_image(model, image, side=8, tile=math.inf):
    """Vessel probability of each pixel of an RGB photograph, in one pass if it fits into a tile, else tile by tile.

    Tiles overlap by so much that the result equals that of one pass over the whole image, except for rounding.

    Args:
        model: The network.
        image: uint8 `(height, width, 3)`, RGB.
        side: Height and width are padded to multiples of this, which is a multiple of 8 (592 for DRIVE, 1008 for
            CHASE DB1).
        tile: The network sees at most `tile * tile` pixels at once, which limits the memory: at least 344.

    Returns:
        float32 `(height, width)` in [0, 1].

    Raises:
        ValueError: `image` is not uint8 `(height, width, 3)`.
    """
    check_photograph(image)
    height, width = (-(-length // side) * side for length in image.shape[:2])
    padded, result = pad(image, height, width), np.empty((height, width), "float32")
    rows = columns = 1
    while (tall := tile_side(height, rows)) * (wide := tile_side(width, columns)) > tile**2:
        rows, columns = (rows + 1, columns) if tall > wide else (rows, columns + 1)
    for y in (*range(0, height - tall, tall - 2 * HALO or 8), height - tall):
        for x in (*range(0, width - wide, wide - 2 * HALO or 8), width - wide):
            top, left = HALO * (y > 0), HALO * (x > 0)
            seen = predict(model, padded[y : y + tall, x : x + wide])
            # The next tiles replace what is near the lower and the right edge of this one.
            result[y + top : y + tall, x + left : x + wide] = seen[top:, left:]
    return crop(result, *image.shape[:2])


def tile_side(length, count):
    """Side of each of `count` tiles along a side of the image, a multiple of 8 as are `length` and all steps."""
    return length if count == 1 else -(-(length - 2 * HALO) // count // 8) * 8 + 2 * HALO


def predict(model, image):
    """float32 `(height, width)` in [0, 1], of a uint8 image whose sides are multiples of 8."""
    with ONE_AT_A_TIME, full_float32():
        return np.asarray(model.predict_on_batch(image[None].astype("float32") / 255), "float32")[0, ..., 0]


def check_photograph(image):
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"a photograph must be uint8 (height, width, 3), RGB; got {image.dtype} {image.shape}")


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The probability map of a photograph, and how it was predicted.

    Attributes:
        probability: float32 `(height, width)` in [0, 1], 0 outside the field of view.
        fov: bool `(height, width)`, the field of view.
        diameter: Diameter of the field of view's circle in pixels, a float; None if no rim is visible.
        scale: Pixels of the network's input per pixel of the photograph, a float; the mean over all widths.
        confidence: `confidence` of the probabilities, a float in [0, 1]: at 0.5, by which the scale is chosen;
            `photographs.result_of` replaces it by that at the threshold.
    """

    probability: np.ndarray
    fov: np.ndarray
    diameter: float | None
    scale: float
    confidence: float


def predict_photograph(model, image, widths, fov=None, tta=False):
    """Vessels in an RGB photograph of any size, which is scaled to the size on which the network was trained.

    Args:
        model: The network.
        image: uint8 `(height, width, 3)`, RGB.
        widths: `Widths` to which the field of view is scaled; the result is the mean of the maps at all of them. If no
            rim is visible (nor one of `fov`), several sizes of the whole disc are tried, and the one with the highest
            confidence at 0.5 is used.
        fov: bool `(height, width)`, the field of view; by default, it is estimated.
        tta: Also average over the three mirror images, which takes four times as long.

    Returns:
        A `Prediction`.

    Raises:
        ValueError: `image` is not uint8 `(height, width, 3)`, or `fov` not bool `(height, width)`, or it is empty.
    """
    check_photograph(image)
    found_fov, diameter = field_of_view(image)
    if fov is None:
        fov = found_fov
    elif fov.dtype != bool or fov.shape != image.shape[:2] or not fov.any():
        raise ValueError(f"fov must be bool {image.shape[:2]} and not empty, got {fov.dtype} {fov.shape}")
    elif diameter is None:
        diameter = field_of_view(np.dstack([255 * fov.astype("uint8")] * 3))[1]
    tried = []
    # Without a visible rim, the photograph may show any part of the disc.
    for pixels in [diameter] if diameter else [max(image.shape[:2]) * factor for factor in NO_RIM]:
        scales = [wanted / pixels for wanted in widths.of(pixels)]
        mean = sum(predict_scaled(model, image, fov, scale, tta) for scale in scales) / len(scales)
        tried.append(Prediction(mean, fov, diameter, float(np.mean(scales)), confidence(mean)))
    return max(tried, key=lambda prediction: prediction.confidence)


def predict_map(model, widths, side, image, fov):
    """The map of a labelled photograph: float32 `(height, width)`.

    Without `widths`, the network was trained on unscaled images of this set (or synthetic ones of its size): the image
    is padded to `side` as in training. Otherwise it is scaled to the `widths` on which the network was trained.
    """
    if not widths:
        return predict_image(model, image, side)
    return predict_photograph(model, image, widths, fov=fov).probability


def predict_scaled(model, image, fov, scale, tta=False):
    """float32 `(height, width)` in [0, 1]: the map of `image`, predicted at `scale`; 0 outside `fov`."""
    x, y, width, height = cv2.boundingRect(fov.astype("uint8"))
    box = np.s_[y : y + height, x : x + width]
    scale = 1.0 if abs(scale - 1) < 0.02 else scale  # avoids an interpolation for a small change
    small = resize(image[box], max(round(width * scale), 1), max(round(height * scale), 1))
    # Replace any surround, lettering or frame outside the field of view by black, as in training.
    small[resize(fov[box].astype("uint8"), *small.shape[1::-1]) == 0] = 0
    padded = pad(small, small.shape[0] + 2 * MARGIN, small.shape[1] + 2 * MARGIN)
    see = functools.partial(predict_image, model, tile=TILE)
    averaged = average_flips(see, padded) if tta else see(padded)
    probability = np.zeros(fov.shape, "float32")
    probability[box] = resize(crop(averaged, *small.shape[:2]), width, height).clip(max=1)  # a mean may round to more
    return probability * fov


def average_flips(predict, *images):
    """Test-time augmentation: mean of the maps of a photograph and of its three mirror images, each flipped back.

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


def confidence(probability, threshold=0.5):
    """Dice coefficient to expect of a map at `threshold`, if its probabilities are right: float in [0, 1].

    2 * (sum of the probabilities >= threshold) / (their number + sum of all probabilities). It needs no label, and
    ranks the scales at which a photograph can be predicted.
    """
    over = probability[probability >= threshold]
    return float(2 * over.sum(dtype="float64") / max(over.size + probability.sum(dtype="float64"), 1e-9))


def resize(array, width, height):
    """`array`, `(rows, columns)` or `(rows, columns, channels)`, in another size, of the same dtype."""
    how = cv2.INTER_AREA if width < array.shape[1] else cv2.INTER_LINEAR
    return cv2.resize(array, (width, height), interpolation=how)
