"""The effect of attention and DropBlock: networks compared with those that lack them, with intervals."""

import numpy as np
from scipy.stats import bootstrap

from vessels import UserError
from vessels.data import published
from vessels.report import tables

KEYS = {"f1": "F1", "auc": "AUC"}
RECIPES = {"": "default", "_authors": "authors'", "_augmented": "augmented"}  # by the ends of folders' names
HEAD = ("network", "minus", "set", "recipe", *KEYS.values(), "trainings", "trainings of the other")


def groups(results):
    """The networks of one set that may be compared: `{recipe: {variant: [metrics of each training]}}`.

    `results` is that of `tables.results_of`; folders are named after variant and recipe, as rsan_authors.
    """
    trainings = tables.trainings(results)
    found = {}
    for recipe in RECIPES:
        group = {seeds[0]["variant"]: seeds for folder, seeds in trainings.items()
                 if folder == seeds[0]["variant"] + recipe}
        if len(group) > 1 and "backbone" in group:
            found[recipe] = dict(sorted(group.items(), reverse=True))
    return found


def scores_of_images(seeds, key):
    """float `(seeds, images)`: `key` of each test image inside the field of view, sorted by image name."""
    scores = [{one["image"]: one["inside_fov"][key] for one in metrics["per_image"]} for metrics in seeds]
    return np.array([[one[name] for name in sorted(one)] for one in scores], float)


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
    found = bootstrap((np.arange(scores.shape[1]), *trainings), statistic, vectorized=True, method="percentile",
                      rng=np.random.default_rng(0)).confidence_interval
    return float(scores.mean() - reference.mean()), float(found.low), float(found.high)


def comparisons(results_dir):
    """Compares every network with the backbone of the same recipe, and RSAN with all others.

    Returns:
        list of dicts: `recipe`, `set`, `network`, `reference` (the other network), `trainings` (of both), `images`,
        and `f1` and `auc`, each a result of `difference`.

    Raises:
        UserError: Two networks were scored on different images.
    """
    found = []
    for dataset in published.DATASETS:
        for recipe, group in groups(tables.results_of(dataset.name, results_dir)).items():
            pairs = [(variant, reference) for variant in group for reference in group
                     if variant != reference and (variant == "rsan" or reference == "backbone")]
            for variant, reference in pairs:
                seeds, others = group[variant], group[reference]
                images = {tuple(sorted(one["image"] for one in metrics["per_image"])) for metrics in seeds + others}
                if len(images) > 1:
                    raise UserError(f"{results_dir / dataset.name}: {variant} and {reference} were scored on different "
                                    "images; evaluate both again")
                found.append({"recipe": RECIPES[recipe], "set": dataset.title, "network": variant,
                              "reference": reference, "trainings": (len(seeds), len(others)), "images": len(*images),
                              **{key: difference(scores_of_images(seeds, key), scores_of_images(others, key))
                                 for key in KEYS}})
    return found


def cells(comparison):
    """A row of the table, list of str; differences in thousandths."""
    spans = ("{:+.2f} [{:+.2f}, {:+.2f}]".format(*(1000 * value for value in comparison[key])) for key in KEYS)
    return [*(comparison[key] for key in ("network", "reference", "set", "recipe")), *spans,
            *map(str, comparison["trainings"])]


def conclusion(compared):
    """Summary of the comparisons of one recipe and set: str, a sentence for each metric."""
    sentences = []
    for key, title in KEYS.items():
        told = [f"{one['network']} is {'higher' if one[key][1] > 0 else 'lower'} than {one['reference']}"
                for one in compared if one[key][1] > 0 or one[key][2] < 0]
        reach = 1000 * max(abs(end) for one in compared for end in one[key][1:])
        verdict = ", ".join(told) or "no network can be distinguished from another"
        sentences.append(f"In {title}, {verdict}; the intervals extend up to {reach:.1f} thousandths from zero.")
    first = compared[0]
    return f"{first['set']}, {first['recipe']} recipe, {first['images']} images. {' '.join(sentences)}"


def conclusions(compared):
    """list of str, a `conclusion` for each recipe and set."""
    both = dict.fromkeys((one["recipe"], one["set"]) for one in compared)
    return [conclusion([one for one in compared if (one["recipe"], one["set"]) == key]) for key in both]


def markdown(results_dir):
    """Table and conclusions in Markdown: str, empty where there is nothing to compare."""
    compared = comparisons(results_dir)
    if not compared:
        return ""
    texts = "\n".join(f"- {text}" for text in conclusions(compared))
    return f"{tables.markdown(HEAD, [cells(one) for one in compared])}\n{texts}\n"
