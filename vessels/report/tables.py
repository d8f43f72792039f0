"""Tables of results, for terminals and in Markdown."""

import re

import numpy as np

from vessels.data import published
from vessels.files import read_json

SCORED = {"whole_image": "whole image", "inside_fov": "inside the field of view"}
COLUMNS = {"auc": "AUC", "accuracy": "acc.", "sensitivity": "sens.", "specificity": "spec.", "f1": "F1",
           "mcc": "MCC", "cldice": "clDice"}
# Folders in results/ that are committed: the published sets, and those that are read as a CSV.
CSVS = {"les_av": "LES-AV", "dr_hagis": "DR HAGIS"}


def title(name):
    """Name of a set for readers."""
    return titles().get(name, name)


def titles():
    """The sets of committed results: `{name: title}`."""
    return {**{dataset.name: dataset.title for dataset in published.DATASETS}, **CSVS}


def label(metrics, *others):
    """What a row is called: the network's name and, if it is unusual, how it was scored.

    `others`: other trainings of the row, each scored at its own threshold.
    """
    words, trained_on = [metrics["name"]], metrics["trained_on"]
    if trained_on not in ("", metrics["dataset"]) and "+" not in trained_on:
        words[0] += f" of {title(trained_on)}"
    if metrics.get("unfinished"):
        words.append("unfinished")
    if metrics.get("precision"):
        words.append(metrics["precision"])
    thresholds = sorted({training["threshold"] for training in (metrics, *others)})
    if thresholds != [0.5]:
        words.append(f"threshold {' or '.join(map(str, thresholds))}")
    return ", ".join(words)


def rows(metrics, protocol):
    """`[(name, scores)]` of the table: ours, the paper's if it was scored by this protocol, the second observer's."""
    scored = [(label(metrics), metrics[protocol])]
    paper = metrics["published"]
    if paper and paper["scored"] == protocol and (metrics["variant"] == "rsan" or "maps" in metrics):
        scored.append((paper["method"], paper))
    if metrics["second_observer"]:
        scored.append(("second observer", metrics["second_observer"][protocol]))
    return scored


def cell(value):
    return "-" if value is None else f"{value:.4f}"


def table(metrics):
    """The scores, and their mean and standard deviation over the images, in 80 columns of plain text: str."""
    lines, room = [], 76 - 7 * len(COLUMNS)
    for protocol, scored in SCORED.items():
        lines.append(f"\n{title(metrics['dataset'])}, {metrics['n_images']} test images, {scored}")
        lines.append(" " * (room + 1) + "".join(f"{head:>7}" for head in COLUMNS.values()))
        means = ("mean of the images", metrics["mean"][protocol]), ("standard deviation", metrics["std"][protocol])
        for name, scores in [*rows(metrics, protocol), *means]:
            if len(name) > room:
                lines.append(name)
                name = ""
            lines.append(f"{name:{room}} " + "".join(f" {cell(scores.get(key)):>6}" for key in COLUMNS))
    return "\n".join(lines)


def markdown(head, body):
    """A table in Markdown: str, empty without rows. `head`: titles of the columns; `body`: rows, lists of str."""
    lines = [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *body)]
    return "\n".join(lines) + "\n" if body else ""


def results_of(name, results_dir):
    """Results on the set of this name: `{folder: metrics}`, by name of the folder.

    Results of older versions lack "name"; it is then the folder's. Their scores of photographs that a network has
    learned from are left out.
    """
    results = {}
    for path in sorted((results_dir / name).glob("*/metrics.json")):
        metrics = read_json(path)
        if "seen_in_training" not in metrics:
            results[path.parent.name] = {"name": path.parent.name, **metrics}
    return results


def trainings(results):
    """The results of each network in all its trainings: `{folder of the first: [metrics]}`.

    `results` is that of `results_of`. Seeds are in the names of folders: rsan, rsan_seed1, rsan_seed2.
    """
    groups = {}
    for folder, metrics in results.items():
        groups.setdefault(re.sub(r"_seed\d+", "", folder), []).append(metrics)
    return groups


def spread(seeds, protocol, key):
    """Mean of a metric over trainings, with the standard deviation if there are several: str."""
    values = [metrics[protocol].get(key) for metrics in seeds]
    if None in values:
        return "-"
    deviation = f" ± {np.std(values, ddof=1):.4f}" if len(values) > 1 else ""
    return f"{np.mean(values):.4f}{deviation}"
