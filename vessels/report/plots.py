"""Draws curves, panels and training histories."""

import io

import numpy as np
from matplotlib.figure import Figure

from vessels.metrics import WHITE, curve, level
from vessels.report import tables
from vessels.report.scores import mean_and_interval
from vessels.report.tables import COLUMNS, SCORED

# Okabe and Ito's palette, which colour-blind readers can distinguish too; page.html shows these colours.
FOUND, MISSED, FALSE = (0, 158, 115), (230, 159, 0), (86, 180, 233)
PLOTTED = ("f1", "auc")
COLOURS = {"whole_image": "#0072B2", "inside_fov": "#D55E00"}


def picture(figure):
    """PNG of a figure: bytes, without Matplotlib's version, so that equal figures have equal bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=120, format="png", metadata={"Software": None})
    return buffer.getvalue()


def curves(histograms, metrics):
    """Curves over all pixels for both protocols, with the second observer and the threshold marked.

    Args:
        histograms: Those of `metrics.Counts`.
        metrics: The content of metrics.json.

    Returns:
        dict of PNG bytes: "roc.png", "pr.png"; empty without an AUC, as for black and white maps.
    """
    if metrics["inside_fov"]["auc"] is None:
        return {}
    figures = [Figure(figsize=(5, 4.5), layout="constrained") for _ in range(2)]
    roc, pr = (figure.add_subplot() for figure in figures)
    points = {f"threshold {metrics['threshold']:g}": ("o", metrics)}
    if metrics["second_observer"]:
        points["second observer"] = ("X", metrics["second_observer"])
    for protocol, counts, line in zip(SCORED, histograms, ("-", "--"), strict=True):
        style, scores = {"color": COLOURS[protocol], "linestyle": line}, metrics[protocol]
        fps, tps = curve(counts)
        # More points than the picture has pixels would only make drawing slower.
        thin = np.unique(np.r_[np.searchsorted(tps, np.linspace(0, tps[-1], 1000)),
                               np.searchsorted(fps, np.linspace(0, fps[-1], 1000)), len(fps) - 1])
        fps, tps = fps[thin], tps[thin]
        roc.plot(fps / fps[-1], tps / tps[-1], **style, label=f"{SCORED[protocol]}, AUC {scores['auc']:.4f}")
        pr.plot(tps / tps[-1], tps / (tps + fps), **style,
                label=f"{SCORED[protocol]}, average precision {scores['average_precision']:.4f}")
        share = counts[1].sum() / counts.sum()  # of vessel pixels
        for name, (marker, scores) in points.items():
            mark = {"color": COLOURS[protocol], "marker": marker, "linestyle": "", "markersize": 8,
                    "label": f"{name}, {SCORED[protocol]}", "markeredgecolor": "white"}
            sensitivity, fall_out = scores[protocol]["sensitivity"], 1 - scores[protocol]["specificity"]
            hits, alarms = sensitivity * share, fall_out * (1 - share)
            roc.plot(fall_out, sensitivity, **mark)
            pr.plot(sensitivity, hits / (hits + alarms) if hits + alarms else np.nan, **mark)
    corner = all(scores[protocol]["sensitivity"] > 0.6 and scores[protocol]["specificity"] > 0.8
                 for _, scores in points.values() for protocol in SCORED)
    roc.set(xlabel="1 - specificity", ylabel="sensitivity", title="ROC, upper left corner" if corner else "ROC",
            xlim=(0, 0.2 if corner else 1), ylim=(0.6 if corner else 0, 1))
    pr.set(xlabel="sensitivity (recall)", ylabel="precision", title="Precision and recall",
           xlim=(0, 1), ylim=(0, 1.01))
    for axes, place in ((roc, "lower right"), (pr, "lower left")):
        axes.legend(fontsize=8, loc=place)
        axes.grid(alpha=0.3)
    return {"roc.png": picture(figures[0]), "pr.png": picture(figures[1])}


def overview(by_title):
    """F1 and AUC over whole images, with intervals; the paper and the second observer as lines: PNG bytes.

    `by_title`: for each set, a list of contents of metrics.json.
    """
    rows = [len(of_set) for of_set in by_title.values()]
    figure = Figure(figsize=(9, 0.9 * len(rows) + 0.3 * sum(rows)), layout="constrained")
    grid = figure.subplots(len(rows), len(PLOTTED), squeeze=False, sharey="row", height_ratios=rows)
    for axes, (title, of_set) in zip(grid, by_title.items(), strict=True):
        names = [tables.label(metrics) for metrics in of_set]
        lines = dict(row for metrics in of_set for row in tables.rows(metrics, "whole_image")[1:])
        intervals = np.array([mean_and_interval(metrics, "whole_image", PLOTTED) for metrics in of_set])
        for axis, key, (mean, low, high) in zip(axes, PLOTTED, intervals.T, strict=True):
            axis.errorbar(mean, names, xerr=[mean - low, high - mean], fmt="o", color=COLOURS["whole_image"],
                          label="mean of the images")
            for (name, scores), style in zip(lines.items(), ("--", ":"), strict=False):
                if scores.get(key) is not None:
                    axis.axvline(scores[key], color=COLOURS["inside_fov"], linestyle=style, label=name)
            axis.set_title(f"{title}, {COLUMNS[key]}")
            axis.grid(alpha=0.3)
        axes[0].invert_yaxis()
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    return picture(figure)


def history_plot(history):
    """`loss`, `val_auc` and `learning_rate` over the epochs: PNG bytes. `history`: dicts, as in `history.csv`."""
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.subplots(3, sharex=True, height_ratios=(2, 2, 1))
    for axis, name in zip(axes, ("loss", "val_auc", "learning_rate"), strict=True):
        rows = [row for row in history if row[name] is not None]  # not every epoch is validated
        axis.plot([row["epoch"] for row in rows], [row[name] for row in rows], ".-", color=COLOURS["whole_image"])
        axis.set_ylabel(name)
        axis.grid(alpha=0.3)
    axes[2].set_xlabel("epoch")
    return picture(figure)


def agreement(example, values, threshold=0.5):
    """uint8 `(height, width, 3)`: vessel pixels inside the field of view in the colours FOUND, MISSED and FALSE."""
    vessel, label = (values >= level(threshold)) & example.fov, example.label & example.fov
    shown = np.zeros((*label.shape, 3), "uint8")
    shown[example.fov] = 25
    shown[vessel & label], shown[label & ~vessel], shown[vessel & ~label] = FOUND, MISSED, FALSE
    return shown


def panel(example, values, threshold=0.5):
    """Photograph, label, probability map and agreement, two by two: PNG bytes.

    Args:
        example: An `Example`.
        values: uint16 `(height, width)`, the map.
        threshold: A pixel counts as vessel if `probability >= threshold`.
    """
    tiles = {example.name: example.image, "label": example.label, "probability": values / WHITE,
             "green: found, orange: missed, blue: false": agreement(example, values, threshold)}
    height, width = example.label.shape
    figure = Figure(figsize=(10, 10 * height / width), layout="constrained")
    for axis, (title, tile) in zip(figure.subplots(2, 2).flat, tiles.items(), strict=True):
        axis.imshow(tile, cmap="gray", vmin=0, vmax=1)
        axis.set_title(title)
        axis.axis("off")
    return picture(figure)
