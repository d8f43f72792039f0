"""Reasons to doubt a map: the photograph is unusual, or the network is not confident."""

import cv2
import numpy as np

from vessels.data.fov import above_surround

# The labels of DRIVE, CHASE DB1 and LES-AV cover .06 to .17 of the field of view.
DENSITY = 0.04, 0.22
# The general network's confidence is .68 to .84 on DRIVE, CHASE DB1, HRF, LES-AV and DR HAGIS, except
# for one: .56, the one with the lowest F1 of DR HAGIS. It was below .55 on negatives.
CONFIDENCE = 0.65


def doubts(image, prediction, mask):
    """Reasons not to trust a map: list of str, empty for a usual photograph.

    Args:
        image: uint8 `(height, width, 3)`, RGB.
        prediction: Its `maps.Prediction`.
        mask: bool `(height, width)`, its vessels.
    """
    step = max(max(mask.shape) // 512, 1)
    small, fov = (np.ascontiguousarray(array[::step, ::step]) for array in (image, prediction.fov))
    red, _, blue, _ = cv2.mean(small, fov.astype("uint8"))
    above = above_surround(cv2.GaussianBlur(small, (0, 0), 2).astype("float32"))
    bright = fov if above is None else above > 0.3 * np.percentile(above[above > 10], 75)
    density = mask.sum() / prediction.fov.sum()
    _, _, width, height = cv2.boundingRect(fov.astype("uint8"))
    without_rim = prediction.diameter is None
    reasons = {
        "the field of view is a small part of the photograph; crop it": without_rim and bright.mean() < 0.05,
        "no rim is visible, so the scale is a guess": without_rim,
        "more than one eye, or a part of one?": ((bright & ~fov).sum() > fov.sum() / 2
                                                 or max(width, height) > 1.7 * min(width, height)),
        "nearly black": np.percentile(small[fov].max(axis=1), 95) < 40,
        "bluer than a retina; are red and blue swapped, or is it a negative?": blue > 1.05 * red,
        f"vessel density {density:.3f} is implausible": not DENSITY[0] <= density <= DENSITY[1],
        f"confidence {prediction.confidence:.2f} is low; is it a colour photograph of a retina?":
            prediction.confidence < CONFIDENCE,
    }
    return [reason for reason, holds in reasons.items() if holds]
