"""Tables of results, for terminals and in Markdown."""

import json
from pathlib import Path

import numpy as np

from vessels.data import datasets
from vessels.files import ROOT

TITLES = {**{dataset.name: dataset.title for dataset in datasets.DATASETS}, "synthetic": "SYNTHETIC"}
SCORED = {"whole_image": "whole image", "inside_fov": "inside the field of view"}
COLUMNS = {"auc": "AUC", "accuracy": "acc.", "sensitivity": "sens.", "specificity": "spec.", "f1": "F1",
           "mcc": "MCC", "cldice": "clDice"}
VARIANTS = ("rsan", "backbone_dropblock", "backbone")


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
