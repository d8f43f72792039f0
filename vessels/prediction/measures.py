"""What people measure in a map of vessels: density, length, width, branching, tortuosity, fractal dimension.

The vessels' centre lines are Lee's skeleton (Lee, Kashyap and Chu 1994), since Zhang's loses lines at 45 degrees.
Branches of it run between branch points and ends. An end branch that sticks out of the vessel it sits on by less
than that vessel's radius is roughness of the edge and left out; so are blobs, less than twice as long as wide.

- `density`: vessel pixels / pixels of the field of view (Chu et al. 2016, vessel area density).
- `length_density`: length of the centre lines, smoothed and drawn out to the vessels' tips, times `diameter` /
  area of the field (Chu et al. 2016, vessel skeleton density, without its dependence on pixels).
- `width_px`, `width_permille`: area of the vessels / length of their centre lines (Chu et al. 2016, vessel
  diameter index). On lines of 2 to 20 pixels, at any angle, within 2 % of their drawn area by length.
- `widest_px`, `widest_permille`: the same of the widest branches, as many as make up a tenth of the length; each
  has the pixels that are nearer to it than to others. Vessels that touch side by side count as one.
- `branch_points`: where three or more branches meet. Those nearer to each other than their vessels' radii reach
  count once, so a crossing at a right angle is one, at a sharp angle two: where both vessels run as one.
- `ends`: ends of branches, those at the rim of the field of view included.
- `tortuosity`: mean of arc / chord (Lotmar, Freiburghaus and Bracher 1979; Hart et al. 1999) over the branches
  whose arc and chord are longer than their width. A skeleton ends about half a width before its vessel's tip, so
  a half circle of radius r and width w reads low, by about w / (pi r).
- `fractal_dimension`: slope of log(boxes that hold vessel) over -log(side), sides of 1/64, 1/32, 1/16 and 1/8 of
  `diameter`, for each the grid that needs the fewest (box counting of the vessels' area; Mainster 1990).

The same map at double size, or at half where the finest vessels keep two pixels, gives all but the two counts
within 5 %. Finer vessels break when they are halved: DRIVE's labels (one pixel) lose a quarter of their length,
and with it gain width. Branch points and ends change by a tenth at double size; halved, neither holds.

Bennett, Rudnicka, Edgar 1994: Improvements on Littmann's method of determining the size of retinal features by fundus
photography. Chu et al. 2016: Quantitative assessment of the retinal microvasculature using optical coherence
tomography angiography. Hart et al. 1999: Measurement and classification of retinal vascular tortuosity. Lee, Kashyap,
Chu 1994: Building skeleton models via 3-D medial surface/axis thinning algorithms. Lotmar, Freiburghaus, Bracher 1979:
Measurement of vessel tortuosity on fundus photographs. Mainster 1990: The fractal properties of retinal vessels.
"""

import dataclasses

import cv2
import numpy as np
from scipy import sparse
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
CELLS = 256  # of the grid that boxes are made of, along the field's diameter
BOXES = (4, 8, 16, 32)  # their sides in cells: 1/64 to 1/8 of the diameter


def measure(mask, fov, diameter=None, microns_per_pixel=None):
    """Measures the vessels of one photograph; the module says how.

    Args:
        mask: bool `(height, width)`, the vessels; what is outside `fov` does not count.
        fov: bool `(height, width)`, the field of view.
        diameter: Of the field's circle, in pixels; without it, the longer side of the box around `fov`.
        microns_per_pixel: Of the retina, see `microns_per_pixel`; adds `length_density_mm` (skeleton length / area of
            the field), `width_um` and `widest_um`.

    Returns:
        dict with the keys of `UNITS`, in that order: int for the counts, else float; NaN where there is no vessel.

    Raises:
        ValueError: `mask` and `fov` differ in shape, or the field of view is empty.
    """
    if mask.shape != fov.shape or not fov.any():
        raise ValueError(f"a field of view of the mask's shape {mask.shape} is needed, not empty; it has {fov.shape}")
    rows, columns = np.flatnonzero(fov.any(axis=1)), np.flatnonzero(fov.any(axis=0))
    diameter = diameter or float(max(np.ptp(rows), np.ptp(columns)) + 1)
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    field = int(fov.sum())
    mask = np.pad((mask & fov)[box], 1)
    skeleton = _skeleton(mask, max(round(diameter / 180), 3))
    length = skeleton.length + skeleton.tips.sum(axis=1)
    area = _areas(skeleton, mask)
    widths = area / length
    width, widest = (area.sum() / length.sum(), _widest(widths, length)) if length.size else (np.nan, np.nan)
    found = {
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
        found["length_density_mm"] = 1000 * length.sum() / field / microns_per_pixel
        found.update({f"{name}_um": found[f"{name}_px"] * microns_per_pixel for name in ("width", "widest")})
    return {name: value if isinstance(value, int) else float(value) for name, value in found.items()}


def _tortuosity(skeleton, widths):
    chord = np.hypot(*(skeleton.pixels[skeleton.ends[:, 0]] - skeleton.pixels[skeleton.ends[:, 1]]).T)
    long = np.minimum(skeleton.length, chord) > widths
    return (skeleton.length[long] / chord[long]).mean() if long.any() else np.nan


def microns_per_pixel(degrees, diameter, axial_length=24.0):
    """Micrometres of retina for each pixel, a float, from the camera's angle: an estimate.

    1000 degrees 0.01306 (axial_length - 1.82) / diameter: 0.01306 mm for each degree and millimetre is pi / 180 by the
    refractive index 1.336, and 1.82 mm lie before the eye's second principal point (Bennett, Rudnicka and Edgar 1994,
    their method a). It holds at the middle of the photograph.

    Args:
        degrees: Angle of view across the whole circle of the field, as the camera's maker states it.
        diameter: Of that circle, in pixels.
        axial_length: Of the eye, in mm. 24 is an assumption, an adult's; each millimetre more makes 4.5 % more.
    """
    return 1000 * degrees * 0.01306 * (axial_length - 1.82) / diameter


@dataclasses.dataclass(frozen=True)
class _Skeleton:
    """Centre lines. A branch is a path along pixels; those at branch points belong to each that starts there."""

    pixels: np.ndarray  # (pixels, 2): row and column
    radius: np.ndarray  # (pixels,): distance to the background
    degree: np.ndarray  # (pixels,): how many neighbours it is joined to
    path: np.ndarray  # (steps,): pixels of one branch after the other
    branch: np.ndarray  # (steps,): which branch that is
    ends: np.ndarray  # (branches, 2): its first and last pixel
    length: np.ndarray  # (branches,)

    @property
    def tips(self):
        """(branches, 2): how much further than its skeleton the vessel reaches, at both ends."""
        return np.where(self.degree[self.ends] == 1, self.radius[self.ends] - 0.5, 0)


def _skeleton(mask, smoothed):
    """`_Skeleton` of a mask with an empty rim, without spurs and blobs."""
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
    pixels = np.argwhere(lines)
    edges = _edges(lines, pixels)
    degree = np.bincount(edges.ravel(), minlength=len(pixels))

    # Each branch gets its own copy of the pixels where it meets others, so that every piece is a path. A ring
    # that meets none is cut somewhere.
    cut = degree > 2
    part = _pieces(edges, len(pixels))
    ring = np.bincount(part, degree != 2) == 0
    cut[np.unique(part, return_index=True)[1][ring]] = True
    copied = cut[edges]
    origin = np.concatenate([np.arange(len(pixels)), edges[copied]])
    edges[copied] = len(pixels) + np.arange(copied.sum())
    part = _pieces(edges, len(origin))

    # Depth first, from a root that is joined to one end of each piece, goes through the pieces one by one.
    tips = np.flatnonzero(np.bincount(edges.ravel(), minlength=len(origin)) == 1)
    starts = tips[np.unique(part[tips], return_index=True)[1]]
    root = len(origin)
    graph = _graph(np.concatenate([edges, [np.full(len(starts), root), starts]], axis=1), root + 1)
    order = sparse.csgraph.depth_first_order(graph, root, directed=False, return_predecessors=False)[1:]
    path, new = origin[order], np.diff(part[order], prepend=-1) != 0
    branch, first, last = np.cumsum(new) - 1, np.flatnonzero(new), np.flatnonzero(np.diff(part[order], append=-1))

    length = _lengths(pixels[path], branch, first, last, smoothed)
    return _Skeleton(pixels, radius[lines], degree, path, branch, np.stack([path[first], path[last]], axis=1), length)


def _edges(lines, pixels):
    """Which pixels of a skeleton are joined: int `(2, edges)`, indices of `pixels`."""
    number = np.empty(lines.shape, "int32")
    number[lines] = np.arange(len(pixels))
    y, x = pixels.T
    edges = []
    for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
        joined = lines[y + dy, x + dx]
        if dy and dx:  # diagonal neighbours are joined where no path leads round the corner
            joined &= ~(lines[y + dy, x] | lines[y, x + dx])
        edges.append(np.stack([np.flatnonzero(joined), number[y + dy, x + dx][joined]]))
    return np.concatenate(edges, axis=1)


def _lengths(points, branch, first, last, smoothed):
    """Length of each branch: steps from pixel to pixel are longer than the line, so it is a moving mean's."""
    here = np.arange(len(points))
    reach = np.minimum(np.minimum(here - first[branch], last[branch] - here), smoothed)  # so that ends stay in place
    total = np.concatenate([np.zeros((1, 2)), np.cumsum(points, axis=0)])
    smooth = (total[here + reach + 1] - total[here - reach]) / (2 * reach + 1)[:, None]
    step = np.hypot(*np.diff(smooth, axis=0, prepend=smooth[:1]).T)
    step[first] = 0
    return np.bincount(branch, step)


def _graph(edges, nodes):
    return sparse.coo_array((np.ones(edges.shape[1], "int8"), edges), shape=(nodes, nodes)).tocsr()


def _pieces(edges, nodes):
    return sparse.csgraph.connected_components(_graph(edges, nodes), directed=False)[1]


def _areas(skeleton, mask):
    """Pixels of the mask that are nearest to each branch: float `(branches,)`. Blobs without a branch are left out."""
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
    return len(np.unique(_pieces(skeleton.ends[near].T, len(meets))[meets]))


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
