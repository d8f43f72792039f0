"""Tables of results, for terminals and in Markdown."""

import json
import textwrap
from pathlib import Path

import numpy as np

from vessels.data import published
from vessels.files import ROOT

SCORED = {"whole_image": "whole image", "inside_fov": "inside the field of view"}
COLUMNS = {"auc": "AUC", "accuracy": "acc.", "sensitivity": "sens.", "specificity": "spec.", "f1": "F1",
           "mcc": "MCC", "cldice": "clDice"}


def title(name):
    """Name of a set for readers; for several sets, such as "DRIVE+CHASEDB1", all their names."""
    titles = {**{dataset.name: dataset.title for dataset in published.DATASETS}, "synthetic": "SYNTHETIC"}
    return " and ".join(titles.get(part, part) for part in name.split("+"))


def own(metrics):
    """Whether the network was trained on the set on which it is scored, alone or with others."""
    return metrics["dataset"] in metrics["trained_on"].split("+")


def marks(metrics):
    """Suffix of a network's name that says how it was scored, if unusually: str, empty for most networks."""
    seen, threshold = metrics.get("seen_in_training", []), metrics.get("threshold", 0.5)
    widths = metrics.get("widths", [])
    widths = len(widths["diameters"] if isinstance(widths, dict) else widths)
    return (f", mean of {widths} widths" * (widths > 1)
            + f", threshold {threshold:g}" * (threshold != 0.5)
            + f", {len(seen)} of the photographs SEEN IN TRAINING" * bool(seen))


def network(metrics):
    """Name of the network in tables: str, such as "rsan", "rsan, authors' recipe" or, if it was trained on another
    set, "rsan of CHASE DB1".
    """
    if "maps" in metrics:
        return f"maps of {metrics['maps']}{marks(metrics)}"
    name, options = metrics["variant"], metrics["weights"]["recipe"]
    recipe = options.get("recipe", "patches")
    if recipe == "any" or "+" in metrics["trained_on"]:
        name += ", any camera"
    else:
        name += {"patches": "", "authors": ", authors' recipe"}.get(recipe, f", {recipe} recipe")
        name += ", all training images" * (options.get("train_on") == "train+validation")
    name += ", TTA" * bool(metrics.get("tta")) + ", unfinished" * metrics.get("unfinished", False)
    of = "" if own(metrics) else f"{', trained on' * ('any camera' in name) or ' of'} {title(metrics['trained_on'])}"
    return name + of + marks(metrics)


def rows(metrics, protocol, name=None):
    """`[(name, scores)]` of the table: ours, the paper's (empty for the other protocol), the second observer's."""
    seed = metrics["weights"]["recipe"]["seed"]
    ours = (name or network(metrics)) + f", seed {seed}" * bool(seed) + " (here)" * own(metrics)
    found = [(ours, metrics[protocol])]
    paper = metrics["published"]
    if paper and (metrics["variant"] == "rsan" or "maps" in metrics):
        found.append((paper["method"], paper if paper["scored"] == protocol else {}))
    if metrics["second_observer"]:
        found.append(("second observer", metrics["second_observer"][protocol]))
    return found


def cell(value):
    return value if isinstance(value, str) else "-" if value is None else f"{value:.4f}"


def table(metrics):
    """The table of `metrics` for a terminal of 80 columns: str."""
    lines, room = [], max(12, min(25, 76 - 7 * len(COLUMNS)))
    for protocol, scored in SCORED.items():
        lines.append(f"\n{title(metrics['dataset'])}, {metrics['n_images']} test images, {scored}")
        lines.append(" " * (room + 1) + "".join(f"{head:>7}" for head in COLUMNS.values()))
        for name, scores in rows(metrics, protocol):
            first, *rest = textwrap.wrap(name, room)
            lines.append(f"{first:{room}} " + "".join(f" {cell(scores.get(key)):>6}" for key in COLUMNS))
            lines += [f"  {part}" for part in rest]
    return "\n".join(lines)


def markdown_row(*cells):
    return f"| {' | '.join(cells)} |"


def table_markdown(metrics):
    """The same table in Markdown: str; with mean and standard deviation over the images."""
    head = f"{title(metrics['dataset'])}, {metrics['n_images']} test images", "scored", *COLUMNS.values()
    lines = [markdown_row(*head), markdown_row(*["---"] * len(head))]
    for protocol, scored in SCORED.items():
        mean, std = metrics["mean"][protocol], metrics["std"][protocol]
        spread = (f"{cell(mean.get(key))} ± {cell(std.get(key))}" for key in COLUMNS)
        lines += [markdown_row(name, scored, *(cell(scores.get(key)) for key in COLUMNS))
                  for name, scores in rows(metrics, protocol)]
        lines.append(markdown_row(f"{network(metrics)}, mean ± std of the images", scored, *spread))
    return "\n".join(lines) + "\n"


def results_of(dataset, results_dir):
    """`[(folder, metrics)]` of a data set: first networks trained on this set, sorted by recipe, variant (rsan first)
    and seed; then those trained on several sets, then those of another set.
    """
    def place(found):
        metrics = found[1]
        recipe = metrics["weights"]["recipe"]
        kind = recipe.get("recipe", "patches")
        return (not own(metrics), metrics["trained_on"] != dataset.name, kind != "patches", kind,
                metrics["variant"] != "rsan", metrics["variant"], recipe["seed"], found[0].name)

    found = [(path.parent, {"trained_on": dataset.name, **json.loads(path.read_text(encoding="utf-8"))})
             for path in (results_dir / dataset.name).glob("*/metrics.json")]
    return sorted(found, key=place)


def differences(one, other):
    """Differences of two recipes, except in variant and seed: list of str, such as "epochs 7" for `one`. A key that
    only one recipe has is ignored, because the other recipe is older than the key.
    """
    keys = [key for key in one if key in other and key not in ("variant", "seed") and one[key] != other[key]]
    return [f"other {key}" if isinstance(one[key], dict) else f"{key} {one[key]}" for key in keys]


def grouped(all_metrics):
    """`[(name, [metrics of each seed])]`: one entry for each network and recipe; no name occurs twice."""
    groups = {}
    for metrics in all_metrics:
        recipe, name = metrics["weights"]["recipe"], network(metrics)
        if name in groups:
            name = ", ".join([name, *differences(recipe, groups[name][0]["weights"]["recipe"])])
        if recipe["seed"] in [one["weights"]["recipe"]["seed"] for one in groups.get(name, [])]:
            name += f", {metrics['weights']['file']}"
        groups.setdefault(name, []).append(metrics)
    return list(groups.items())


def all_rows(all_metrics, protocol):
    """Rows of a table of several networks: all of ours, with mean and standard deviation if there are several seeds;
    then, once for all networks, the paper and the second observer.
    """
    def spread(values):
        return f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}" if None not in values else None

    ours = []
    for name, seeds in grouped(all_metrics):
        ours.append(rows(seeds[0], protocol, name)[0])
        if len(seeds) > 1:
            ours.append((f"{name}, mean ± std of {len(seeds)} seeds",
                         {key: spread([metrics[protocol].get(key) for metrics in seeds]) for key in COLUMNS}))
    return ours + (rows(all_metrics[0], protocol)[1:] if all_metrics else [])


def readme_table(results_dir=ROOT / "results"):
    """Markdown of all `<results_dir>/<set>/<network>/metrics.json`: str, empty if there are none."""
    head = "set", "scored", "network", *COLUMNS.values()
    lines = [markdown_row(*head), markdown_row(*["---"] * len(head))]
    for dataset in published.DATASETS:
        all_metrics = [metrics for _, metrics in results_of(dataset, Path(results_dir))]
        for protocol, scored in SCORED.items():
            for name, scores in all_rows(all_metrics, protocol):
                cells = (cell(scores.get(key)) for key in COLUMNS)
                lines.append(markdown_row(dataset.title, scored, name, *cells))
    return "\n".join(lines) + "\n" if len(lines) > 2 else ""
