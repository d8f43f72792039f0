"""results/scores.csv: every metric of every network, with intervals."""

import csv
import io

import numpy as np

from vessels.metrics import METRICS, PROTOCOLS
from vessels.report import tables

FACTS = ("set", "folder", "network", "variant", "trained_on", "seed", "threshold", "images", "scored")


def mean_and_interval(metrics, protocol, keys):
    """`(mean, low, high)` over images, float arrays `(metrics,)`, with the bootstrap 95 % interval.

    9,999 times, images are drawn with replacement; percentiles of the means. NaN where a metric is undefined for an
    image, or missing in older results.
    """
    images = np.array([[image[protocol].get(key) for image in metrics["per_image"]] for key in keys], float)
    count = images.shape[1]
    shares = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), 9999) / count
    return images.mean(axis=1), *np.percentile(shares @ images.T, [2.5, 97.5], axis=0)


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
