"""What people look at: tables, curves, panels, histories, and the README's results.

    python -m vessels.report            # the README's table, from results/*/*/metrics.json; where the images and
                                        # the maps of eval_*.py are, results/index.html and results/figure.png
    python -m vessels.report --check    # exit code 1 where the README is stale
"""

import argparse
import io
import json
import sys
from pathlib import Path

import cv2
import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont
from sklearn.calibration import calibration_curve

from vessels import UserError, datasets
from vessels.evaluation import curve, score
from vessels.files import write_atomically

ROOT = Path(__file__).resolve().parent.parent
TITLES = {**{dataset.name: dataset.title for dataset in datasets.DATASETS}, "synthetic": "SYNTHETIC"}
SCORED = {"whole_image": "whole image", "inside_fov": "inside the field of view"}
COLUMNS = {"auc": "AUC", "accuracy": "acc.", "sensitivity": "sens.", "specificity": "spec.", "f1": "F1",
           "mcc": "MCC", "cldice": "clDice"}
VARIANTS = ("rsan", "backbone_dropblock", "backbone")
BEGIN, END = "<!-- results: begin -->\n", "<!-- results: end -->"
# Okabe and Ito's palette: told apart by colour-blind readers too.
FOUND, MISSED, FALSE = (0, 158, 115), (230, 159, 0), (86, 180, 233)
COLOURS = {"whole_image": "#0072B2", "inside_fov": "#D55E00"}


def network(metrics):
    """Its name in tables: str, as "rsan", or "rsan of CHASE DB1" where it learned from another set."""
    other = metrics["trained_on"] != metrics["dataset"]
    return metrics["variant"] + f" of {TITLES[metrics['trained_on']]}" * other


def rows(metrics, protocol):
    """`[(name, scores)]` of the table: ours, the paper's (empty if not scored so), the second observer's."""
    seed = metrics["weights"]["recipe"]["seed"]
    here = " (here)" * (metrics["trained_on"] == metrics["dataset"])
    found = [(network(metrics) + f" seed {seed}" * bool(seed) + here, metrics[protocol])]
    paper = metrics["published"]
    if paper and metrics["variant"] == "rsan":
        found.append((paper["method"], paper if paper["scored"] == protocol else {}))
    if metrics["second_observer"]:
        found.append(("second observer", metrics["second_observer"][protocol]))
    return found


def cell(value):
    return value if isinstance(value, str) else "-" if value is None else f"{value:.4f}"


def table(metrics, width=80):
    """The table of `metrics` for a terminal: str; columns that do not fit `width` are left out."""
    columns = dict(list(COLUMNS.items())[: (width - 26) // 7])
    lines = []
    for protocol, scored in SCORED.items():
        lines.append(f"\n{TITLES[metrics['dataset']]}, {metrics['n_images']} test images, {scored}")
        lines.append(" " * 26 + "".join(f"{title:>7}" for title in columns.values()))
        for name, scores in rows(metrics, protocol):
            lines.append(f"{name:26}" + "".join(f"{cell(scores.get(key)):>7}" for key in columns))
    return "\n".join(lines)


def markdown_row(*cells):
    return f"| {' | '.join(cells)} |"


def table_markdown(metrics):
    """The same table in Markdown: str; with mean and standard deviation over the images."""
    title = f"{TITLES[metrics['dataset']]}, {metrics['n_images']} test images"
    head = title, "scored", *COLUMNS.values()
    lines = [markdown_row(*head), markdown_row(*["---"] * len(head))]
    for protocol, scored in SCORED.items():
        mean, std = metrics["mean"][protocol], metrics["std"][protocol]
        spread = (f"{cell(mean[key])} ± {cell(std[key])}" for key in COLUMNS)
        lines += [markdown_row(name, scored, *(cell(scores.get(key)) for key in COLUMNS))
                  for name, scores in rows(metrics, protocol)]
        lines.append(markdown_row(f"{metrics['variant']}, mean ± std of the images", scored, *spread))
    return "\n".join(lines) + "\n"


def picture(figure):
    """PNG of a figure: bytes; without a version in them, the same figures give the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=120, format="png", metadata={"Software": None})
    return buffer.getvalue()


def curves(examples, probabilities, metrics):
    """Curves of all pixels of both protocols, with the second observer and threshold 0.5 marked.

    Args:
        examples, probabilities: As for `evaluation.evaluate`, each label with vessels and background.
        metrics: What that returned.

    Returns:
        dict of PNG bytes: "roc.png", "pr.png", "reliability.png".
    """
    figures = [Figure(figsize=(5, 4.5), layout="constrained") for _ in range(3)]
    roc, pr, reliability = (figure.add_subplot() for figure in figures)
    corner = True
    for protocol, colour, line in zip(SCORED, COLOURS.values(), ("-", "--"), strict=True):
        inside = [example.fov if protocol == "inside_fov" else ... for example in examples]
        pixels = np.concatenate([one[where] for one, where in zip(probabilities, inside, strict=True)], None)
        labels = np.concatenate([one.label[where] for one, where in zip(examples, inside, strict=True)], None)
        fps, tps, _ = curve(pixels, labels)
        # More points than the picture has pixels would only take longer to draw.
        thin = np.unique(np.r_[np.searchsorted(tps, np.linspace(0, tps[-1], 1000)),
                               np.searchsorted(fps, np.linspace(0, fps[-1], 1000)), len(fps) - 1])
        fps, tps = fps[thin], tps[thin]
        scores, scored, style = metrics[protocol], SCORED[protocol], {"color": colour, "linestyle": line}
        roc.plot(fps / fps[-1], tps / tps[-1], **style, label=f"{scored}, AUC {cell(scores['auc'])}")
        pr.plot(tps / tps[-1], tps / (tps + fps), **style,
                label=f"{scored}, average precision {cell(scores['average_precision'])}")
        measured, predicted = calibration_curve(labels, pixels, n_bins=15)
        reliability.plot(predicted, measured, "o", **style, label=scored)
        points = {"threshold 0.5": ("o", scores)}
        if metrics["second_observer"]:
            points["second observer"] = ("X", metrics["second_observer"][protocol])
        for name, (marker, point) in points.items():
            sensitivity, fall_out = point["sensitivity"], 1 - point["specificity"]
            corner &= sensitivity > 0.6 and fall_out < 0.2
            hits, alarms = sensitivity * labels.mean(), fall_out * (1 - labels.mean())
            label = f"{name}, {scored}"
            mark = {"color": colour, "marker": marker, "linestyle": "", "markersize": 8, "label": label,
                    "markeredgecolor": "white"}
            roc.plot(fall_out, sensitivity, **mark)
            pr.plot(sensitivity, hits / (hits + alarms) if hits + alarms else np.nan, **mark)
    roc.set(xlabel="1 - specificity", ylabel="sensitivity", title="ROC, its corner" if corner else "ROC",
            xlim=(0, 0.2 if corner else 1), ylim=(0.6 if corner else 0, 1))
    pr.set(xlabel="sensitivity (recall)", ylabel="precision", title="Precision and recall",
           xlim=(0, 1), ylim=(0, 1.01))
    reliability.axline((0, 0), slope=1, color="grey", linewidth=0.8)
    reliability.set(xlabel="predicted probability", ylabel="share of vessel pixels", title="Reliability",
                    xlim=(0, 1), ylim=(0, 1))
    for axes, place in ((roc, "lower right"), (pr, "lower left"), (reliability, "upper left")):
        axes.legend(fontsize=8, loc=place)
        axes.grid(alpha=0.3)
    names = ("roc.png", "pr.png", "reliability.png")
    return {name: picture(figure) for name, figure in zip(names, figures, strict=True)}


def history_plot(history, exported=None):
    """Training loss, validation AUC and learning rate over the epochs: PNG bytes.

    Args:
        history: list of rows of `history.csv`, dicts with `epoch`, `loss`, `val_auc`, `learning_rate`.
        exported: The epoch whose weights are in use, to be marked; by default, none is.
    """
    titles = {"loss": "training loss", "val_auc": "validation AUC", "learning_rate": "learning rate"}
    epochs = [row["epoch"] for row in history]
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.subplots(3, sharex=True, height_ratios=(2, 2, 1))
    for axis, (name, title) in zip(axes, titles.items(), strict=True):
        axis.plot(epochs, [row[name] for row in history], ".-", color=COLOURS["whole_image"])
        axis.set_ylabel(title)
        axis.grid(alpha=0.3)
    if exported:
        auc = history[exported - 1]["val_auc"]
        axes[1].plot(exported, auc, "o", color=COLOURS["inside_fov"], label=f"exported: {auc:.4f} in epoch {exported}")
        axes[1].legend(loc="lower right")
    axes[2].set_xlabel("epoch")
    return picture(figure)


def agreement(example, probability, threshold=0.5):
    """uint8 `(height, width, 3)`: where map and label agree inside the field of view, and how they differ."""
    vessel, label = (probability >= threshold) & example.fov, example.label & example.fov
    shown = np.zeros((*label.shape, 3), "uint8")
    shown[example.fov] = 25
    shown[vessel & label], shown[label & ~vessel], shown[vessel & ~label] = FOUND, MISSED, FALSE
    return shown


def panel(example, probability, threshold=0.5):
    """Photograph, label, probability and agreement side by side, with the image's own figures.

    Args:
        example: An `Example`.
        probability: float `(height, width)` in [0, 1].
        threshold: What counts as vessel: `probability >= threshold`.

    Returns:
        `PIL.Image.Image`, RGB: two by two tiles of the image's size, at most 640 pixels wide.
    """
    height, width = example.label.shape
    size = min(width, 640), round(height * min(1, 640 / width))
    grey = [cv2.cvtColor((255 * plane).astype("uint8"), cv2.COLOR_GRAY2RGB)
            for plane in (example.label, probability)]
    tiles = [example.image, *grey, agreement(example, probability, threshold)]
    gap, strip = 10, 34
    canvas = Image.new("RGB", (2 * size[0] + gap, 2 * (strip + size[1]) + strip), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=22)
    titles = (example.name, "label", "probability", "agreement")
    for i, (tile, title) in enumerate(zip(tiles, titles, strict=True)):
        x, y = i % 2 * (size[0] + gap), i // 2 * (strip + size[1])
        draw.text((x + 4, y + strip / 2), title, "black", font, anchor="lm")
        canvas.paste(Image.fromarray(cv2.resize(tile, size, interpolation=cv2.INTER_AREA)), (x, y + strip))
    x += 150
    for colour, word in ((FOUND, "found"), (MISSED, "missed"), (FALSE, "false")):
        draw.rectangle((x, y + 9, x + 16, y + 25), fill=colour)
        draw.text((x + 24, y + strip / 2), word, "black", font, anchor="lm")
        x += 125
    scores = score(probability, example.label, example.fov, threshold)
    named = {"F1": "f1", "sensitivity": "sensitivity", "specificity": "specificity", "AUC": "auc"}
    caption = "   ".join(["Inside the field of view:", *(f"{k} {cell(scores[v])}" for k, v in named.items())])
    draw.text((4, canvas.height - strip / 2), caption, "black", font, anchor="lm")
    return canvas


def results_of(dataset, results_dir):
    """`[(folder, metrics)]` of a data set: its own networks from rsan to backbone, seed by seed, then another set's."""
    paths = (results_dir / dataset.name).glob("*/metrics.json")
    found = [(path.parent, json.loads(path.read_text())) for path in paths]
    return sorted(found, key=lambda one: (one[1]["trained_on"] != dataset.name, VARIANTS.index(one[1]["variant"]),
                                          one[1]["weights"]["recipe"]["seed"]))


def but_seed(metrics):
    return {**metrics["weights"]["recipe"], "seed": None}, metrics["variant"], metrics["trained_on"]


def all_rows(all_metrics, protocol):
    """Rows of a table of several networks: ours, with mean and standard deviation where there are several seeds of
    one, then what each would repeat: the paper and the second observer.
    """
    ours = []
    for metrics in all_metrics:
        same = [one[protocol] for one in all_metrics if but_seed(one) == but_seed(metrics)]
        if metrics[protocol] is not same[0]:
            continue
        name, scores = rows(metrics, protocol)[0]
        ours.append((name, scores))
        if len(same) > 1:
            spread = {key: f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}"
                      for key in COLUMNS for values in [[scores[key] for scores in same]]}
            ours.append((f"{network(metrics)}, mean ± std of {len(same)} seeds", spread))
    return ours + (rows(all_metrics[0], protocol)[1:] if all_metrics else [])


def readme_table(results_dir=ROOT / "results"):
    """Markdown of all `<results_dir>/<set>/<network>/metrics.json`: str, empty where there are none."""
    head = "set", "scored", "network", *COLUMNS.values()
    lines = [markdown_row(*head), markdown_row(*["---"] * len(head))]
    for dataset in datasets.DATASETS:
        all_metrics = [metrics for _, metrics in results_of(dataset, Path(results_dir))]
        for protocol, scored in SCORED.items():
            for name, scores in all_rows(all_metrics, protocol):
                cells = (cell(scores.get(key)) for key in COLUMNS)
                lines.append(markdown_row(dataset.title, scored, name, *cells))
    return "\n".join(lines) + "\n" if len(lines) > 2 else ""


def updated(text, results_dir=ROOT / "results"):
    """`text` with what stands between the markers replaced by `readme_table`; ValueError without markers."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return before + BEGIN + readme_table(results_dir) + END + after


def update_readme(readme=ROOT / "README.md", results_dir=ROOT / "results", check=False):
    """Puts `readme_table` between the markers of `readme`, or with `check` does not; True where it was stale.

    Raises:
        UserError: There is no such file, or no pair of markers in it.
    """
    try:
        text = Path(readme).read_text()
        new = updated(text, results_dir)
    except OSError as error:
        raise UserError(f"{readme}: {error.strerror}; run this in a checkout of the project") from None
    except ValueError:
        raise UserError(f"{readme}: lacks the lines '{BEGIN.strip()}' and '{END}', once each; "
                        "put them where the table belongs") from None
    if new != text and not check:
        write_atomically(readme, new)
    return new != text


def main(argv=None):
    """The command line `python -m vessels.report`: 0; 1 for a stale table or what was left out; 2 for what to mend."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if the README is stale")
    check = parser.parse_args(argv).check
    try:
        stale = update_readme(check=check)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if check:
        if stale:
            print("README.md is stale; make it anew with `python -m vessels.report`", file=sys.stderr)
        return int(stale)
    from vessels import page

    lines = page.write()
    print("\n".join(lines))
    return int(any(line.startswith("left out") for line in lines))


if __name__ == "__main__":
    sys.exit(main())
