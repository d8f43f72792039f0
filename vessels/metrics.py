"""Scores over the whole image and inside the field of view, pooled and per image.

Maps have 65,536 values. So a histogram of the background pixels and one of the vessel pixels hold all that most scores
need, exactly, and histograms add up over photographs. What needs the mask itself (`Counts`) adds up in the same way.
"""

import dataclasses
import json
import math

import cv2
import numpy as np
from scipy.integrate import trapezoid
from skimage.morphology import skeletonize

PROTOCOLS = ("whole_image", "inside_fov")
METRICS = ("auc", "average_precision", "accuracy", "sensitivity", "specificity", "f1", "mcc", "cldice", "ece", "brier",
           "sensitivity_thin", "sensitivity_thick")
WHITE = 65535  # the value of a probability of 1
VALUES = np.arange(WHITE + 1)
BINS = 15  # of the expected calibration error
THIN = 3 / 537  # vessels narrower than this part of the field of view's diameter are thin: 3 pixels on DRIVE


def to_16_bit(probability):
    """uint16 `(height, width)` of a bool array or of floats in [0, 1]; ValueError for other values, such as NaN."""
    if not (probability.min() >= 0 and probability.max() <= 1):  # NaN is neither
        raise ValueError("holds values outside [0, 1]")
    return np.round(probability * np.float32(WHITE)).astype("uint16")


def level(threshold):
    """The smallest of the 65,536 values that is at least `threshold`, a probability: int."""
    return math.ceil(round(threshold * WHITE, 6))


def histogram(values, label, where=...):
    """How many background pixels, and how many vessel pixels, have each value of a map: int `(2, 65536)`.

    Args:
        values: uint16 array, a map as `to_16_bit` returns it.
        label: bool array of that shape.
        where: bool array of that shape, the pixels that count; by default all.

    Raises:
        ValueError: `label` is not bool, or `values` not uint16.
    """
    if values.dtype != np.uint16 or label.dtype != bool:
        raise ValueError(f"values must be uint16 and label bool; got {values.dtype} and {label.dtype}")
    places = values[where].ravel() + (WHITE + 1) * label[where].ravel()
    return np.bincount(places, minlength=2 * (WHITE + 1)).reshape(2, -1)


def score(counts, threshold=0.5):
    """Metrics from the result of `histogram`, or a sum of such, equal to scikit-learn's.

    Args:
        counts: int `(2, 65536)`.
        threshold: A pixel counts as vessel if its probability is at least this.

    Returns:
        dict of float. A metric is None where it is undefined, as without vessel pixels. So are `auc`,
        `average_precision`, `ece` and `brier` of black and white maps, such as an observer's label: these do not rank
        the pixels. `ece` is the expected calibration error in 15 equal bins of the vessel probability.
    """
    negatives, positives = counts.sum(axis=1).tolist()
    fp, tp = counts[:, level(threshold):].sum(axis=1).tolist()
    fn, tn = positives - tp, negatives - fp
    auc = average_precision = ece = brier = None
    if counts[:, 1:-1].any():
        if positives and negatives:
            fps, tps = curve(counts)
            auc = float(trapezoid(np.r_[0, tps / positives], np.r_[0, fps / negatives]))
            average_precision = float(np.sum(np.diff(np.r_[0, tps]) / positives * (tps / (tps + fps))))
        probability = VALUES / WHITE
        # Per bin: the sum of the pixels' probabilities, and the number of vessel pixels.
        predicted, vessels = (np.bincount(np.minimum(VALUES * BINS // WHITE, BINS - 1), weights)
                              for weights in (counts.sum(axis=0) * probability, counts[1]))
        ece = float(abs(predicted - vessels).sum() / counts.sum())
        brier = float((counts * [probability**2, (1 - probability) ** 2]).sum() / counts.sum())
    margins = (float((tp + fp) * (tp + fn)) * float((tn + fp) * (tn + fn))) ** 0.5
    return {
        "auc": auc,
        "average_precision": average_precision,
        "accuracy": ratio(tp + tn, positives + negatives),
        "sensitivity": ratio(tp, positives),
        "specificity": ratio(tn, negatives),
        "f1": ratio(2 * tp, 2 * tp + fp + fn),
        "mcc": ratio(tp * tn - fp * fn, margins) or 0.0,
        "ece": ece,
        "brier": brier,
    }


def curve(counts):
    """`(false positives, true positives)` at each value that occurs, as threshold, falling: int arrays."""
    occurs = counts.any(axis=0)[::-1]
    return np.cumsum(counts[:, ::-1], axis=1)[:, occurs]


def best_threshold(histograms):
    """The multiple of 0.05 with the highest F1, as a mean over photographs: float.

    If all pixels were pooled, large photographs would count more. `histograms`: list of results of `histogram`.
    """
    grid = [i / 20 for i in range(1, 20)]
    return max(grid, key=lambda threshold: np.mean([score(counts, threshold)["f1"] or 0 for counts in histograms]))


def ratio(a, b):
    return float(a / b) if b else None


@dataclasses.dataclass(frozen=True)
class Counts:
    """What the scores of a map at one threshold are made of, for both of `PROTOCOLS`; adds up over photographs.

    `histograms`: int `(2, 2, 65536)`, see `histogram`. `overlaps`: int `(2, 4, 2)`, for the map's skeleton and the
    label, the label's skeleton and the map, thin vessels of the label and the map, thick ones and the map: how many
    pixels of the first lie on the second, and how many the first has.
    """

    histograms: np.ndarray | int = 0
    overlaps: np.ndarray | int = 0

    def __add__(self, other):
        return Counts(self.histograms + other.histograms, self.overlaps + other.overlaps)

    def scores(self, threshold):
        """For each protocol, a dict with a value for each of `METRICS`."""
        scores = {}
        for protocol, counts, overlaps in zip(PROTOCOLS, self.histograms, self.overlaps, strict=True):
            precision, sensitivity, thin, thick = (ratio(*row) for row in overlaps)
            scores[protocol] = {**score(counts, threshold), "cldice": cldice(precision, sensitivity),
                                "sensitivity_thin": thin, "sensitivity_thick": thick}
        return scores


def cldice(precision, sensitivity):
    """Centreline Dice (Shit et al., CVPR 2021, equation 3) from the shares of the map's skeleton that lie on the label,
    and the other way round; None without any skeleton.
    """
    if precision is None and sensitivity is None:
        return None
    precision, sensitivity = precision or 0, sensitivity or 0
    return ratio(2 * precision * sensitivity, precision + sensitivity) or 0.0


class Reference:
    """A photograph's label, with what is needed to compare maps with it.

    Args:
        label, fov: bool `(height, width)`.
        diameter: Diameter of the field of view in pixels; by default, the longer side of the box around `fov`.
    """

    def __init__(self, label, fov, diameter=None):
        self.label, self.regions = label, (np.ones_like(fov), fov)
        self.skeleton = skeletonize(label)
        limit = THIN * (diameter or max(fov.any(axis=0).sum(), fov.any(axis=1).sum()))
        self.thin = label & (widths(label, self.skeleton) < limit)

    def counts(self, values, threshold):
        """`Counts` of a map, uint16 `(height, width)`. Skeletons are those of the whole map."""
        mask = values >= level(threshold)
        pairs = ((skeletonize(mask), self.label), (self.skeleton, mask), (self.thin, mask),
                 (self.label & ~self.thin, mask))
        overlaps = [[(np.count_nonzero(first & second & region), np.count_nonzero(first & region))
                     for first, second in pairs] for region in self.regions]
        return Counts(np.array([histogram(values, self.label, region) for region in self.regions]), np.array(overlaps))


def widths(label, skeleton):
    """Width in pixels of the vessel at each pixel of a label: float `(height, width)`, infinite without a skeleton.

    It is that at the nearest skeleton pixel: twice the distance to the background, less one.
    """
    distance = cv2.distanceTransform(label.astype("uint8"), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    _, nearest = cv2.distanceTransformWithLabels((~skeleton).astype("uint8"), cv2.DIST_L2, cv2.DIST_MASK_5,
                                                 labelType=cv2.DIST_LABEL_PIXEL)
    width = np.full(nearest.max() + 1, np.inf, "float32")
    width[nearest[skeleton]] = 2 * distance[skeleton] - 1
    return width[nearest]


class Scores:
    """Scores maps one by one, and keeps only what adds up: the scoring part of `metrics.json`.

    `pooled`: `Counts` of all maps so far.
    """

    def __init__(self, threshold=0.5):
        self.threshold, self.per_image = threshold, []
        self.pooled = self.observer = Counts()
        self.observed = 0

    def add(self, example, values):
        """Scores one more map, uint16 `(height, width)`: dict of its "image" and, per protocol, its scores.

        Raises:
            ValueError: The map differs from the photograph `example`, an `Example`, in size.
        """
        if values.shape != example.label.shape:
            raise ValueError(f"has the shape {values.shape}, not {example.label.shape}")
        reference = Reference(example.label, example.fov, example.diameter)
        counts = reference.counts(values, self.threshold)
        self.pooled += counts
        if example.second is not None:
            self.observer += reference.counts(to_16_bit(example.second), self.threshold)
            self.observed += 1
        self.per_image.append(rounded({"image": example.name, **counts.scores(self.threshold)}))
        return self.per_image[-1]

    def result(self):
        """dict with `whole_image`, `inside_fov` (pooled over all pixels), `per_image`, `mean` and `std` over the images
        for which a metric is defined, and `second_observer` (None unless all images have one); six digits.
        """
        all_observed = self.observed == len(self.per_image)
        return rounded({
            **self.pooled.scores(self.threshold),
            "per_image": self.per_image,
            "mean": self.over_images(np.mean),
            "std": self.over_images(np.std),
            "second_observer": self.observer.scores(self.threshold) if all_observed else None,
        })

    def over_images(self, statistic):
        def of(protocol, metric):
            values = [image[protocol][metric] for image in self.per_image if image[protocol][metric] is not None]
            return float(statistic(values)) if values else None

        return {protocol: {metric: of(protocol, metric) for metric in METRICS} for protocol in PROTOCOLS}


def rounded(value):
    """The value with six digits of each float in its dicts and lists."""
    return json.loads(json.dumps(value), parse_float=lambda text: round(float(text), 6))
