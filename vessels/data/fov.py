"""The field of view of a fundus photograph, and the diameter of the circle that it is a part of."""

import dataclasses
import math

import cv2
import numpy as np
from skimage.measure import CircleModel, ransac

ANGLES = 720


@dataclasses.dataclass(frozen=True)
class Widths:
    """The widths in pixels at which a network sees a field of view; its maps are averaged.

    Attributes:
        diameters: The smallest widths.
        own_width: Parts of the photograph's own width, one for each of `diameters`; where such a part is larger, it
            is used instead, so that large photographs are not reduced to a small fraction of their pixels.
        largest: No part of the own width is larger than this, which bounds the time; None for no limit.
    """

    diameters: tuple[float, ...]
    own_width: tuple[float, ...] = ()
    largest: float | None = None

    @classmethod
    def of_record(cls, record, diameter=None):
        """From the JSON beside weights; records without the last two fields have fixed widths. A `diameter` in pixels,
        if given, is the only width.
        """
        if diameter:
            return cls((diameter,))
        return cls(tuple(record["diameters"]), tuple(record.get("own_width", ())), record.get("largest"))

    def as_record(self):
        """The fields of the JSON beside weights: dict."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value}

    def of(self, diameter):
        """tuple of float: the widths for a photograph whose field of view is `diameter` pixels wide."""
        parts = self.own_width or [0] * len(self.diameters)
        return tuple(max(smallest, min(part * diameter, self.largest or math.inf))
                     for smallest, part in zip(self.diameters, parts, strict=True))


def field_of_view(image):
    """Finds the field of view of a fundus photograph, and the diameter of its circle.

    The field of view is the convex hull of the largest region that differs in colour from the image's corners,
    within the circle that fits its rim. The image's edges may cut it. Without a surround, it is the whole image.

    Args:
        image: uint8 `(height, width, 3)`, RGB.

    Returns:
        `(fov, diameter)`: bool `(height, width)`, and the diameter in pixels of the whole circle, even if the
        image's edges cut it on all sides: a float, or None if no rim is visible.
    """
    fov = np.zeros(image.shape[:2], bool)
    inside = within_frame(image)
    inner = image[inside]
    scale = min(1, 1024 / max(inner.shape[:2]))
    small = cv2.resize(inner, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), 1).astype("float32")
    above = above_surround(small)
    outline = None if above is None else disc_outline(above)
    if outline is None:
        return ~fov, None
    circle = rim_circle(above, outline)
    hull = (outline + 0.5) / scale - 0.5
    canvas = np.zeros(inner.shape[:2], "uint8")
    cv2.fillConvexPoly(canvas, hull.round().astype("int32"), 1)
    diameter = None
    if circle is not None:
        (x, y), radius = (circle[0] + 0.5) / scale - 0.5, circle[1] / scale
        disc = np.zeros_like(canvas)
        cv2.circle(disc, (round(16 * x), round(16 * y)), round(16 * 1.004 * radius), 1, cv2.FILLED, shift=4)
        if (disc & canvas).sum() < 0.98 * canvas.sum():  # old slides have scattered light around the disc
            canvas &= disc
        diameter = 2 * radius
    fov[inside] = canvas
    return fov, diameter


def within_frame(image):
    """`(rows, columns)`: slices that leave out lines at the image's sides that have one colour, not black."""
    box, before = [slice(0, side) for side in image.shape[:2]], None
    while box != before:  # a frame may enclose a surround, and a surround a frame
        before, inner = list(box), image[tuple(box)]
        for axis, lines in enumerate((cv2.transpose(inner), inner)):
            high, low = lines.max(axis=0), lines.min(axis=0)
            frame = ((high - low).max(axis=1) <= 24) & (high.max(axis=1) > 32)
            varied = np.flatnonzero(~frame)
            if varied.size > 0.1 * frame.size:
                box[axis] = slice(box[axis].start + varied[0], box[axis].start + varied[-1] + 1)
    return tuple(box)


def above_surround(small):
    """float32 `(height, width)`: how much each pixel differs from the surround; None if there is no surround."""
    side = max(min(small.shape[:2]) // 50, 4)
    corners = np.stack([np.median(small[y, x], axis=(0, 1)) for y in (slice(side), slice(-side, None))
                        for x in (slice(side), slice(-side, None))])
    surround = np.median(corners, axis=0)
    above = np.abs(small - surround).max(axis=2)
    standing = above[above > 10]
    if not standing.size:
        return None
    bright = np.percentile(standing, 75)
    # A surround is grey, the same in at least three corners, and darker (or brighter) than the retina.
    value = (small.max(axis=2) - surround.max()) / max(bright, 1)
    if (np.ptp(surround) > 30 or np.sort(np.abs(corners - surround).max(axis=1))[2] > 0.25 * bright
            or min((value < -0.12).mean(), (value > 0.12).mean()) > 0.05):
        return None
    return above


def disc_outline(above):
    """float32 `(points, 1, 2)`, x and y: convex hull of the largest region that differs from the surround, or None."""
    bright = np.percentile(above[above > 10], 75)
    # The threshold depends on the brightness a few pixels further inside: some rims are dark, others blurred.
    reach = max(above.shape[1] // 40, 3)
    nearby = cv2.dilate(above, np.ones((reach, reach), "uint8"))
    inside = ((above > 0.45 * nearby) & (above > 0.12 * bright)).astype("uint8")
    inside = cv2.morphologyEx(inside, cv2.MORPH_OPEN, np.ones((5, 5), "uint8"))
    outlines, _ = cv2.findContours(inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    largest = max(outlines, key=cv2.contourArea, default=None)
    if largest is None or cv2.contourArea(largest) < 0.03 * inside.size:
        return None
    return cv2.convexHull(largest).astype("float32")


def rim_circle(above, outline):
    """`(centre, radius)` of the circle outside of which the photograph becomes dark, or None if there is none.

    Finds the steepest fall of brightness along each ray from the middle of `outline`, and fits a circle to these
    points. RANSAC ignores points that lettering, notches, bright lesions or scattered light put in a wrong place.
    """
    (x, y), reach = cv2.minEnclosingCircle(outline)
    far = int(1.15 * reach)
    rays = cv2.warpPolar(above, (far, ANGLES), (x, y), far, cv2.WARP_POLAR_LINEAR | cv2.WARP_FILL_OUTLIERS)
    angles = np.arange(ANGLES) * 2 * np.pi / ANGLES
    directions = np.column_stack([np.cos(angles), np.sin(angles)])
    # Where a ray leaves the photograph, the brightness falls without any rim.
    limit = np.array([above.shape[1] - 1, above.shape[0] - 1])
    with np.errstate(divide="ignore"):
        ends = np.where(directions > 0, (limit - (x, y)) / directions, -np.array([x, y]) / directions).min(axis=1)
    width = max(far // 100, 2)
    total = np.cumsum(np.pad(rays, ((0, 0), (1, 0))), axis=1)
    mean = (total[:, width:] - total[:, :-width]) / width  # over `width` pixels from each position on
    floor = 0.03 * np.percentile(above, 90) + 2
    fall = (mean[:, : -width - 1] + floor) / (mean[:, width + 1 :] + floor)
    radii = np.arange(fall.shape[1]) + width
    fall[(radii < 0.4 * reach) | (radii > ends[:, None] - width - 1)] = 0
    steepest = fall.argmax(axis=1)
    steep = fall[np.arange(ANGLES), steepest] > 1.4
    if steep.sum() < ANGLES / 24:
        return None
    points = np.array([x, y]) + directions[steep] * radii[steepest[steep], None]
    model, inliers = ransac(points, CircleModel, min_samples=3, residual_threshold=max(0.006 * reach, 1),
                            max_trials=300, rng=0)
    if not model or inliers.sum() < max(0.5 * steep.sum(), ANGLES / 24):
        return None
    centre, radius = np.asarray(model.center), float(model.radius)
    sectors = len(np.unique(angles[steep][inliers] // (np.pi / 6)))
    beyond = np.linalg.norm(outline[:, 0] - centre, axis=1) > 1.05 * radius
    # A few short arcs may fit a wrong circle. The right one encloses the whole outline.
    if sectors < 3 or (sectors < 8 and beyond.any()) or not 0.3 * reach < radius < 2 * reach:
        return None
    return centre, radius
