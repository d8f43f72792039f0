"""The command behind eval_*.py: predicts maps with given weights, scores them, and writes tables and pictures."""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from vessels import UserError, add_threshold, exit_code, network
from vessels.files import write_atomically
from vessels.jobs import plan
from vessels.metrics import evaluate
from vessels.prediction import external_maps, maps
from vessels.prediction.flips import average_flips
from vessels.record import environment, known_widths
from vessels.report import bland_altman, comparison, page, plots, tables

from pretrained import load_network


def parse(dataset, description, argv=None):
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=description, formatter_class=raw)
    general = dataset.general
    if general:
        parser.add_argument("sources", nargs="*", default=list(dataset.sources), metavar="SET", help="data to score: "
                            "CSVs of your own photographs, DRIVE, CHASEDB1, HRF (default: "
                            f"{' '.join(dataset.sources)})")
    several = {"action": "append"} if general else {"nargs": "*"}  # --weights must not swallow the sources
    parser.add_argument("--weights" if general else "weights", **several, type=Path, metavar="WEIGHTS", default=[],
                        help="weights files, folders of them, or names of released ones (drive). The JSON beside each "
                        "file describes its network and training data. For a network trained on another set, "
                        "photographs are scaled to that set's field of view "
                        f"(default: weights/{dataset.key}_rsan.weights.h5)")
    parser.add_argument("--maps", type=Path, metavar="FOLDER", help="instead of using a network, score probability "
                        "maps of any program: grey PNG or TIFF of the photograph's size, 8 or 16 bit (the largest "
                        "value is 1) or float in [0, 1], named as the photographs or as predict.py names them; writes "
                        "to FOLDER/results/<set>")
    add_threshold(parser)
    parser.add_argument("--network", help="the module that defines the network: my_unet for a file my_unet.py beside "
                        "this script (default: the one in the weights' JSON)")
    parser.add_argument("--data-dir", type=Path, help=f"folder of {dataset.name.replace('+', ' and ')}, or the one "
                        "that contains it (default: $RSAN_DATA_ROOT or data/)")
    parser.add_argument("--output-dir", type=Path, help="folder for metrics, table, curves, panels and maps (default: "
                        "results/<set>/<name of the weights> for files in weights/, else results/ beside the weights)")
    parser.add_argument("--flips", action="store_true", help="average the maps of each photograph and its three mirror "
                        "images: takes four times as long; default folders then end in _flips, and tables say so")
    parser.add_argument("--synthetic", action="store_true", help="score the weights that "
                        f"`train_{dataset.key}.py --synthetic` wrote, on procedural images; write beside them")
    parser.add_argument("--allow-modified", action="store_true",
                        help="continue even if the weights' SHA-256 is not the one in their JSON")
    parser.add_argument("--allow-seen", action="store_true",
                        help="also score photographs on which the network was trained; every table says so")
    arguments = parser.parse_args(argv)
    if arguments.maps and (arguments.weights or arguments.synthetic or arguments.flips):
        parser.error("--maps scores no network: leave WEIGHTS, --flips and --synthetic out")
    named = general and arguments.sources != list(dataset.sources)
    if arguments.synthetic and (named or arguments.weights or arguments.data_dir):
        parser.error("--synthetic uses its own weights and images: omit any SET, WEIGHTS and --data-dir")
    return arguments


def main(dataset, default, description, argv=None):
    """The command line of `eval_drive.py`, `eval_chase.py` and `eval_any.py`.

    Args:
        dataset: A `published.Dataset`, or `sources.Several`, in whose place the command line may name other sources.
        default: Name of the module that defines the network, see `vessels/network.py`.
        description: Text of `--help`.

    Returns:
        Exit code: 0; 2 after an error that names the remedy.
    """
    arguments = parse(dataset, description, argv)

    def command():
        source = None
        for job in plan(dataset, default, arguments):
            if job.source != source:
                source = job.source
                source.check("test")
                examples = source.load("test")
            made = (score_weights(job, examples, arguments.flips) if job.weights
                    else score_maps(arguments.maps, examples))
            threshold = arguments.threshold or job.record.get("threshold", 0.5)
            run_evaluation(job, made, examples, threshold)
        return 0

    return exit_code(command)


def score_maps(folder, examples):
    """Reads maps of any program: `(maps, entries for metrics.json, line to print, seconds)`."""
    began = time.time()
    probabilities = external_maps.read_maps(folder, examples)
    facts = {"variant": folder.resolve().name, "trained_on": "", "maps": folder.resolve().name,
             "weights": {"file": None, "sha256": None, "parameters": None, "recipe": {"seed": 0}}}
    if probabilities[0].dtype == bool:
        print(f"{folder}: the maps are black and white, so there is no AUC and no curve")
    return probabilities, facts, f"maps      {folder}", time.time() - began


def score_weights(job, examples, flips):
    """Predicts the maps with the network that the record describes; returns the same as `score_maps`."""
    dataset, weights, record = job.source, job.weights, job.record
    if "network_sha256" in record:
        print(f"network   {network.find(job.network)}", flush=True)
    module = network.load(job.network)
    model = load_network(module.build, module.load_weights, weights, record)
    began = time.time()
    probabilities = predict(dataset, model, examples, weights, record, flips)
    facts = {
        "name": record["name"],
        "variant": record["variant"],
        "trained_on": record["dataset"],
        **{key: record[key] for key in ("unfinished",) if key in record},
        **({"tta": True} if flips else {}),
        **({"widths": widths.as_record()} if (widths := widths_for(dataset, weights, record)) else {}),
        **({"started_from": record["started_from"]["file"]} if "started_from" in record else {}),
        "weights": {"file": weights.name, "sha256": record["sha256"], "parameters": model.count_params(),
                    "recipe": {**record["recipe"],
                               **{key: record[key] for key in ("loss", "augmentation") if key in record}}},
    }
    return probabilities, facts, f"weights   {weights}", time.time() - began


def run_evaluation(job, made, examples, threshold):
    """Scores the maps in `made`, writes the results (complete once `metrics.json` exists), and prints the table."""
    dataset, record, output, seen = job.source, job.record, job.output, job.seen
    probabilities, facts, source, seconds = made
    began = time.time()
    try:
        scores = evaluate(examples, probabilities, threshold)
        for one, example, found in zip(scores["per_image"], examples, probabilities, strict=True):
            one["measures"] = bland_altman.measures(example, found, threshold)
    except ValueError as error:
        raise UserError(f"{source.split(maxsplit=1)[1]}: {error}; these cannot be scored, name others") from None
    scored = time.time()
    metrics = {
        "dataset": dataset.name,
        **facts,
        **({"seen_in_training": seen} if seen else {}),
        "threshold": threshold,
        "n_images": len(examples),
        **scores,
        **({"photographs": {photograph.name: photograph.digests["image"] for photograph in dataset.photographs("test")}}
           if dataset.own else {}),
        "published": comparison.paper(dataset.name),
        "environment": environment(predicting=True),
        "seconds": {"predicting": round(seconds, 2), "scoring": round(scored - began, 2)},
    }
    pictures = write_results(output, examples, probabilities, metrics, record)
    if dataset.own:
        page.write_page_of(output, dataset, metrics, examples)
        pictures["index.html"] = b""
    print(f"{source}\nwritten   {output}/: metrics.json, table.md,\n"
          f"          {', '.join([*pictures, 'panels/', 'probabilities/'])}\n"
          f"seconds   {seconds / len(examples):.2f} to predict an image, "
          f"{scored - began:.2f} to score all {len(examples)}")
    ranked = sorted(metrics["per_image"], key=lambda one: one["inside_fov"]["f1"] or 0)
    for word, one in (("worst", ranked[0]), ("best", ranked[-1])):
        print(f"{word:9} {one['image']}: F1 {tables.cell(one['inside_fov']['f1'])} inside the field of view")
    if dataset.name == "synthetic":
        print(f"\nSYNTHETIC IMAGES: these scores say nothing about {dataset.title}.")
    if seen:
        print(f"\nSEEN IN TRAINING: {', '.join(seen)}; these scores say nothing about other photographs.")
    print(tables.table(metrics))


def widths_for(dataset, weights, record):
    """`Widths` to which fields of view are scaled; None if images are predicted unscaled."""
    as_it_is = record["dataset"] == dataset.name and record["recipe"].get("recipe") != "any"
    return None if as_it_is else known_widths(weights, record)


def predict(dataset, model, examples, weights, record, flips=False):
    """The maps of all examples: list of float32 `(height, width)`; with `flips`, averages over mirror images.

    If the network was trained on unscaled images of this set (or synthetic ones of its size), images are padded as in
    training. Otherwise they are scaled to the size on which the network was trained.
    """
    widths = widths_for(dataset, weights, record)

    def see(image, fov):
        if not widths:
            return maps.predict_image(model, image, dataset.padded)
        return maps.predict_photograph(model, image, widths, fov=fov).probability

    probabilities = []
    for i, example in enumerate(examples):
        print(f"\rpredicting {i + 1}/{len(examples)} ", end="", file=sys.stderr, flush=True)
        seen = example.image, example.fov
        probabilities.append(average_flips(see, *seen) if flips else see(*seen))
    print(file=sys.stderr)
    return probabilities


def write_results(output, examples, probabilities, metrics, record):
    """Writes maps, panels, curves and tables, then `metrics.json`. Returns the curves: dict of PNG bytes by name."""
    for example, probability in zip(examples, probabilities, strict=True):
        sixteen = Image.fromarray(np.round(probability * 65535.0).astype("uint16"))
        for folder, picture in (("probabilities", plots.png(sixteen)),
                                ("panels", plots.panel(example, probability, metrics["threshold"]))):
            write_atomically(output / folder / f"{example.name}.png", picture)
    pictures = plots.curves(examples, probabilities, metrics) if probabilities[0].dtype != bool else {}
    if record.get("history"):
        pictures["history.png"] = plots.history_plot(record["history"], record["validation"]["epoch"])
    for name, picture in pictures.items():
        write_atomically(output / name, picture)
    write_atomically(output / "table.md", tables.table_markdown(metrics))
    write_atomically(output / "metrics.json", json.dumps(metrics, indent=1) + "\n")
    return pictures
