"""Procedural fundus photographs with exact vessel labels, so that everything runs with no download.

Curved dark strokes on a shaded disc: scores on them show that the code works, and nothing more.
"""

import dataclasses

import cv2
import numpy as np

from vessels.data.examples import Example, Photograph, Source

COUNTS = {"train": 8, "validation": 2, "test": 4}


@dataclasses.dataclass(frozen=True)
class Drawn(Photograph):
    """A procedural photograph, which is drawn where others are read. `size`: height and width."""

    size: tuple[int, int]
    seed: tuple[int, ...]

    def load(self):
        return _example(self.name, self.size, np.random.default_rng(self.seed))


@dataclasses.dataclass(frozen=True)
class Procedural(Source):
    """Procedural photographs in place of those of another source, in its size."""

    like: Source

    name = "synthetic"

    def __getattr__(self, name):  # what is not about photographs: title, key, padded, widths, size
        return getattr(self.like, name)

    def eval_command(self, weights):
        return self.like.parts[0].eval_command(weights)

    def names(self, split):
        return tuple(photograph.name for photograph in self.photographs(split))

    def photographs(self, split):
        """8 for training, 2 for validation, 4 for testing, each with a second observer."""
        return [Drawn(f"synthetic_{part}_{i + 1:02d}", {}, self.like.size, (0, list(COUNTS).index(part), i))
                for part in split.split("+") for i in range(COUNTS[part])]


def make(source, split):
    """Procedural photographs in the size of a source: list of `Example`; see `Procedural`."""
    return Procedural(source).load(split)


def _example(name, size, rng):
    unit, radius = min(size) / 565, 0.478 * min(size)  # `unit` is a pixel of DRIVE
    y, x = np.mgrid[: size[0], : size[1]]
    distance = np.hypot(x - size[1] / 2, y - size[0] / 2) / radius
    fov = distance < 1
    strokes = _strokes(size, radius, unit, rng)
    vessels = _draw(size, strokes)
    # A second observer misses the finest vessels and draws the others a little beside the first one's.
    second = _draw(size, [(points + rng.normal(0, 0.7 * unit, 2), width) for points, width in strokes[:30]])
    # Red, green and blue of the retina, and the part of each that blood absorbs.
    colour, absorbed = rng.uniform((195, 100, 45), (235, 128, 70)), np.array((0.15, 0.4, 0.25))
    light = (1.1 - 0.5 * distance**2) * cv2.GaussianBlur(fov.astype("float32"), (0, 0), 0.7 * unit)
    blood = cv2.GaussianBlur(vessels, (0, 0), 0.8 * unit)[..., None]
    grain = cv2.GaussianBlur(rng.normal(0, 1, (*size, 3)), (0, 0), 0.6 * unit)
    image = colour * light[..., None] * (1 - absorbed * blood) + 6 * grain * (0.25 + fov[..., None])
    return Example(name, image.clip(0, 255).astype("uint8"), (vessels >= 0.5) & fov, fov, (second >= 0.5) & fov)


def _strokes(size, radius, unit, rng):
    """40 vessels, each a curve that begins on a wider one: list of `(points (n, 2), width)`, the widest first."""
    middle = np.array(size[::-1]) / 2
    starts, strokes = [middle], []
    for width in np.geomspace(7, 1.6, 40) * unit:
        headings = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(rng.normal(0, 0.02), 0.06, 60))
        steps = 4 * unit * np.column_stack([np.cos(headings), np.sin(headings)])
        steps[0] = starts[rng.integers(len(starts))]
        points = np.cumsum(steps, axis=0)
        points = points[np.hypot(*(points - middle).T) < radius]
        starts += list(points)
        strokes.append((points, width))
    return strokes


def _draw(size, strokes):
    """float32 `(height, width)` in [0, 1]: the part of each pixel that the strokes cover."""
    canvas = np.zeros((2 * size[0], 2 * size[1]), "uint8")  # drawn twice as large, for widths of half a pixel
    for points, width in strokes:
        cv2.polylines(canvas, [(32 * points).astype("int32")], False, 255, max(round(2 * width), 1), shift=4)
    return cv2.resize(canvas, size[::-1], interpolation=cv2.INTER_AREA).astype("float32") / 255
