"""The field of view: the disc in which a fundus photograph shows the retina."""

import cv2
import numpy as np


def estimate_fov(image):
    """Field of view of a fundus photograph: bool `(height, width)`, from uint8 `(height, width, 3)`, RGB.

    What stands out from the colour of the corners, its largest piece, convex: a disc that the frame may cut.
    A photograph without a surround is field of view all over.
    """
    height, width = image.shape[:2]
    scale = min(1, 1024 / max(height, width))
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), 1).astype("float32")
    everything = np.ones((height, width), bool)

    side = max(min(small.shape[:2]) // 50, 4)
    corners = np.stack([np.median(small[y, x], axis=(0, 1)) for y in (slice(side), slice(-side, None))
                        for x in (slice(side), slice(-side, None))])
    surround = np.median(corners, axis=0)
    above = np.maximum.reduce(cv2.split(np.abs(small - surround.astype("float32"))))
    standing = above[above > 10]
    if not standing.size:
        return everything
    bright = np.percentile(standing, 75)
    # A surround is grey, the same in at least three corners, and darker (or brighter) than the retina.
    value = (np.maximum.reduce(cv2.split(small)) - surround.max()) / max(bright, 1)
    if (np.ptp(surround) > 30 or np.sort(np.abs(corners - surround).max(axis=1))[2] > 0.25 * bright
            or min((value < -0.12).mean(), (value > 0.12).mean()) > 0.05):
        return everything

    # Nearly half of what is reached a few pixels further in: some rims are dark, others blurred.
    reach = max(small.shape[1] // 40, 3)
    nearby = cv2.dilate(above, np.ones((reach, reach), "uint8"))
    inside = ((above > 0.45 * nearby) & (above > 0.12 * bright)).astype("uint8")
    inside = cv2.morphologyEx(inside, cv2.MORPH_OPEN, np.ones((5, 5), "uint8"))
    _, pieces, stats, _ = cv2.connectedComponentsWithStats(inside)
    if len(stats) < 2 or stats[1:, cv2.CC_STAT_AREA].max() < 0.1 * inside.size:
        return everything
    largest = (pieces == 1 + stats[1:, cv2.CC_STAT_AREA].argmax()).astype("uint8")
    outline, _ = cv2.findContours(largest, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    hull = (cv2.convexHull(np.concatenate(outline)) + 0.5) / scale - 0.5
    canvas = np.zeros((height, width), "uint8")
    return cv2.fillConvexPoly(canvas, hull.round().astype("int32"), 1).astype(bool)
