"""Measures of a vessel map: density, length, width, branching, tortuosity, fractal dimension.

The vessels' centrelines are Lee's skeleton (Lee, Kashyap and Chu 1994), because Zhang's loses lines at 45 degrees.
A branch is the part of a skeleton between two branch points or ends. An end branch that extends beyond the edge of
its vessel by less than that vessel's radius is roughness and is left out, as are blobs less than twice as long as wide.

- `density`: vessel pixels / pixels of the field of view (Chu et al. 2016, vessel area density).
- `length_density`: length of the centrelines, smoothed and extended to the vessels' tips, times `diameter` /
  area of the field of view (Chu et al. 2016, vessel skeleton density, but independent of the pixel size).
- `width_px`, `width_permille`: area of the vessels / length of their centrelines (Chu et al. 2016, vessel
  diameter index). For lines drawn 2 to 20 pixels wide at any angle, within 2 % of drawn area / length.
- `widest_px`, `widest_permille`: the same for the widest branches that make up a tenth of the length. Each pixel
  belongs to the nearest branch. Vessels that touch side by side count as one.
- `branch_points`: where three or more branches meet. Two that are closer than the sum of their vessels' radii count
  once. A crossing at a right angle is one point; at a sharp angle it is two, as both vessels share a section.
- `ends`: ends of branches, those at the rim of the field of view included.
- `tortuosity`: arc / chord (Lotmar, Freiburghaus and Bracher 1979; Hart et al. 1999) of the branches whose arc and
  chord are longer than their width: the mean weighted by the chords, so that a branch that nearly closes does not
  decide it. A skeleton ends about half a width before its vessel's tip, so the value of a half circle of radius r and
  width w is too low by about w / (pi r).
- `fractal_dimension`: slope of log(number of boxes with vessel) over -log(side), for sides of 1/64, 1/32, 1/16 and
  1/8 of `diameter`, each with the grid that needs the fewest boxes (box counting on the vessels' area; Mainster 1990).

At double size, a map gives the same values within 5 %, except for the two counts, which change by a tenth. At half
size, the same holds if the finest vessels remain two pixels wide, but the two counts are not comparable. Finer vessels
break: DRIVE's labels (down to one pixel wide) lose a quarter of their length, and their mean width grows.

The measures of a photograph depend on its size through the network, too. With predict.py, six photographs at double
size give the same within 6 % (branch points 13 %, ends 26 %). At half size, those with a field of view that is then 720
pixels wide (LES-AV) do within 4 %, 460 wide (CHASE DB1) within 10 %, and 270 wide (DRIVE) within 24 %; the counts
change by up to 32 %. predict.py measures fields wider than 1,500 pixels at that width or, if that is more, 1.4 times as
wide as the network saw them on average: its maps hold no finer detail.

Bennett, Rudnicka, Edgar 1994: Improvements on Littmann's method of determining the size of retinal features by fundus
photography. Chu et al. 2016: Quantitative assessment of the retinal microvasculature using optical coherence
tomography angiography. Hart et al. 1999: Measurement and classification of retinal vascular tortuosity. Lee, Kashyap,
Chu 1994: Building skeleton models via 3-D medial surface/axis thinning algorithms. Lotmar, Freiburghaus, Bracher 1979:
Measurement of vessel tortuosity on fundus photographs. Mainster 1990: The fractal properties of retinal vessels.
"""

import dataclasses
import itertools

import cv2
import numpy as np
from scipy import sparse
from skimage.graph import pixel_graph
from skimage.measure import block_reduce
from skimage.morphology import skeletonize

# What `measure` returns, in this order, and the unit of each. The last three need `microns_per_pixel`.
UNITS = {
    "density": "share of the field of view",
    "length_density": "1 / diameter of the field",
    "width_px": "pixels",
    "width_permille": "thousandths of the field's diameter",
    "widest_px": "pixels",
    "widest_permille": "thousandths of the field's diameter",
    "branch_points": "count",
    "ends": "count",
    "tortuosity": "ratio",
    "fractal_dimension": "1",
    "length_density_mm": "mm / mm2",
    "width_um": "micrometres",
    "widest_um": "micrometres",
}
CELLS = 256  # cells of the box-counting grid along the field's diameter
BOXES = (4, 8, 16, 32)  # sides of the boxes in cells: 1/64 to 1/8 of the diameter


def measure(mask, fov, diameter=None, microns_per_pixel=None):
    """Measures the vessels of one photograph, as the module's docstring defines.

    Args:
        mask: bool `(height, width)`, the vessels; pixels outside `fov` do not count.
        fov: bool `(height, width)`, the field of view.
        diameter: Diameter of the field's circle in pixels; by default, the longer side of the box around `fov`.
        microns_per_pixel: Micrometres of retina per pixel, see the function of this name; adds `length_density_mm`
            (centreline length / area of the field), `width_um` and `widest_um`.

    Returns:
        dict with the keys of `UNITS`, in that order (the last three only with `microns_per_pixel`): int for the
        counts, else float. Without a vessel, densities and counts are 0 and all others NaN.

    Raises:
        ValueError: `mask` and `fov` differ in shape, or the field of view is empty.
    """
    if mask.shape != fov.shape or not fov.any():
        raise ValueError(f"the field of view is empty, or its shape {fov.shape} is not the mask's, {mask.shape}")
    x, y, width, height = cv2.boundingRect(fov.astype("uint8"))
    diameter, field = diameter or float(max(width, height)), fov.sum()
    mask = np.pad((mask & fov)[y : y + height, x : x + width], 1)
    skeleton = _skeleton(mask, max(round(diameter / 180), 3))
    length = skeleton.length + skeleton.tips.sum(axis=1)
    area = _areas(skeleton, mask)
    widths = area / length
    width, widest = (area.sum() / length.sum(), _widest(widths, length)) if length.size else (np.nan, np.nan)
    measured = {
        "density": mask.sum() / field,
        "length_density": length.sum() * diameter / field,
        "width_px": width,
        "width_permille": 1000 * width / diameter,
        "widest_px": widest,
        "widest_permille": 1000 * widest / diameter,
        "branch_points": _branch_points(skeleton),
        "ends": int((skeleton.degree == 1).sum()),
        "tortuosity": _tortuosity(skeleton, widths),
        "fractal_dimension": _fractal_dimension(mask, diameter),
    }
    if microns_per_pixel:
        measured["length_density_mm"] = 1000 * length.sum() / field / microns_per_pixel
        measured.update({f"{name}_um": measured[f"{name}_px"] * microns_per_pixel for name in ("width", "widest")})
    return {name: value if isinstance(value, int) else float(value) for name, value in measured.items()}


def _tortuosity(skeleton, widths):
    chord = np.hypot(*(skeleton.pixels[skeleton.ends[:, 0]] - skeleton.pixels[skeleton.ends[:, 1]]).T)
    long = np.minimum(skeleton.length, chord) > widths
    return skeleton.length[long].sum() / chord[long].sum() if long.any() else np.nan


def microns_per_pixel(degrees, diameter):
    """Estimates the micrometres of retina per pixel, a float, from the camera's angle of view.

    The formula is 1000 * degrees * 0.01306 * (length of the eye - 1.82) / diameter (method a of Bennett, Rudnicka and
    Edgar 1994). 0.01306 is pi / 180 divided by the refractive index 1.336. 1.82 mm is the distance from the front of
    the eye to its second principal point. 24 mm are assumed, as in adults; each further millimetre adds 4.5 %. The
    estimate holds in the middle of the photograph.

    Args:
        degrees: Angle of view across the whole circle of the field, as the camera's maker states it.
        diameter: Diameter of that circle in pixels.
    """
    return 1000 * degrees * 0.01306 * (24 - 1.82) / diameter


@dataclasses.dataclass(frozen=True)
class _Skeleton:
    """Centrelines. A branch is a path along pixels; a branch point belongs to all branches that start there."""

    pixels: np.ndarray  # (pixels, 2): row and column
    radius: np.ndarray  # (pixels,): distance to the background
    degree: np.ndarray  # (pixels,): how many neighbours it is joined to
    path: np.ndarray  # (steps,): pixels of one branch after the other
    branch: np.ndarray  # (steps,): index of the branch of each pixel in `path`
    ends: np.ndarray  # (branches, 2): first and last pixel of each branch
    length: np.ndarray  # (branches,)

    @property
    def tips(self):
        """(branches, 2): how far the vessel extends beyond its skeleton at both ends."""
        return np.where(self.degree[self.ends] == 1, self.radius[self.ends] - 0.5, 0)


def _skeleton(mask, smoothed):
    """`_Skeleton` of a mask whose border is empty; without spurs and blobs."""
    radius = cv2.distanceTransform(mask.astype("uint8"), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    lines = skeletonize(mask, method="lee")
    while True:
        skeleton = _trace(lines, radius, smoothed)
        free, reach = skeleton.degree[skeleton.ends] == 1, skeleton.radius[skeleton.ends]
        base = np.where(free, 0, reach).sum(axis=1)
        spur = (free.sum(axis=1) == 1) & (skeleton.length + reach.sum(axis=1) - base < 2 * base)
        widest = np.zeros(len(free))
        np.maximum.at(widest, skeleton.branch, 2 * skeleton.radius[skeleton.path])
        blob = free.all(axis=1) & (skeleton.length < widest)
        gone = (spur | blob)[skeleton.branch] & (skeleton.degree[skeleton.path] <= 2)
        if not gone.any():
            return skeleton
        lines[tuple(skeleton.pixels[skeleton.path[gone]].T)] = False


def _trace(lines, radius, smoothed):
    """Follows each branch of a skeleton, bool `(height, width)`: `_Skeleton`."""
    graph, places = pixel_graph(lines, connectivity=2)
    straight = graph == 1
    # Diagonal neighbours are joined unless a pixel beside them joins both.
    graph = graph > graph.multiply(straight @ straight)
    neighbours = graph.indices.tolist()
    joined = [neighbours[begin:end] for begin, end in itertools.pairwise(graph.indptr.tolist())]
    degree = np.diff(graph.indptr)
    passed, branches = (degree == 2).tolist(), []
    for start in np.argsort(passed, kind="stable").tolist():  # only a ring without branch points begins at degree 2
        while joined[start]:
            path = [start]
            while joined[path[-1]] and (len(path) == 1 or passed[path[-1]]):
                path.append(joined[path[-1]].pop())
                joined[path[-1]].remove(path[-2])
            branches.append(path)
    steps = np.array([len(path) for path in branches], int)
    path, branch = np.fromiter(itertools.chain(*branches), int), np.repeat(np.arange(len(steps)), steps)
    last = np.cumsum(steps) - 1
    first = last - steps + 1
    pixels = np.transpose(np.unravel_index(places, lines.shape))
    length = _lengths(pixels[path], branch, first, last, smoothed)
    return _Skeleton(pixels, radius[lines], degree, path, branch, np.stack([path[first], path[last]], axis=1), length)


def _lengths(points, branch, first, last, smoothed):
    """Length of each branch along the moving mean of its pixels; a path from pixel to pixel would be too long."""
    here = np.arange(len(points))
    # Shorter near the ends, so that these stay in place.
    reach = np.minimum(np.minimum(here - first[branch], last[branch] - here), smoothed)
    total = np.concatenate([np.zeros((1, 2)), np.cumsum(points, axis=0)])
    smooth = (total[here + reach + 1] - total[here - reach]) / (2 * reach + 1)[:, None]
    step = np.hypot(*np.diff(smooth, axis=0, prepend=smooth[:1]).T)
    step[first] = 0
    return np.bincount(branch, step)


def _areas(skeleton, mask):
    """Number of mask pixels nearest to each branch: float `(branches,)`. Blobs without a branch are left out."""
    if not skeleton.path.size:
        return np.zeros(0)
    lines = np.zeros(mask.shape, bool)
    lines[tuple(skeleton.pixels[skeleton.path].T)] = True
    _, nearest = cv2.distanceTransformWithLabels((~lines).astype("uint8"), cv2.DIST_L2, cv2.DIST_MASK_5,
                                                 labelType=cv2.DIST_LABEL_PIXEL)
    _, blobs = cv2.connectedComponents(mask.astype("uint8"))
    held = np.zeros(blobs.max() + 1, bool)
    held[blobs[lines]] = True
    area = np.bincount(nearest[held[blobs]], minlength=nearest.max() + 1)
    place = nearest[tuple(skeleton.pixels[skeleton.path].T)]
    shared = np.bincount(place, minlength=len(area))
    return np.bincount(skeleton.branch, area[place] / shared[place])


def _widest(widths, length):
    order = np.argsort(-widths)
    before = np.cumsum(length[order]) - length[order]
    share = np.clip(length.sum() / 10 - before, 0, length[order])
    return np.average(widths[order], weights=share)


def _branch_points(skeleton):
    meets = skeleton.degree > 2
    near = meets[skeleton.ends].all(axis=1) & (skeleton.length <= skeleton.radius[skeleton.ends].sum(axis=1))
    graph = sparse.coo_array((np.ones(near.sum()), skeleton.ends[near].T), shape=(len(meets), len(meets)))
    return len(np.unique(sparse.csgraph.connected_components(graph, directed=False)[1][meets]))


def _fractal_dimension(mask, diameter):
    if not mask.any():
        return np.nan
    pixels = np.argwhere(mask)
    cells = ((pixels - pixels.min(axis=0)) * (CELLS / diameter)).astype(int)
    grid = np.zeros(cells.max(axis=0) + 1, bool)
    grid[tuple(cells.T)] = True
    fewest = [min(block_reduce(np.pad(grid, ((down, 0), (right, 0))), side, np.max).sum()
                  for down in range(0, side, side // 4) for right in range(0, side, side // 4)) for side in BOXES]
    return -np.polyfit(np.log(BOXES), np.log(fewest), 1)[0]
