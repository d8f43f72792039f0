"""Where the released networks stand: in eight rows, and beside what others published, with how each row was scored."""

import json

from vessels.data import datasets
from vessels.files import ROOT
from vessels.report import tables

FIGURES = ("auc", "accuracy", "sensitivity", "specificity", "f1")
HOW = {"pooling": "pixels", "threshold": "threshold", "test_time": "averaged at prediction", "split": "images",
       "comparable": "comparable", "caveat": "caveat"}
HEAD = ("scored", "network", *(tables.COLUMNS[key] for key in FIGURES), *HOW.values())
POOLINGS = ("pooled", "mean over images", "not stated")


def published():
    """results/published.json: rows of each set's name, each with how it was scored; in "field" what holds for all."""
    return json.loads((ROOT / "results" / "published.json").read_text())


def ours(dataset, results_dir):
    """The set's own RSAN of seed 0, of each recipe: rows as in results/published.json, pooled and as means."""
    rows = []
    for _, metrics in tables.results_of(dataset, results_dir):
        recipe = metrics["weights"]["recipe"]
        if metrics["variant"] != "rsan" or metrics["trained_on"] != dataset.name or recipe["seed"]:
            continue
        training, validation, test = (len(dataset.splits[split]) for split in ("train", "validation", "test"))
        if recipe.get("train_on") == "train+validation":
            training, validation = training + validation, 0
        how = {"threshold": str(metrics["threshold"]), "test_time": "flips" if metrics.get("flips") else "none",
               "split": f"{training} training, {validation} validation, {test} test",
               "comparable": "ours", "caveat": ""}
        for scored in tables.SCORED:
            name, pooled = tables.rows(metrics, scored)[0]
            for pooling, scores in zip(POOLINGS, (pooled, metrics["mean"][scored]), strict=False):
                rows.append({"method": name, "scored": scored, "pooling": pooling, **how, **scores})
    return rows


def rows(dataset, results_dir):
    """Rows of the table of one set, `[(whether ours, cells)]`: each published row below ours that was scored alike."""
    if not (found := ours(dataset, results_dir)):
        return []
    words = {True: "yes", False: "no"}
    found += [{**row, "comparable": words[row["comparable"]]} for row in published().get(dataset.name, [])]
    found.sort(key=lambda row: (list(tables.SCORED).index(row["scored"]), POOLINGS.index(row["pooling"])))
    return [(row["comparable"] == "ours",
             [tables.SCORED[row["scored"]], ", ".join(str(row[key]) for key in ("method", "year") if key in row),
              *(tables.cell(row.get(key)) for key in FIGURES), *(row[key] for key in HOW)]) for row in found]


def markdown(results_dir):
    """The tables of all sets and what holds for all of them, in Markdown: str, empty where there are no results."""
    lines = []
    for dataset in datasets.DATASETS:
        if found := rows(dataset, results_dir):
            lines += [f"### {dataset.title}", "", tables.markdown_row(*HEAD), tables.markdown_row(*["---"] * len(HEAD)),
                      *(tables.markdown_row(*cells) for _, cells in found), ""]
    return "\n".join([*lines, *(f"- {text}" for text in published()["field"] if lines)])


def short_table(results_dir):
    """Markdown, four rows a set: ours beside the paper's, scored as the paper did, and ours beside the second
    observer's, scored as most others do. str, empty where there are no results.
    """
    head = "set", "scored", "network", *(tables.COLUMNS[key] for key in FIGURES)
    lines = [tables.markdown_row(*head), tables.markdown_row(*["---"] * len(head))]
    beside = {"whole_image": "RSAN (paper)", "inside_fov": "second observer"}
    for dataset in datasets.DATASETS:
        own = [metrics for _, metrics in tables.results_of(dataset, results_dir)
               if metrics["variant"] == "rsan" and metrics["trained_on"] == dataset.name][:1]
        for scored, other in beside.items():
            found = [row for metrics in own for row in tables.rows(metrics, scored)]
            for name, scores in [*found[:1], *(row for row in found if row[0] == other)]:
                cells = (tables.cell(scores.get(key)) for key in FIGURES)
                lines.append(tables.markdown_row(dataset.title, tables.SCORED[scored], name, *cells))
    return "\n".join(lines) + "\n" if len(lines) > 2 else ""
