"""results/scores.csv: every metric of every network, with intervals."""

import csv
import functools
import io

import numpy as np

from vessels.metrics import METRICS, PROTOCOLS
from vessels.report import tables

FACTS = ("set", "folder", "network", "variant", "trained_on", "seed", "threshold", "images", "scored")


def interval(images):
    """Bootstrap 95 % interval of the mean over images: float `(2, metrics)`, low and high.

    `images`: float `(metrics, images)`. 9,999 times, images are drawn with replacement; percentiles of the means. NaN
    where a metric is undefined for an image.
    """
    return np.percentile(drawn_shares(images.shape[1]) @ images.T, [2.5, 97.5], axis=0)


@functools.cache
def drawn_shares(images):
    """float `(9999, images)`: the share of each image in each drawing of as many images, with replacement."""
    return np.random.default_rng(0).multinomial(images, np.full(images, 1 / images), 9999) / images


def of_images(metrics, protocol, keys):
    """float `(metrics, images)`: each image's scores; NaN where they are undefined or older results lack them."""
    return np.array([[image[protocol].get(key) for image in metrics["per_image"]] for key in keys], float)


def mean_and_interval(metrics, protocol, keys):
    """`(mean, low, high)` over images, float arrays `(metrics,)`; see `interval`."""
    images = of_images(metrics, protocol, keys)
    return images.mean(axis=1), *interval(images)


def csv_text(results_dir):
    """Content of scores.csv: str, a line for each network, set and protocol.

    For each metric four columns: pooled over all pixels (`f1`), mean over the images (`f1_mean`), and its interval
    (`f1_low`, `f1_high`), empty where they are undefined.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    ends = ("", "_mean", "_low", "_high")
    writer.writerow([*FACTS, *(f"{key}{end}" for key in METRICS for end in ends)])
    for name in tables.titles():
        for folder, metrics in tables.results_of(name, results_dir).items():
            facts = [name, folder, metrics["name"], metrics["variant"], metrics["trained_on"],
                     metrics["weights"]["recipe"]["seed"], metrics["threshold"], metrics["n_images"]]
            for protocol in PROTOCOLS:
                pooled = np.array([metrics[protocol].get(key) for key in METRICS], float)
                columns = np.stack([pooled, *mean_and_interval(metrics, protocol, METRICS)], axis=1)
                writer.writerow([*facts, protocol, *("" if np.isnan(value) else f"{value:.6f}"
                                                     for value in columns.ravel())])
    return text.getvalue()
