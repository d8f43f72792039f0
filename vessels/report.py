"""What people look at: tables, curves, panels, and the README's results, all from `metrics.json`."""

import io
import json
import sys
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from sklearn.calibration import calibration_curve

ROOT = Path(__file__).resolve().parent.parent
TITLES = {"DRIVE": "DRIVE", "CHASEDB1": "CHASE DB1", "synthetic": "synthetic images"}
SCORED = {"whole_image": "whole image", "inside_fov": "inside the field of view"}
COLUMNS = {"auc": "AUC", "accuracy": "acc.", "sensitivity": "sens.", "specificity": "spec.", "f1": "F1",
           "mcc": "MCC", "cldice": "clDice"}
# Okabe and Ito's palette: told apart by colour-blind readers too.
TRUE, MISSED, FALSE = (0, 158, 115), (230, 159, 0), (86, 180, 233)
INK, BACKGROUND = (30, 30, 30), (255, 255, 255)


def rows(metrics, protocol):
    """`(name, scores)` of each row of the table: ours, the paper's where it scored so, the second observer's."""
    found = [(f"{metrics['variant']} (here)", metrics[protocol])]
    paper = metrics["published"]
    if paper and paper["scored"] == protocol and metrics["variant"] == "rsan":
        found.append((paper["method"], paper))
    if metrics["second_observer"]:
        found.append(("second observer", metrics["second_observer"][protocol]))
    return found


def cell(value):
    return "-" if value is None else f"{value:.4f}"


def table(metrics):
    """The table of `metrics` for a terminal of 80 columns."""
    lines = []
    for protocol, scored in SCORED.items():
        lines.append(f"\n{TITLES[metrics['dataset']]}, {metrics['n_images']} test images, {scored}")
        lines.append(" " * 26 + "".join(f"{title:>7}" for title in COLUMNS.values()))
        for name, scores in rows(metrics, protocol):
            lines.append(f"{name:26}" + "".join(f"{cell(scores.get(key)):>7}" for key in COLUMNS))
    return "\n".join(lines)


def table_markdown(metrics, heading=True):
    """The same table in Markdown, with the mean and standard deviation over the images."""
    head = f"{TITLES[metrics['dataset']]}, {metrics['n_images']} test images" if heading else ""
    lines = [f"| {head} | scored | " + " | ".join(COLUMNS.values()) + " |", "|---|---|" + "---|" * len(COLUMNS)]
    for protocol, scored in SCORED.items():
        for name, scores in rows(metrics, protocol):
            lines.append(f"| {name} | {scored} | " + " | ".join(cell(scores.get(key)) for key in COLUMNS) + " |")
        spread = [f"{cell(metrics['mean'][protocol][key])} ± {cell(metrics['std'][protocol][key])}" for key in COLUMNS]
        lines.append(f"| {metrics['variant']}, mean ± std of the images | {scored} | " + " | ".join(spread) + " |")
    return "\n".join(lines) + "\n"


def curves(examples, probabilities, metrics):
    """`{"roc.png": bytes, "pr.png": bytes, "reliability.png": bytes}`, pooled over both protocols."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from vessels.evaluation import curve

    figures = {name: plt.subplots(figsize=(5, 4.5), layout="constrained") for name in ("roc", "pr", "reliability")}
    for protocol, colour in (("whole_image", "#0072B2"), ("inside_fov", "#D55E00")):
        inside = [example.fov if protocol == "inside_fov" else np.ones_like(example.fov) for example in examples]
        pixels = np.concatenate([map_[where] for map_, where in zip(probabilities, inside, strict=True)])
        labels = np.concatenate([example.label[where] for example, where in zip(examples, inside, strict=True)])
        fps, tps, thresholds = curve(pixels, labels)
        thin = np.unique(np.r_[np.linspace(0, len(fps) - 1, 2000).astype(int),
                               np.searchsorted(-thresholds, -np.linspace(0, 1, 200)).clip(0, len(fps) - 1)])
        fps, tps = fps[thin], tps[thin]
        found, scored = metrics[protocol], SCORED[protocol]
        roc, pr, reliability = (figures[name][1] for name in figures)
        roc.plot(fps / fps[-1], tps / tps[-1], color=colour, label=f"{scored}, AUC {cell(found['auc'])}")
        pr.plot(tps / tps[-1], tps / (tps + fps), color=colour,
                label=f"{scored}, average precision {cell(found['average_precision'])}")
        measured, predicted = calibration_curve(labels, pixels, n_bins=15)
        reliability.plot(predicted, measured, "o-", color=colour, label=scored)
        points = [("threshold 0.5", found, "o")]
        if metrics["second_observer"]:
            points.append(("second observer", metrics["second_observer"][protocol], "x"))
        vessel_share = labels.mean()
        for name, scores, marker in points:
            sensitivity, fall_out = scores["sensitivity"], 1 - scores["specificity"]
            precision = sensitivity * vessel_share / (sensitivity * vessel_share + fall_out * (1 - vessel_share))
            style = {"marker": marker, "color": colour, "linestyle": "none", "markersize": 7}
            roc.plot(fall_out, sensitivity, label=name if protocol == "inside_fov" else None, **style)
            pr.plot(sensitivity, precision, label=name if protocol == "inside_fov" else None, **style)
    roc.set(xlabel="1 - specificity", ylabel="sensitivity", xlim=(0, 0.2), ylim=(0.6, 1), title="ROC (corner)")
    pr.set(xlabel="sensitivity (recall)", ylabel="precision", xlim=(0, 1), ylim=(0, 1.01), title="Precision and recall")
    reliability.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    reliability.set(xlabel="predicted probability", ylabel="share of vessel pixels", title="Reliability")
    written = {}
    for name, (figure, axes) in figures.items():
        axes.legend(fontsize=8, loc="upper left" if name == "reliability" else "lower left" if name == "pr"
                    else "lower right")
        axes.grid(alpha=0.3)
        buffer = io.BytesIO()
        # Without the version in the file, the same figures give the same bytes.
        figure.savefig(buffer, dpi=120, metadata={"Software": None})
        plt.close(figure)
        written[f"{name}.png"] = buffer.getvalue()
    return written


def agreement(example, probability, threshold=0.5):
    """uint8 `(height, width, 3)`: where map and label agree inside the field of view, and how they differ."""
    vessel = (probability >= threshold) & example.fov
    label = example.label & example.fov
    picture = np.zeros((*label.shape, 3), "uint8")
    picture[example.fov] = 25
    picture[vessel & label], picture[label & ~vessel], picture[vessel & ~label] = TRUE, MISSED, FALSE
    return picture


def panel(example, probability, scores=None, threshold=0.5):
    """PIL image of four tiles: photograph, label, probability, agreement; `scores` as in `per_image` is its caption."""
    grey = [np.repeat((255 * plane).astype("uint8")[..., None], 3, 2) for plane in (example.label, probability)]
    tiles = [example.image, *grey, agreement(example, probability, threshold)]
    width = 420
    height = round(width * example.label.shape[0] / example.label.shape[1])
    tiles = [cv2.resize(tile, (width, height), interpolation=cv2.INTER_AREA) for tile in tiles]
    canvas = Image.new("RGB", (4 * width + 15, height + 46), BACKGROUND)
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=16)
    for i, (tile, title) in enumerate(zip(tiles, ("photograph", "label", "probability", "agreement"), strict=True)):
        canvas.paste(Image.fromarray(tile), (i * (width + 5), 0))
        draw.text((i * (width + 5), height + 2), f"{example.name}: {title}" if i == 0 else title, INK, font)
    if scores:
        inside = scores["inside_fov"]
        caption = "   ".join(f"{title} {cell(inside[key])}" for key, title in COLUMNS.items())
        draw.text((0, height + 23), f"inside the field of view:   {caption}", INK, font)
    x = 3 * (width + 5)
    for colour, word in ((TRUE, "found"), (MISSED, "missed"), (FALSE, "false")):
        draw.rectangle((x, height + 27, x + 12, height + 39), fill=colour)
        draw.text((x + 18, height + 23), word, INK, font)
        x += 90
    return canvas


def readme_table(results=ROOT / "results"):
    """Markdown of all `results/<set>/<variant>/metrics.json`, the README's table."""
    order = ("rsan", "backbone_dropblock", "backbone")
    lines = ["| set | scored | network | " + " | ".join(COLUMNS.values()) + " |", "|---|---|---|" + "---|" * len(COLUMNS)]
    for dataset in ("DRIVE", "CHASEDB1"):
        found = [json.loads(path.read_text()) for variant in order
                 if (path := results / dataset / variant / "metrics.json").exists()]
        for protocol, scored in SCORED.items():
            for i, metrics in enumerate(found):
                of_all = rows(metrics, protocol)
                for name, scores in of_all if i == 0 else of_all[:1]:
                    cells = " | ".join(cell(scores.get(key)) for key in COLUMNS)
                    lines.append(f"| {TITLES[dataset]} | {scored} | {name} | {cells} |")
    return "\n".join(lines) + "\n"


def updated(text):
    """`text` of the README with the table between its markers made anew."""
    begin, end = "<!-- results: begin -->\n", "<!-- results: end -->"
    before, rest = text.split(begin)
    return before + begin + readme_table() + end + rest.split(end)[1]


def main(argv):
    """`python -m vessels.report` writes the README's table; with `--check` it only says whether it is stale."""
    readme = ROOT / "README.md"
    text = readme.read_text()
    if "--check" in argv:
        return int(updated(text) != text)
    readme.write_text(updated(text))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
