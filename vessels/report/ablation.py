"""The effect of attention and DropBlock: networks compared with those that lack them, with intervals."""

import itertools

import numpy as np
from scipy.stats import bootstrap

from vessels.data import published
from vessels.report import tables

KEYS = {"f1": "F1", "auc": "AUC"}
RECIPES = {"": "default", "_authors": "authors'"}  # by the ends of folders' names
HEAD = ("network", "minus", "set", "recipe", *KEYS.values(), "trainings", "trainings of the other")


def scores_of_images(seeds, key):
    """float `(seeds, images)`: `key` of each test image inside the field of view."""
    return np.array([[image["inside_fov"][key] for image in metrics["per_image"]] for metrics in seeds], float)


def difference(scores, reference):
    """Mean difference of two networks over test images and trainings, with its 95 % interval.

    `scipy.stats.bootstrap` draws the images (each with the scores of both networks) and the trainings of each network
    9,999 times with replacement, and takes percentiles. A single training is always drawn.

    Args:
        scores, reference: float `(trainings, images)`, of the same images in the same order.

    Returns:
        `(mean, low, high)`, floats.
    """
    def statistic(images, trainings, reference_trainings, axis=-1):
        sides = (scores, trainings), (reference, reference_trainings)
        ours, theirs = (side[drawn[..., :, None], images[..., None, :]].mean((-2, -1)) for side, drawn in sides)
        return ours - theirs

    # `bootstrap` needs at least two items to draw from.
    trainings = [np.resize(np.arange(len(side)), max(len(side), 2)) for side in (scores, reference)]
    interval = bootstrap((np.arange(scores.shape[1]), *trainings), statistic, vectorized=True, method="percentile",
                         rng=np.random.default_rng(0)).confidence_interval
    return float(scores.mean() - reference.mean()), float(interval.low), float(interval.high)


def comparisons(results_dir):
    """Every two networks of the same set and recipe: rows of the table, lists of str; differences in thousandths.

    Folders of results are named after variant and recipe, as rsan_authors.
    """
    body = []
    for dataset, (end, recipe) in itertools.product(published.DATASETS, RECIPES.items()):
        trainings = tables.trainings(tables.results_of(dataset.name, results_dir))
        group = {folder.removesuffix(end): seeds for folder, seeds in trainings.items()
                 if folder == seeds[0]["variant"] + end}
        # The backbone is subtracted from all others, so that what they add to it is positive.
        ordered = sorted(group, key=lambda variant: (variant != "backbone", variant), reverse=True)
        for pair in itertools.combinations(ordered, 2):
            both = [group[variant] for variant in pair]
            row = [*pair, dataset.title, recipe]
            for key in KEYS:
                span = difference(*(scores_of_images(seeds, key) for seeds in both))
                row.append("{:+.2f} [{:+.2f}, {:+.2f}]".format(*(1000 * value for value in span)))
            body.append([*row, *(str(len(seeds)) for seeds in both)])
    return body


def markdown(results_dir):
    """The table in Markdown: str, empty where there is nothing to compare."""
    return tables.markdown(HEAD, comparisons(results_dir))
