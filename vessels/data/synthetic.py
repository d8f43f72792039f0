"""Procedural fundus photographs with exact vessel labels, so that everything runs with no download.

Forking dark strokes on a shaded disc: scores on them show that the code works, and nothing more.
"""

import dataclasses

import cv2
import numpy as np

from vessels.data.examples import Example, Photograph, Source

COUNTS = {"train": 8, "validation": 2, "test": 4}
FINE = 2  # vessels are drawn this many times larger, so that their edges are exact


@dataclasses.dataclass(frozen=True)
class Drawn(Photograph):
    """A procedural photograph, which is drawn where others are read. `size`: height and width."""

    size: tuple[int, int]
    seed: tuple[int, ...]

    def load(self):
        return _example(self.name, self.size, np.random.default_rng(self.seed))


@dataclasses.dataclass(frozen=True)
class Procedural(Source):
    """Procedural photographs in place of those of another source, in its size; `seed` gives others."""

    like: Source
    seed: int = 0

    name = "synthetic"

    def __getattr__(self, name):  # what is not about photographs: title, key, padded, widths, size
        return getattr(self.like, name)

    def eval_command(self, weights):
        return self.like.parts[0].eval_command(weights)

    def names(self, split):
        return tuple(photograph.name for photograph in self.photographs(split))

    def photographs(self, split):
        """8 for training, 2 for validation, 4 for testing, each with a second observer."""
        return [Drawn(f"synthetic_{part}_{i + 1:02d}", {}, self.like.size, (self.seed, list(COUNTS).index(part), i))
                for part in split.split("+") for i in range(COUNTS[part])]

    def pixels(self, split):
        return {}


def make(source, split, seed=0):
    """Procedural photographs in the size of a source: list of `Example`; see `Procedural`."""
    return Procedural(source, seed).load(split)


def _example(name, size, rng):
    height, width = size
    unit = min(size) / 565  # the lengths below are in pixels of DRIVE
    radius = 0.478 * min(size)
    centre = np.array([width / 2, height / 2]) + rng.normal(0, 2 * unit, 2)
    side = rng.choice([-1, 1])  # of the optic disc: left and right eyes
    disc = centre + np.array([0.65 * side, rng.uniform(-0.12, 0.05)]) * radius
    x, y = np.meshgrid(np.arange(width), np.arange(height))

    def spot(at, spread):
        return np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / (2 * spread**2))[..., None]

    fov = np.hypot(x - centre[0], y - centre[1]) < radius
    vessels = _grow(rng, unit, centre, radius, disc)
    label = (_draw(size, [(points, wide, 1) for points, wide in vessels]) >= 0.5) & fov
    # A second observer misses part of the finest vessels and draws the others a little wider or finer.
    second = [(points + rng.normal(0, 0.4 * unit, 2), wide * rng.uniform(0.85, 1.2), 1)
              for points, wide in vessels if wide > 2.5 * unit or rng.random() < 0.8]
    second = (_draw(size, second) >= 0.5) & fov
    # Wider vessels absorb more light.
    blood = _draw(size, [(points, wide, rng.uniform(0.4, 0.5) * (1 - np.exp(-0.4 * wide / unit)))
                         for points, wide in vessels])
    blood = cv2.GaussianBlur(blood, (0, 0), 0.8 * unit)[..., None]

    # Red, green and blue of the retina and the optic disc, and the light that blood absorbs.
    retina, pale, absorbed = rng.uniform((195, 100, 45), (235, 128, 70)), (290, 238, 155), (0.42, 1.0, 0.7)
    macula = disc - np.array([0.75 * side, -0.08]) * radius
    image = retina * (1 - 0.25 * spot(macula, 0.14 * radius))
    image += (pale - image) * np.minimum(1.6 * spot(disc, 0.09 * radius), 0.9)
    image *= spot(centre + rng.normal(0, 0.15, 2) * radius, 1.1 * radius) * (1 - np.array(absorbed) * blood)
    for scale, strength in ((60, 0.05), (12, 0.03)):
        clouds = cv2.resize(rng.normal(1, strength, (round(590 / scale), round(590 / scale))), (width, height),
                            interpolation=cv2.INTER_CUBIC)
        image *= clouds[..., None]
    image *= cv2.GaussianBlur(fov.astype("float32"), (0, 0), 0.7 * unit)[..., None]
    grain = cv2.GaussianBlur(rng.normal(0, 1, image.shape), (0, 0), 0.6 * unit)
    image += grain * (4, 5, 6) * (0.25 + fov[..., None])
    return Example(name, image.clip(0, 255).astype("uint8"), label, fov, second)


def _draw(size, strokes):
    """Draws strokes, each `(points, width, value)`, wide ones over fine ones: float32 `(height, width)`."""
    canvas = np.zeros((size[0] * FINE, size[1] * FINE), "float32")
    for points, wide, value in sorted(strokes, key=lambda stroke: stroke[1]):
        corners = ((points + 0.5) * FINE * 16).astype("int32")
        cv2.polylines(canvas, [corners], False, value, max(round(wide * FINE - 1), 1), cv2.LINE_8, 4)
    return cv2.resize(canvas, size[::-1], interpolation=cv2.INTER_AREA)


def _grow(rng, unit, centre, radius, disc):
    """Vessels from the disc, each a curve that ends in a fork or at the rim: list of `(points (n, 2), width)`."""
    step, vessels, tips = 4 * unit, [], []
    inwards = np.arctan2(*(centre - disc)[::-1])  # the wide vessels arch around the macula
    for angle, wide in ((1.2, 6.0), (1.45, 4.8), (2.2, 3.6), (2.5, 3.0)):
        for flank in (-1, 1):
            tips.append((disc, inwards + flank * (angle + rng.normal(0, 0.1)), wide * unit, -0.014 * flank))
    while tips:
        point, heading, wide, bend = tips.pop()
        points = [point]
        for _ in range(rng.integers(12, 38)):
            heading += rng.normal(bend, 0.05)
            point = point + step * np.array([np.cos(heading), np.sin(heading)])
            points.append(point)
        vessels.append((np.array(points), wide))
        if np.hypot(*(point - centre)) < radius and wide > max(1.8 * unit, 0.7):
            flank = rng.choice([-1, 1])
            tips.append((point, heading - 0.15 * flank, wide * 0.93, bend))
            tips.append((point, heading + flank * rng.uniform(0.6, 1.1), wide * rng.uniform(0.5, 0.7), 0))
    return vessels
