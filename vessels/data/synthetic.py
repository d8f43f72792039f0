"""Procedural fundus photographs with exact vessel labels, so that everything runs with no download.

They only look like fundus photographs: scores on them show that the code works, and nothing more.
"""

import dataclasses
import heapq
import itertools
import math

import cv2
import numpy as np
from scipy.special import expit

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
    side = rng.choice([-1, 1])  # side of the optic disc: left and right eyes
    disc = centre + np.array([side * rng.uniform(0.62, 0.72), rng.uniform(-0.12, 0.05)]) * radius
    macula = disc + np.array([-side * rng.uniform(0.7, 0.78), rng.uniform(0.05, 0.12)]) * radius

    branches = _grow(rng, unit, centre, radius, disc, macula, side)
    x, y = np.meshgrid(np.arange(width, dtype="float32"), np.arange(height, dtype="float32"))
    fov = np.hypot(x - centre[0], y - centre[1]) < radius
    label = (_draw(size, [(points, radii, 1) for points, radii, _ in branches]) >= 0.5) & fov
    # A second observer misses part of the finest vessels and draws the others a little wider or finer.
    second = [(points + rng.normal(0, 0.4 * unit, 2), np.multiply(radii, rng.uniform(0.85, 1.2)), 1)
              for points, radii, _ in branches if max(radii) > 1.1 * unit or rng.random() < 0.7]
    second = (_draw(size, second) >= 0.5) & fov
    depth = _blood(rng, size, unit, branches)
    image = _tissue(rng, unit, x, y, centre, radius, disc, macula, depth)
    aperture = cv2.GaussianBlur(fov.astype("float32"), (0, 0), 0.7 * unit)
    image *= aperture[..., None]
    grain = cv2.GaussianBlur(rng.normal(0, 1, image.shape).astype("float32"), (0, 0), 0.6 * unit)
    image += grain * np.array([4.0, 5.0, 6.0]) * (0.25 + fov[..., None])
    return Example(name, image.clip(0, 255).astype("uint8"), label, fov, second)


def _draw(size, strokes):
    """Draws strokes, each `(points, radii, value)`, wide ones over fine ones: float32 `(height, width)`."""
    height, width = size
    canvas = np.zeros((height * FINE, width * FINE), "float32")
    segments = [(r, p, q, value) for points, radii, value in strokes
                for p, q, r in zip(points, points[1:], radii, strict=False)]
    for r, p, q, value in sorted(segments, key=lambda segment: segment[0]):
        p, q = (tuple(int((c + 0.5) * FINE * 16) for c in end) for end in (p, q))
        cv2.line(canvas, p, q, value, max(round(2 * r * FINE - 1), 1), cv2.LINE_8, 4)
    return cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)


def _blood(rng, size, unit, branches):
    """How much green light the vessels absorb: float32 `(height, width)`.

    Wider vessels and veins absorb more; vessels, above all arteries, have a bright reflex along their middle.
    """
    strength = {vein: rng.uniform(0.85, 1.1) * (0.5 if vein else 0.36) for vein in (False, True)}
    depth = _draw(size, [(points, radii, strength[vein] * (1 - math.exp(-0.75 * np.mean(radii) / unit)))
                         for points, radii, vein in branches])
    reflex = _draw(size, [(points, np.multiply(radii, 0.3), 0.3 if vein else 1)
                          for points, radii, vein in branches if np.mean(radii) > 1.7 * unit])
    blur = rng.uniform(0.7, 1.0) * unit
    return cv2.GaussianBlur(depth * (1 - 0.45 * reflex), (0, 0), blur)


def _tissue(rng, unit, x, y, centre, radius, disc, macula, depth):
    """Light from the retina, the optic disc and the fovea, minus what blood absorbs: float `(height, width, 3)`."""
    height, width = depth.shape

    def clouds(scale):
        coarse = rng.normal(0, 1, (max(int(height / unit / scale), 4), max(int(width / unit / scale), 4)))
        return cv2.resize(coarse.astype("float32"), (width, height), interpolation=cv2.INTER_CUBIC)

    def spot(at, spread):
        return np.exp(-(((x - at[0]) / spread) ** 2 + ((y - at[1]) / spread) ** 2) / 2)

    disc_radius = 0.135 * radius
    distance = np.hypot((x - disc[0]) * 1.1, y - disc[1]) / disc_radius + 0.04 * clouds(30)
    rim = expit((1 - distance) * 14)
    cup = expit((rng.uniform(0.35, 0.5) - distance) * 9)
    texture = 0.035 * clouds(60) + 0.022 * clouds(18) + 0.014 * clouds(7)
    light = spot(centre + rng.normal(0, 0.2, 2) * radius, 1.15 * radius) * (1 + 0.06 * clouds(200))
    light *= 1 - 0.35 * (np.hypot(x - centre[0], y - centre[1]) / radius).clip(0, 1) ** 6
    fovea = spot(macula, 0.16 * radius) + 0.6 * spot(macula, 0.05 * radius)

    tint = np.array([rng.uniform(195, 235), rng.uniform(100, 128), rng.uniform(45, 70)])
    channels = []
    # For red, green and blue: colour of the disc, darkness of the fovea, absorption by blood.
    per_channel = (290, 238, 155), (0.10, 0.22, 0.25), (0.42, 1.0, 0.7)
    for base, pale, dark, absorbed in zip(tint, *per_channel, strict=True):
        tissue = base * (1 + texture * (1 + absorbed)) * (1 - dark * fovea)
        tissue += (pale - tissue) * (0.8 * rim + 0.2 * cup * rim)
        channels.append(tissue * light * (1 - absorbed * depth))
    return np.stack(channels, axis=2)


def _grow(rng, unit, centre, radius, disc, macula, side):
    """Two trees, arteries and veins, from the disc: list of `(points (n, 2), radii, is a vein)`.

    The widest tip grows first. It changes direction at random, tapers and forms side branches, whose cubed radii
    add up (Murray's law). It ends at the rim, near the fovea, when too fine, or before a vessel of its own kind.
    """
    tree = _Tree(rng, unit, centre, radius, disc, macula, side)
    branches = []
    while tree.tips:
        points, radii, vein = tree.branch()
        if len(points) > 4:
            branches.append((np.array(points), radii, vein))
    return branches


class _Tree:
    """Vessel trees while they grow: `tips` may still grow, the widest first."""

    def __init__(self, rng, unit, centre, radius, disc, macula, side):
        self.rng, self.unit, self.centre, self.radius = rng, unit, centre, radius
        self.disc, self.macula, self.side = disc, macula, side
        self.taken = {False: {}, True: {}}  # the branch in each cell of a grid, for arteries and for veins
        self.order = itertools.count()
        self.tips, self.reach, self.spread = [], {}, {}
        for vein in (False, True):
            for vertical in (-1, 1):
                self.reach[vertical, vein] = rng.uniform(0.5, 0.68)
                self.spread[vertical, vein] = rng.uniform(0.05, 0.5)
                for temporal in (True, False):
                    angle = rng.uniform(68, 84) if temporal else rng.uniform(105, 140)
                    angle = math.radians(angle + (9 if vein else -5))
                    heading = math.atan2(vertical * math.sin(angle), -side * math.cos(angle))
                    start = disc + rng.normal(0, 2.5 * unit, 2)
                    width = (3.6 if vein else 2.8) * (1 if temporal else 0.6) * rng.uniform(0.9, 1.08) * unit
                    self.add(width, *start, heading, vein, vertical if temporal else 0, -1)

    def add(self, width, *tip):
        heapq.heappush(self.tips, (-width, next(self.order), *tip))

    def branch(self):
        """Grows the widest tip to its end: `(points, radii, is a vein)`."""
        rng, unit, radius, side = self.rng, self.unit, self.radius, self.side
        step = 2.5 * unit
        width, identity, px, py, heading, vein, arcade, parent = heapq.heappop(self.tips)
        width, points, radii, course, wander = -width, [(px, py)], [-width], heading, 0.0
        since, flank, spacing = 0.0, rng.choice([-1, 1]), rng.uniform(10, 44) * unit
        finest = max(rng.uniform(0.5, 0.68) * unit, 0.18)
        while width > finest:
            wander = 0.8 * wander + rng.normal(0, 0.018 + 0.022 * (width < 1.6 * unit))
            mx, my = px - self.macula[0], py - self.macula[1]
            off = math.hypot(mx, my) / radius
            # Wide temporal vessels arch around the macula until they are well past it.
            if arcade and side * mx > -self.spread[arcade, vein] * radius:
                course = math.atan2(my, mx) + arcade * side * (math.pi / 2 + off - self.reach[arcade, vein])
            heading += wander + (0.09 if arcade else 0.05) * math.sin(course - heading)
            px, py = px + step * math.cos(heading), py + step * math.sin(heading)
            if math.hypot(px - self.centre[0], py - self.centre[1]) > radius + 4 * unit or off < 0.1:
                break
            near = math.hypot(px - self.disc[0], py - self.disc[1]) < 0.17 * radius
            if self.meets(px, py, heading, vein, {identity, parent}) and not (near or arcade):
                break
            self.taken[vein][self.cell(px, py)] = identity
            width *= 0.9985
            since += step
            points.append((px, py))
            radii.append(width)
            if since > spacing and not near:
                share = rng.uniform(0.05, 0.28) if arcade else rng.uniform(0.12, 0.5)
                child, width = width * share ** (1 / 3), width * (1 - share) ** (1 / 3)
                turn = flank * math.radians(rng.uniform(40, 75) * (1.1 - share))
                self.add(child, px, py, heading + turn, vein, 0, identity)
                course = heading - turn * share
                since, flank = 0.0, -flank if rng.random() < 0.75 else flank
                spacing = rng.uniform(24, 68) * unit
        return points, radii, vein

    def cell(self, px, py):
        return int(px / (4 * self.unit)), int(py / (4 * self.unit))

    def meets(self, px, py, heading, vein, own):
        """Whether a branch of the same kind, other than `own`, is close ahead."""
        ahead = (self.cell(px + k * math.cos(heading), py + k * math.sin(heading))
                 for k in (2.5 * self.unit, 5 * self.unit, 7.5 * self.unit))
        return any(self.taken[vein].get(place) not in {None, *own} for place in ahead)
