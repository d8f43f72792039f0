"""The command behind eval_*.py: predicts maps with given weights, scores them, and writes tables and pictures."""

import argparse
import contextlib
import json
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from vessels import UserError, add_threshold, exit_code, quiet_imports
from vessels.data import custom, published, sources, synthetic
from vessels.files import ROOT, write_atomically
from vessels.metrics import evaluate
from vessels.prediction import external_maps, maps
from vessels.prediction.flips import average_flips
from vessels.record import environment, find_weights, known_widths, learned_from, load_network, read_record
from vessels.report import bland_altman, comparison, page, plots, tables


def parse(dataset, description, argv=None):
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=description, formatter_class=raw)
    general = isinstance(dataset, sources.Mixture)
    if general:
        parser.add_argument("sources", nargs="*", default=list(dataset.sources), metavar="SET", help="data to score: "
                            f"CSVs of your own photographs, DRIVE, CHASEDB1 (default: {' '.join(dataset.sources)})")
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


def main(dataset, network, description, argv=None):
    """The command line of `eval_drive.py`, `eval_chase.py` and `eval_any.py`.

    Args:
        dataset: A `published.Dataset`, or a `sources.Mixture`, in which the command line may name other sources.
        network: Function that imports and returns `(build, load_weights)`. `build` returns the network; its arguments
            are "model" in the weights' JSON. `load_weights(model, path)` raises ValueError if the file does not fit.
        description: Text of `--help`.

    Returns:
        Exit code: 0; 2 after an error that names the remedy.
    """
    arguments = parse(dataset, description, argv)

    def command():
        for part, jobs in plan(dataset, arguments):
            examples = {}
            for weights, record, output, seen in jobs:
                drawn = record["dataset"] == "synthetic"
                if drawn not in examples:
                    examples[drawn] = load(part, drawn, arguments.data_dir)
                made = score_weights(part, network, weights, record, examples[drawn], arguments.flips) if weights \
                    else score_maps(arguments.maps, examples[drawn])
                threshold = arguments.threshold or record.get("threshold", 0.5)
                run_evaluation(part, made, record, examples[drawn], output, threshold, seen)
        return 0

    return exit_code(command)


def plan(dataset, arguments):
    """List of what to score: `[(part, [(weights, record, output folder, names of photographs seen in training)])]`.

    All records are checked. For `--maps`, `weights` is None and `record` has only "dataset".
    """
    parts = [dataset]
    if isinstance(dataset, sources.Mixture) and not arguments.synthetic:
        parts = [sources.find(source) for source in arguments.sources]
    plans, outputs = [], set()
    for part in parts:
        if arguments.maps:
            jobs = [(None, {"dataset": part.name}, arguments.output_dir or arguments.maps / "results" / part.name, [])]
        else:
            jobs = weights_plan(dataset, part, arguments)
        for weights, _, output, _ in jobs:
            if output in outputs:
                raise UserError(f"{output}: the results of {weights or part.name} would overwrite others; score each "
                                "separately, with its own --output-dir")
            outputs.add(output)
            if isinstance(part, custom.Table):
                check_no_others(output, part)
        plans.append((part, jobs))
    return plans


def check_no_others(output, table):
    """UserError if `output` holds results of photographs that `table` does not score, such as another CSV's."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        scored = json.loads((output / "metrics.json").read_text(encoding="utf-8"))["photographs"]
        now = sources.photographs(table, "test").values()
        if foreign := [name for name, digest in scored.items() if digest not in now]:
            raise UserError(f"{output}: holds results of {len(foreign)} photographs that {table.path} does not score, "
                            f"such as {foreign[0]}; remove it, or give another --output-dir")


def weights_plan(dataset, part, arguments):
    default = ROOT / "weights" / f"{dataset.key}_rsan.weights.h5"
    train = f"python train_{dataset.key}.py"
    if arguments.synthetic:
        default = ROOT / "runs" / f"{dataset.key}-synthetic-rsan-0" / "final.weights.h5"
        train += " --synthetic"
    if not arguments.weights and not default.exists():
        raise UserError(f"{default}: no such weights; train them with `{train}`, or name others")
    jobs = []
    for weights in find_weights(arguments.weights) or [default]:
        table = isinstance(part, custom.Table)
        record = read_record(weights, arguments.allow_modified, None if table else part.name)
        if table and record["dataset"] == "synthetic":
            raise UserError(f"{weights}: trained on procedural images, of which your photographs show nothing; name "
                            "other weights")
        seen = photographs_seen(part, weights, record, arguments)
        output = arguments.output_dir or results_folder(part, weights, record, arguments.flips)
        jobs.append((weights, record, output, seen))
    return jobs


def photographs_seen(part, weights, record, arguments):
    """Names of test photographs in the training data, by SHA-256: list of str; UserError without --allow-seen."""
    learned = learned_from(record)
    if not learned or record["dataset"] == "synthetic":
        return []
    photographs = sources.photographs(part, "test", arguments.data_dir)
    seen = [name for name, digest in photographs.items() if digest in learned]
    if seen and not arguments.allow_seen:
        raise UserError(f"{weights}: trained on {len(seen)} of the {len(photographs)} photographs of {part.title} "
                        f"({', '.join(seen[:3])}{', ...' * (len(seen) > 3)}); score others, or use --allow-seen, "
                        "which marks the scores")
    return seen


def load(part, drawn, data_dir):
    """The photographs to score: list of `Example`."""
    if drawn:
        return synthetic.make(part, "test")
    return custom.load(part, "test") if isinstance(part, custom.Table) else published.load(part, "test", data_dir)


def results_folder(dataset, weights, record, flips=False):
    """Output folder for `weights` scored on `dataset`: in the repository's results/, or beside the weights."""
    if weights.parent.resolve() != (ROOT / "weights").resolve():
        own = record["dataset"] in (dataset.name, "synthetic")
        return weights.parent / ("results" + "_flips" * flips) / ("" if own else dataset.name)
    name = weights.name.removesuffix(".h5").removesuffix(".weights")
    for one in published.DATASETS:
        if one.name == record["dataset"]:
            name = name.removeprefix(f"{one.key}_") + f"_of_{one.name}" * (one.name != dataset.name)
    return ROOT / "results" / dataset.name / (name + "_flips" * flips)


def score_maps(folder, examples):
    """Reads maps of any program: `(maps, entries for metrics.json, line to print, seconds)`."""
    began = time.time()
    probabilities = external_maps.read_maps(folder, examples)
    facts = {"variant": folder.resolve().name, "trained_on": "", "maps": folder.resolve().name,
             "weights": {"file": None, "sha256": None, "parameters": None, "recipe": {"seed": 0}}}
    if probabilities[0].dtype == bool:
        print(f"{folder}: the maps are black and white, so there is no AUC and no curve")
    return probabilities, facts, f"maps      {folder}", time.time() - began


def score_weights(dataset, network, weights, record, examples, flips):
    """Predicts the maps with the network that `record` describes; returns the same as `score_maps`."""
    with quiet_imports():
        build, load_weights = network()
    model = load_network(build, load_weights, weights, record)
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


def run_evaluation(dataset, made, record, examples, output, threshold, seen):
    """Scores the maps in `made`, writes the results (complete once `metrics.json` exists), and prints the table."""
    probabilities, facts, source, seconds = made
    drawn = record["dataset"] == "synthetic"
    began = time.time()
    try:
        scores = evaluate(examples, probabilities, threshold)
        for one, example, found in zip(scores["per_image"], examples, probabilities, strict=True):
            one["measures"] = bland_altman.measures(example, found, threshold)
    except ValueError as error:
        raise UserError(f"{source.split(maxsplit=1)[1]}: {error}; these cannot be scored, name others") from None
    scored = time.time()
    metrics = {
        "dataset": "synthetic" if drawn else dataset.name,
        **facts,
        **({"seen_in_training": seen} if seen else {}),
        "threshold": threshold,
        "n_images": len(examples),
        **scores,
        **({"photographs": sources.photographs(dataset, "test")} if isinstance(dataset, custom.Table) else {}),
        "published": {} if drawn or isinstance(dataset, custom.Table) else comparison.paper(dataset.name),
        "environment": environment(),
        "seconds": {"predicting": round(seconds, 2), "scoring": round(scored - began, 2)},
    }
    pictures = write_results(output, examples, probabilities, metrics, record)
    if isinstance(dataset, custom.Table):
        page.write_page_of(output, dataset, metrics, examples)
        pictures["index.html"] = b""
    print(f"{source}\nwritten   {output}/: metrics.json, table.md,\n"
          f"          {', '.join([*pictures, 'panels/', 'probabilities/'])}\n"
          f"seconds   {seconds / len(examples):.2f} to predict an image, "
          f"{scored - began:.2f} to score all {len(examples)}")
    ranked = sorted(metrics["per_image"], key=lambda one: one["inside_fov"]["f1"] or 0)
    for word, one in (("worst", ranked[0]), ("best", ranked[-1])):
        print(f"{word:9} {one['image']}: F1 {tables.cell(one['inside_fov']['f1'])} inside the field of view")
    if drawn:
        print(f"\nSYNTHETIC IMAGES: these scores say nothing about {dataset.title}.")
    if seen:
        print(f"\nSEEN IN TRAINING: {', '.join(seen)}; these scores say nothing about other photographs.")
    print(tables.table(metrics))


def widths_for(dataset, weights, record):
    """`Widths` to which fields of view are scaled; None if images are predicted unscaled."""
    as_it_is = record["dataset"] in (dataset.name, "synthetic") and record["recipe"].get("recipe") != "any"
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
