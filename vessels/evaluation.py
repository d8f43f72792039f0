"""The command behind eval_*.py: weights to maps, figures, tables and pictures."""

import argparse
import functools
import io
import json
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from vessels import UserError, exit_code
from vessels.data import datasets, synthetic
from vessels.files import ROOT, write_atomically
from vessels.metrics import evaluate
from vessels.prediction import maps
from vessels.prediction.flips import average_flips
from vessels.record import environment, known_diameter, load_network, read_record, record_path
from vessels.report import plots, tables


def parse(dataset, description, argv=None):
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=description, formatter_class=raw)
    parser.add_argument("weights", nargs="*", type=Path, metavar="WEIGHTS",
                        help="weights, or folders of them, with their JSON beside them, which says what network they "
                        "are of and what it learned from. A network of another set sees the photographs at the scale "
                        f"that it knows (default: weights/{dataset.key}_rsan.weights.h5)")
    parser.add_argument("--data-dir", type=Path,
                        help=f"folder of {dataset.title} (default: $RSAN_DATA_ROOT/{dataset.name} or "
                        f"data/{dataset.name})")
    parser.add_argument("--output-dir", type=Path, help="where metrics, table, curves, panels and maps go "
                        f"(default: results/{dataset.name}/<name of the weights> for those in weights/, else results/ "
                        "beside them)")
    parser.add_argument("--flips", action="store_true", help="average the maps of each photograph and its three mirror "
                        "images: four times as long, into folders of their own that end in _flips, marked in tables")
    parser.add_argument("--synthetic", action="store_true", help="score on procedural images what "
                        f"`train_{dataset.key}.py --synthetic` left, and write beside it")
    parser.add_argument("--allow-modified", action="store_true",
                        help="go on though the weights' SHA-256 is not the one in their JSON")
    arguments = parser.parse_args(argv)
    if arguments.synthetic and (arguments.weights or arguments.data_dir):
        parser.error("--synthetic names weights and reads no images: leave WEIGHTS and --data-dir out")
    return arguments


def main(dataset, network, description, argv=None):
    """The command line of `eval_drive.py` and `eval_chase.py`.

    Args:
        dataset: A `datasets.Dataset`.
        network: Imports and returns `(build, load_weights)`: `build` returns the network, given what the weights'
            JSON says under "model"; `load_weights(model, path)` raises ValueError if it could not.
        description: Text of `--help`.

    Returns:
        Exit code: 0; 2 for what the user can mend.
    """
    arguments = parse(dataset, description, argv)

    @functools.cache
    def examples(drawn):
        return synthetic.make(dataset, "test") if drawn else datasets.load(dataset, "test", arguments.data_dir)

    def command():
        for weights, record, output in plan(dataset, arguments):
            shown = examples(record["dataset"] == "synthetic")
            build, load_weights = network()
            model = load_network(build, load_weights, weights, record)
            run_evaluation(dataset, model, record, shown, weights, output, arguments.flips)
        return 0

    return exit_code(command)


def plan(dataset, arguments):
    """`[(weights, record, output folder)]` of all that is to be scored, every record checked."""
    default = ROOT / "weights" / f"{dataset.key}_rsan.weights.h5"
    train = f"python train_{dataset.key}.py"
    if arguments.synthetic:
        default = ROOT / "runs" / f"{dataset.key}-synthetic-rsan-0" / "best.weights.h5"
        train += " --synthetic"
    if not arguments.weights and not default.exists():
        raise UserError(f"{default}: no such weights; make some with `{train}`, or name others")
    found = []
    for weights in find_weights(arguments.weights) or [default]:
        record = read_record(weights, arguments.allow_modified)
        output = arguments.output_dir or results_folder(dataset, weights, record, arguments.flips)
        if output in [other for _, _, other in found]:
            raise UserError(f"{output}: the results of {weights} would overwrite others; score them one by one, each "
                            "with its own --output-dir")
        found.append((weights, record, output))
    return found


def find_weights(names):
    """The weights that `names` say: files, patterns (not every shell expands them), folders; list of `Path`."""
    found = []
    for path in [path for name in names for path in sorted(name.parent.glob(name.name)) or [name]]:
        inside = [one for one in sorted(path.glob("*.weights.h5")) if record_path(one).exists()]
        if path.is_dir() and not inside:
            raise UserError(f"{path}: no weights with their JSON there; name another folder, or train some")
        found += inside or [path]
    return list(dict.fromkeys(found))


def results_folder(dataset, weights, record, flips):
    """Where the scores of `weights` on `dataset` go: in results/ under their own name, or beside them."""
    if weights.resolve().parent != (ROOT / "weights").resolve():
        own = record["dataset"] in (dataset.name, "synthetic")
        return weights.parent / ("results" + "_flips" * flips) / ("" if own else dataset.name)
    name = record_path(weights).stem
    for one in datasets.DATASETS:
        if one.name == record["dataset"]:
            name = name.removeprefix(f"{one.key}_") + f"_of_{one.name}" * (one.name != dataset.name)
    return ROOT / "results" / dataset.name / (name + "_flips" * flips)


def run_evaluation(dataset, model, record, examples, weights, output, flips):
    """Predicts, scores, writes the results (where `metrics.json` is, they are complete), prints the table."""
    drawn = record["dataset"] == "synthetic"
    began = time.time()
    probabilities = predict(dataset, model, examples, weights, record, flips)
    predicted = time.time()
    try:
        scores = evaluate(examples, probabilities)
    except ValueError as error:
        raise UserError(f"{weights}: {error}; these weights are no use, name others") from None
    scored = time.time()
    metrics = {
        "dataset": "synthetic" if drawn else dataset.name,
        "variant": record["variant"],
        "trained_on": record["dataset"],
        **{key: record[key] for key in ("unfinished",) if key in record},
        **({"flips": True} if flips else {}),
        "threshold": 0.5,
        "n_images": len(examples),
        "weights": {"file": weights.name, "sha256": record["sha256"], "parameters": model.count_params(),
                    "recipe": {**record["recipe"],
                               **{key: record[key] for key in ("loss", "augmentation") if key in record}}},
        **scores,
        "published": {} if drawn else published(dataset),
        "environment": environment(),
        "seconds": {"predicting": round(predicted - began, 2), "scoring": round(scored - predicted, 2)},
    }
    pictures = write_results(output, examples, probabilities, metrics, record)
    print(f"weights   {weights}\nwritten   {output}/: metrics.json, table.md,\n"
          f"          {', '.join(pictures)}, panels/, probabilities/\n"
          f"seconds   {(predicted - began) / len(examples):.2f} to predict an image, "
          f"{scored - predicted:.2f} to score all {len(examples)}")
    ranked = sorted(metrics["per_image"], key=lambda one: one["inside_fov"]["f1"] or 0)
    for word, one in (("worst", ranked[0]), ("best", ranked[-1])):
        print(f"{word:9} {one['image']}: F1 {tables.cell(one['inside_fov']['f1'])} inside the field of view")
    if drawn:
        print(f"\nSYNTHETIC IMAGES: these figures say nothing about {dataset.title}.")
    print(tables.table(metrics))


def predict(dataset, model, examples, weights, record, flips):
    """The maps of all examples, list of float32 `(height, width)`: padded as in training where the network learned
    from this set (or drawn images of its size), else at the scale that it knows; with `flips`, averaged over them.
    """
    own = record["dataset"] in (dataset.name, "synthetic")
    diameters = None if own else (known_diameter(weights, record),)

    def see(image, fov):
        if own:
            return maps.predict_image(model, image, dataset.padded)
        return maps.predict_photograph(model, image, diameters, fov=fov).probability

    probabilities = []
    for i, example in enumerate(examples):
        print(f"\rpredicting {i + 1}/{len(examples)} ", end="", file=sys.stderr, flush=True)
        seen = example.image, example.fov
        probabilities.append(average_flips(see, *seen) if flips else see(*seen))
    print(file=sys.stderr)
    return probabilities


def write_results(output, examples, probabilities, metrics, record):
    """Writes maps, panels, curves and tables, `metrics.json` last. Returns the curves by name: dict of PNG bytes."""
    for example, probability in zip(examples, probabilities, strict=True):
        sixteen = Image.fromarray(np.round(probability * 65535).astype("uint16"))
        for folder, picture in (("probabilities", sixteen), ("panels", plots.panel(example, probability))):
            buffer = io.BytesIO()
            picture.save(buffer, "PNG")
            write_atomically(output / folder / f"{example.name}.png", buffer.getvalue())
    pictures = plots.curves(examples, probabilities, metrics)
    if record.get("history"):
        pictures["history.png"] = plots.history_plot(record["history"], record["validation"]["epoch"])
    for name, picture in pictures.items():
        write_atomically(output / name, picture)
    write_atomically(output / "table.md", tables.table_markdown(metrics))
    write_atomically(output / "metrics.json", json.dumps(metrics, indent=1) + "\n")
    return pictures


def published(dataset):
    """The paper's own figures, from results/published.json."""
    rows = json.loads((ROOT / "results" / "published.json").read_text()).get(dataset.name, [])
    return next((row for row in rows if row["method"] == "RSAN (paper)"), {})
