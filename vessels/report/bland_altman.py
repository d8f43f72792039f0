"""Agreement of measures of maps with those of labels: mean difference, limits of agreement, correlation.

The map at its threshold, and the second observer's label, are compared with the first observer's label. Limits of
agreement are the mean difference -+ 1.96 standard deviations of the differences.

Bland and Altman 1986: Statistical methods for assessing agreement between two methods of clinical measurement.
"""

import numpy as np

from vessels.data import published
from vessels.metrics import level
from vessels.prediction.measures import measure
from vessels.report import tables

# Results of `measure` in tables: name and decimals. Widths in permille of the diameter would only repeat the pixels.
SHOWN = {
    "density": ("density", 4),
    "length_density": ("length density", 2),
    "width_px": ("width, pixels", 2),
    "widest_px": ("widest tenth, pixels", 2),
    "branch_points": ("branch points", 1),
    "ends": ("ends", 1),
    "tortuosity": ("tortuosity", 3),
    "fractal_dimension": ("fractal dimension", 3),
}
HOW = ("Each measure of a map, at the network's threshold, minus that of the first observer's label, inside the field "
       "of view: the mean difference over the images and, in brackets, its 95 % limits of agreement (Bland and Altman "
       "1986); r is Pearson's correlation. The second observer shows how far two people agree. From few images, the "
       "limits are uncertain: by ±0.8 standard deviations for 20, by ±1.4 for 8 (of CHASE DB1: the eyes of four "
       "children).")
NETWORK = "any_rsan"  # whose maps predict.py writes


def measures(example, values, threshold):
    """Measures of one image for `metrics.json`, to five significant digits; what needs a vessel is None
    without one.

    Args:
        example: An `Example`.
        values: uint16 `(height, width)`, the map.
        threshold: A pixel counts as vessel if `probability >= threshold`.

    Returns:
        dict of "map", "label" and, if there is one, "second_observer": each a result of `measure`.
    """
    def short(value):
        return value if isinstance(value, int) else None if np.isnan(value) else float(f"{value:.5g}")

    masks = {"map": values >= level(threshold), "label": example.label, "second_observer": example.second}
    return {who: {name: short(value) for name, value in measure(mask, example.fov, example.diameter).items()}
            for who, mask in masks.items() if mask is not None}


def bland_altman(first, other):
    """`(bias, low, high, r)` of two float arrays `(images,)`: mean of `other - first`, its 95 % limits of agreement,
    and Pearson's correlation.
    """
    bias, reach = np.mean(other - first), 1.96 * np.std(other - first, ddof=1)
    return bias, bias - reach, bias + reach, np.corrcoef(first, other)[0, 1]


def markdown(results_dir):
    """Markdown: the measures of the general network's maps on DRIVE and CHASE DB1, and of the second observer's labels,
    compared with the first observer's; empty without results.
    """
    head, body = ["measure"], [[title] for title, _ in SHOWN.values()]
    for dataset in published.DATASETS[:2]:
        metrics = tables.results_of(dataset.name, results_dir).get(NETWORK, {})
        if not metrics.get("second_observer"):
            continue
        names = "first observer", tables.label(metrics), "second observer"
        head += [f"{dataset.title}: {name}" for name in names]
        for row, (key, (_, decimals)) in zip(body, SHOWN.items(), strict=True):
            first, *others = np.array([[image["measures"][who][key] for image in metrics["per_image"]]
                                       for who in ("label", "map", "second_observer")], float)
            row.append(f"{first.mean():.{decimals}f}")
            row += ["{1:+.{0}f} [{2:+.{0}f}, {3:+.{0}f}], r {4:.2f}".format(decimals, *bland_altman(first, other))
                    for other in others]
    return f"{tables.markdown(head, body)}\n{HOW}\n" if len(head) > 1 else ""
