"""Compares the released networks with published ones, in eight rows and in full, and says how each was scored."""

import json

from vessels.data import published
from vessels.files import ROOT
from vessels.report import tables

FIGURES = ("auc", "accuracy", "sensitivity", "specificity", "f1")
HOW = ("pooling", "threshold", "test_time", "split", "comparable", "caveat")
HEAD = ("network", *(tables.COLUMNS[key] for key in FIGURES), "pooling", "comparable", "how it was scored", "caveat")
POOLINGS = ("pooled", "mean over images", "not stated")


def published_figures():
    """Content of results/published.json: rows for each set, with how they were scored; "field": general remarks."""
    return json.loads((ROOT / "results" / "published.json").read_text(encoding="utf-8"))


def paper(name):
    """The paper's scores on the set of this name: dict, empty for other sets and without results/published.json."""
    rows = published_figures().get(name, []) if (ROOT / "results" / "published.json").is_file() else []
    return next((row for row in rows if row["method"] == "RSAN (paper)"), {})


def ours(dataset, results_dir):
    """Rows, as in results/published.json, of RSAN trained on this set with seed 0, per recipe: pooled and means."""
    rows = []
    for _, metrics in tables.results_of(dataset, results_dir):
        recipe = metrics["weights"]["recipe"]
        if metrics["variant"] != "rsan" or metrics["trained_on"] != dataset.name or recipe["seed"]:
            continue
        training, validation, test = (len(dataset.splits[split]) for split in ("train", "validation", "test"))
        if recipe.get("train_on") == "train+validation":
            training, validation = training + validation, 0
        how = {"threshold": str(metrics["threshold"]), "test_time": "flips" if metrics.get("tta") else "none",
               "split": f"{training} training, {validation} validation, {test} test",
               "comparable": "ours", "caveat": ""}
        for scored in tables.SCORED:
            name, pooled = tables.rows(metrics, scored)[0]
            for pooling, scores in zip(POOLINGS, (pooled, metrics["mean"][scored]), strict=False):
                rows.append({"method": name, "scored": scored, "pooling": pooling, **how, **scores})
    return rows


def blocks(dataset, results_dir):
    """The tables of one set: `{protocol: [(kind, cells)]}`, empty if we have no results.

    A published row follows our row that was scored in the same way. `kind` is "ours", or whether the row is
    comparable, "yes" or "no".
    """
    if not (found := ours(dataset, results_dir)):
        return {}
    words = {True: "yes", False: "no"}
    found += [{**row, "comparable": words[row["comparable"]]} for row in published_figures().get(dataset.name, [])]
    found.sort(key=lambda row: POOLINGS.index(row["pooling"]))
    return {scored: [(row["comparable"], cells(row)) for row in found if row["scored"] == scored]
            for scored in tables.SCORED}


def cells(row):
    name = ", ".join(str(row[key]) for key in ("method", "year") if key in row)
    how = f"threshold {row['threshold']}; averaging {row['test_time']}; images {row['split']}"
    figures = (tables.cell(row.get(key)) for key in FIGURES)
    return [name, *figures, row["pooling"], row["comparable"], how, row["caveat"]]


def markdown(results_dir):
    """The tables of all sets and the general remarks, in Markdown: str, empty if there are no results."""
    lines = []
    for dataset in published.DATASETS:
        for scored, found in blocks(dataset, results_dir).items():
            lines += [f"### {dataset.title}, {tables.SCORED[scored]}", "", tables.markdown_row(*HEAD),
                      tables.markdown_row(*["---"] * len(HEAD)), *(tables.markdown_row(*row) for _, row in found), ""]
    return "\n".join([*lines, *(f"- {text}" for text in published_figures()["field"])]) + "\n" if lines else ""


def short_table(results_dir):
    """Markdown, four rows for each set: ours and the paper's, scored as in the paper, then ours and the second
    observer's, scored as by most others. str, empty if there are no results.
    """
    head = "set", "scored", "network", *(tables.COLUMNS[key] for key in FIGURES)
    lines = [tables.markdown_row(*head), tables.markdown_row(*["---"] * len(head))]
    beside = {"whole_image": "RSAN (paper)", "inside_fov": "second observer"}
    for dataset in published.DATASETS:
        own = [metrics for _, metrics in tables.results_of(dataset, results_dir)
               if metrics["variant"] == "rsan" and metrics["trained_on"] == dataset.name][:1]
        for scored, other in beside.items():
            found = [row for metrics in own for row in tables.rows(metrics, scored)]
            for name, scores in [*found[:1], *(row for row in found if row[0] == other)]:
                cells = (tables.cell(scores.get(key)) for key in FIGURES)
                lines.append(tables.markdown_row(dataset.title, tables.SCORED[scored], name, *cells))
    return "\n".join(lines) + "\n" if len(lines) > 2 else ""
