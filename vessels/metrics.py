"""Scoring: metrics over the whole image and inside the field of view, pooled and per image."""

import numpy as np
from scipy.integrate import trapezoid
from skimage.morphology import skeletonize

PROTOCOLS = ("whole_image", "inside_fov")
METRICS = ("auc", "average_precision", "accuracy", "sensitivity", "specificity", "f1", "mcc", "cldice")


def score(probability, label, where=None, threshold=0.5):
    """Metrics over a set of pixels, with the same values as scikit-learn's.

    Args:
        probability: float array of any shape, in [0, 1]; or a bool array (such as an observer's
            label), which does not rank the pixels, so that `auc` and `average_precision` are None.
        label: bool array of that shape.
        where: bool array of that shape, the pixels that count; by default all.
        threshold: A pixel counts as vessel if `probability >= threshold`.

    Returns:
        dict of `auc`, `average_precision`, `accuracy`, `sensitivity`, `specificity`, `f1`, `mcc`: float,
        or None if a metric is undefined (no vessel pixels, or only vessel pixels).

    Raises:
        ValueError: `where` is not bool, or an array holds NaN.
    """
    probability = np.asarray(probability)
    for name, array in (("probability", probability), ("label", np.asarray(label))):
        if array.dtype.kind == "f" and np.isnan(array).any():
            raise ValueError(f"{name} holds NaN")
    if where is not None and np.asarray(where).dtype != bool:  # integers would be used as indices
        raise ValueError(f"where must be bool, got {np.asarray(where).dtype}")
    label, where = np.asarray(label, bool), slice(None) if where is None else where
    probability, label = probability[where].ravel(), label[where].ravel()
    vessel = binary(probability, threshold)
    tp, fp = np.count_nonzero(vessel & label), np.count_nonzero(vessel & ~label)
    fn, tn = np.count_nonzero(label) - tp, np.count_nonzero(~label) - fp
    auc = average_precision = None
    if probability.dtype != bool and 0 < tp + fn < label.size:
        fps, tps, _ = curve(probability, label)
        auc = float(trapezoid(np.r_[0, tps / tps[-1]], np.r_[0, fps / fps[-1]]))
        average_precision = float(np.sum(np.diff(np.r_[0, tps]) * tps / (tps + fps)) / tps[-1])
    margins = float((tp + fp) * (tp + fn)) ** 0.5 * float((tn + fp) * (tn + fn)) ** 0.5
    return {
        "auc": auc,
        "average_precision": average_precision,
        "accuracy": ratio(tp + tn, label.size),
        "sensitivity": ratio(tp, tp + fn),
        "specificity": ratio(tn, tn + fp),
        "f1": ratio(2 * tp, 2 * tp + fp + fn),
        "mcc": ratio(tp * tn - fp * fn, margins) or 0.0,
    }


def binary(found, threshold):
    return found if found.dtype == bool else found >= threshold


def curve(probability, label):
    """`(false positives, true positives, thresholds)` at each distinct probability, thresholds falling.

    AUC and average precision share this curve, and `np.sort` is eight times faster here than the
    argsort in each of scikit-learn's functions: 0.4 s for 6.6 million pixels.
    """
    ranked, vessels = np.sort(probability), np.sort(probability[label])
    first = np.r_[0, 1 + np.flatnonzero(np.diff(ranked))]
    thresholds = ranked[first]
    tps = vessels.size - np.searchsorted(vessels, thresholds)
    return (ranked.size - first - tps)[::-1], tps[::-1], thresholds[::-1]


def best_threshold(examples, probabilities):
    """The multiple of 0.05 with the highest F1 inside the field of view, as a mean over the images: float.

    If all pixels were pooled, large photographs would count more. Arguments as for `evaluate`.
    """
    def f1(threshold):
        return np.mean([score(found[example.fov] >= threshold, example.label[example.fov])["f1"] or 0
                        for example, found in zip(examples, probabilities, strict=True)])

    return max((round(0.05 * i, 2) for i in range(1, 20)), key=f1)


def ratio(a, b):
    return float(a / b) if b else None


def centreline_dice(prediction, label, where=None):
    """Centreline Dice (Shit et al., CVPR 2021, equation 3) of two bool maps `(height, width)`.

    The skeletons are those of the whole maps; with `where` (bool), only skeleton pixels inside it count. None if
    neither map has a vessel.
    """
    return cldice(skeleton_counts(prediction, label, [True if where is None else where])[0])


def skeleton_counts(prediction, label, regions):
    """int `(regions, 4)`: the counts for centreline Dice, which can be summed over images.

    They are the skeleton pixels of `prediction` that lie on the label, all skeleton pixels of `prediction`,
    and the same two counts with prediction and label exchanged.
    """
    thin, thin_label = skeletonize(prediction), skeletonize(label)
    parts = thin & label, thin, thin_label & prediction, thin_label
    return np.array([[np.count_nonzero(part & region) for part in parts] for region in regions])


def cldice(counts):
    on_label, found, on_prediction, wanted = counts
    if not found and not wanted:
        return None
    precision, sensitivity = ratio(on_label, found) or 0, ratio(on_prediction, wanted) or 0
    return ratio(2 * precision * sensitivity, precision + sensitivity) or 0.0


def evaluate(examples, probabilities, threshold=0.5):
    """The scoring part of `metrics.json`.

    Args:
        examples: list of `Example`.
        probabilities: Their probability maps, float32 `(height, width)` in [0, 1].
        threshold: A pixel counts as vessel if `probability >= threshold`.

    Returns:
        dict with `whole_image`, `inside_fov` (pooled over all pixels), `per_image`, `mean` and `std` over the
        images, and `second_observer` (None unless all images have one); values are rounded to six digits.

    Raises:
        ValueError: A map differs from its image in size, or holds values outside [0, 1].
    """
    for example, probability in zip(examples, probabilities, strict=True):
        if probability.shape != example.label.shape:
            raise ValueError(f"the map of {example.name} is {probability.shape}, not {example.label.shape}")
        if not (probability.min() >= 0 and probability.max() <= 1):  # NaN is neither
            raise ValueError(f"the map of {example.name} holds values outside [0, 1]")
    per_image, pooled = score_maps(examples, probabilities, threshold)
    observers = [example.second for example in examples]
    complete = all(observer is not None for observer in observers)
    return rounded({
        **pooled,
        "per_image": [{"image": example.name, **scores}
                      for example, scores in zip(examples, per_image, strict=True)],
        "mean": over_images(np.mean, per_image),
        "std": over_images(np.std, per_image),
        "second_observer": score_maps(examples, observers, threshold)[1] if complete else None,
    })


def score_maps(examples, maps, threshold):
    """`(per_image, pooled)`: `{protocol: scores}` of each image, in a list, and of all pixels together."""
    labels = [example.label for example in examples]
    regions = [(np.ones_like(example.fov), example.fov) for example in examples]
    counts = [skeleton_counts(binary(found, threshold), label, inside)
              for found, label, inside in zip(maps, labels, regions, strict=True)]
    per_image = [
        {protocol: {**score(found, label, where, threshold), "cldice": cldice(count)}
         for protocol, where, count in zip(PROTOCOLS, inside, both, strict=True)}
        for found, label, inside, both in zip(maps, labels, regions, counts, strict=True)
    ]
    found, label = np.concatenate(maps, axis=None), np.concatenate(labels, axis=None)
    everywhere = [np.concatenate(inside, axis=None) for inside in zip(*regions, strict=True)]
    pooled = {protocol: {**score(found, label, where, threshold), "cldice": cldice(count)}
              for protocol, where, count in zip(PROTOCOLS, everywhere, sum(counts), strict=True)}
    return per_image, pooled


def over_images(statistic, per_image):
    """`statistic` of each metric over the images for which it is defined."""
    def of(protocol, key):
        values = [scores[protocol][key] for scores in per_image if scores[protocol][key] is not None]
        return float(statistic(values)) if values else None

    return {protocol: {key: of(protocol, key) for key in METRICS} for protocol in PROTOCOLS}


def rounded(value):
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [rounded(inner) for inner in value]
    return round(value, 6) if isinstance(value, float) else value
