"""Tables that compare the released networks: with the paper, on other cameras, with published methods, in groups."""

import numpy as np

from vessels.data import published
from vessels.files import ROOT, read_json
from vessels.report import tables

FIGURES = ("auc", "accuracy", "sensitivity", "specificity", "f1")
INSIDE = ("auc", "f1", "cldice")
THIN = ("f1", "auc", "sensitivity_thin", "sensitivity_thick")
# Folders in results/<set>/ of the networks in each table.
REPRODUCTION = ("rsan", "backbone", "backbone_dropblock", "rsan_authors", "backbone_dropblock_authors")
CAMERAS = ("any_rsan", "rsan_of_DRIVE", "rsan_of_CHASEDB1")
GENERAL = "any_rsan"
EYES = {"h": "healthy eyes", "dr": "diabetic retinopathy", "g": "glaucoma"}  # by the ends of HRF's names
TITLES = tuple(tables.COLUMNS[key] for key in FIGURES)


def published_scores(name):
    """Rows of results/published.json on the set of this name: list of dicts, with how they were scored."""
    return read_json(ROOT / "results" / "published.json").get(name, [])


def paper(name):
    """The paper's scores on the set of this name: dict, empty for other sets."""
    return next((row for row in published_scores(name) if row["method"] == "RSAN (paper)"), {})


def networks(name, folders, results_dir):
    """`{folder: [metrics of each training]}` of those `folders` that hold results on the set of this name."""
    groups = tables.trainings(tables.results_of(name, results_dir))
    return {folder: groups[folder] for folder in folders if folder in groups}


def cells(scores, keys=FIGURES):
    return [tables.cell(scores.get(key)) for key in keys]


def rsan(results_dir):
    """`[(dataset, metrics)]` of RSAN with seed 0 on each published set."""
    results = [(dataset, tables.results_of(dataset.name, results_dir)) for dataset in published.DATASETS]
    return [(dataset, of_set["rsan"]) for dataset, of_set in results if "rsan" in of_set]


def reproduction(results_dir):
    """Markdown: mean and standard deviation over trainings, with the paper and the second observer."""
    body = []
    for dataset, metrics in rsan(results_dir):
        for seeds in networks(dataset.name, REPRODUCTION, results_dir).values():
            body.append([dataset.title, tables.label(*seeds), str(len(seeds)),
                         *(tables.spread(seeds, "whole_image", key) for key in FIGURES),
                         *(tables.spread(seeds, "inside_fov", key) for key in INSIDE)])
        inside = dict(tables.rows(metrics, "inside_fov"))
        body += [[dataset.title, name, "", *cells(whole), *cells(inside.get(name, {}), INSIDE)]
                 for name, whole in tables.rows(metrics, "whole_image")[1:]]
    inside = (f"{tables.COLUMNS[key]}, field of view" for key in INSIDE)
    return tables.markdown(["set", "network", "trainings", *TITLES, *inside], body)


def cameras(results_dir, folders=CAMERAS):
    """Markdown: networks on photographs of cameras from which they did not learn, and the general network."""
    body = [[title, tables.label(*seeds), str(len(seeds)), str(seeds[0]["n_images"]),
             *(tables.spread(seeds, "inside_fov", key) for key in FIGURES)]
            for name, title in tables.titles().items() for seeds in networks(name, folders, results_dir).values()]
    return tables.markdown(["set", "network", "trainings", "images", *TITLES], body)


def general(results_dir):
    """Markdown: the general network on each set."""
    return cameras(results_dir, [GENERAL])


def methods(results_dir):
    """Markdown: RSAN trained on each set with seed 0, and below it the published methods that were scored alike."""
    body = []
    for dataset, metrics in rsan(results_dir):
        theirs = [row for row in published_scores(dataset.name) if row["comparable"]]
        for scored, words in tables.SCORED.items():
            ours = {"pooled": metrics[scored], "mean over images": metrics["mean"][scored]}
            for pooling, scores in ours.items():
                alike = [(f"{row['method']}, {row['year']}", row) for row in theirs
                         if (row["scored"], row["pooling"]) == (scored, pooling)]
                if alike:
                    body += [[dataset.title, words, name, *cells(row), pooling, row.get("caveat", "")]
                             for name, row in [(tables.label(metrics), scores), *alike]]
    return tables.markdown(["set", "scored", "network", *TITLES, "pooling", "caveat"], body)


def short_table(results_dir):
    """Markdown, four rows for each set: ours and the paper's, scored as in the paper, then ours and the second
    observer's, scored as by most others.
    """
    body = [[dataset.title, words, name, *cells(scores)] for dataset, metrics in rsan(results_dir)
            for protocol, words in tables.SCORED.items() for name, scores in tables.rows(metrics, protocol)[:2]]
    return tables.markdown(["set", "scored", "network", *TITLES], body)


def groups(results_dir):
    """Markdown: scores for thin and thick vessels, and for HRF's healthy and diseased eyes."""
    body = []
    for name, folder in (("DRIVE", "rsan"), ("CHASEDB1", "rsan"), ("HRF", GENERAL)):
        if metrics := tables.results_of(name, results_dir).get(folder):
            body += [[tables.title(name), who, f"all {metrics['n_images']}, pooled", *cells(scores, THIN)]
                     for who, scores in tables.rows(metrics, "inside_fov")]
            for end, words in EYES.items():
                images = [image["inside_fov"] for image in metrics["per_image"] if image["image"].endswith(f"_{end}")]
                if images:
                    means = np.array([[image[key] for key in THIN] for image in images], float).mean(axis=0)
                    body.append([tables.title(name), tables.label(metrics), f"{words}: {len(images)}, mean",
                                 *map(tables.cell, means)])
    head = ["set", "network", "images", "F1", "AUC", "sens., thin vessels", "sens., thick vessels"]
    return tables.markdown(head, body)
