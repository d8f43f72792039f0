"""The command behind eval_*.py: weights to maps, figures, tables and pictures."""

import argparse
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
from vessels.metrics import PROTOCOLS, evaluate
from vessels.prediction import maps
from vessels.record import environment, load_network, read_record, record_path, released
from vessels.report import plots, tables


def parse(dataset, description, argv=None):
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=description, formatter_class=raw)
    other = next(one for one in datasets.DATASETS if one.name != dataset.name)
    parser.add_argument("--variant", choices=("rsan", "backbone", "backbone_dropblock"), default="rsan",
                        help="network (default: rsan)")
    parser.add_argument("--seed", type=int, default=0, help="take the released weights of another seed (default: 0)")
    parser.add_argument("--weights", type=Path, help="weights, with their JSON beside them (default: "
                        f"weights/{dataset.key}_<variant>.weights.h5)")
    parser.add_argument("--data-dir", type=Path,
                        help=f"folder of {dataset.title} (default: $RSAN_DATA_ROOT/{dataset.name} or "
                        f"data/{dataset.name})")
    parser.add_argument("--output-dir", type=Path, help="where metrics, table, curves, panels and maps go "
                        f"(default: results/{dataset.name}/<variant> for released weights, else results/ beside them)")
    parser.add_argument("--synthetic", action="store_true", help="score on procedural images what training "
                        f"with --synthetic left in runs/{dataset.key}-synthetic-<variant>-<seed>, and write there")
    parser.add_argument("--transfer", action="store_true", help=f"score {other.title}'s weights without any "
                        "retraining: photographs are scaled so that their fields of view have the diameter that "
                        f"those weights know, the maps scaled back (into {dataset.name}/<variant>_of_{other.name})")
    parser.add_argument("--allow-modified", action="store_true",
                        help="go on though the weights' SHA-256 is not the one in their JSON")
    parser.add_argument("--release", action="store_true",
                        help="afterwards, copy the weights to weights/, with the test figures in their JSON")
    arguments = parser.parse_args(argv)
    arguments.trained_on = other if arguments.transfer else dataset
    if arguments.synthetic and arguments.data_dir:
        parser.error("--synthetic reads no images: leave --data-dir out")
    if arguments.release and (arguments.synthetic or arguments.allow_modified or arguments.transfer):
        parser.error(f"--release is for weights of {dataset.title} that match their JSON")
    if arguments.transfer and arguments.synthetic:
        parser.error("--transfer is for real images: leave --synthetic out")
    run = ROOT / "runs" / f"{dataset.key}-synthetic-{arguments.variant}-{arguments.seed}"
    if arguments.synthetic:
        weights, output = run / "best.weights.h5", run / "results"
    else:
        weights = released(arguments.trained_on, arguments.variant, arguments.seed)
        folder = weights.name.removesuffix(".weights.h5").removeprefix(f"{arguments.trained_on.key}_")
        folder += f"_of_{other.name}" * arguments.transfer
        output = ROOT / "results" / dataset.name / folder
    # The figures in results/ are those of weights/.
    if arguments.weights and arguments.weights.resolve() != weights and not arguments.release:
        output = arguments.weights.parent / "results"
    arguments.weights, arguments.output_dir = arguments.weights or weights, arguments.output_dir or output
    return arguments


def main(dataset, build, load_weights, description, argv=None):
    """The command line of `eval_drive.py` and `eval_chase.py`.

    Args:
        dataset: A `datasets.Dataset`.
        build: Returns the network, given what the weights' JSON says under "model".
        load_weights: `load_weights(model, path)`; a ValueError says why it could not.
        description: Text of `--help`.

    Returns:
        Exit code: 0; 2 for what the user can mend.
    """
    arguments = parse(dataset, description, argv)

    def command():
        record = read_record(arguments.weights, arguments.trained_on, arguments.variant, arguments.seed,
                             arguments.synthetic, arguments.allow_modified)
        examples = (synthetic.make(dataset, "test") if arguments.synthetic
                    else datasets.load(dataset, "test", arguments.data_dir))
        model = load_network(build, load_weights, arguments.weights, record)
        run_evaluation(dataset, model, record, examples, arguments)
        if arguments.release:
            release(dataset, arguments, record)
        return 0

    return exit_code(command)


def run_evaluation(dataset, model, record, examples, arguments):
    """Predicts, scores, writes the results (where `metrics.json` is, they are complete), prints the table."""
    began = time.time()
    probabilities = predict(dataset, model, examples, arguments)
    predicted = time.time()
    try:
        scores = evaluate(examples, probabilities)
    except ValueError as error:
        raise UserError(f"{arguments.weights}: {error}; these weights are no use, name others") from None
    scored = time.time()
    metrics = {
        "dataset": "synthetic" if arguments.synthetic else dataset.name,
        "variant": record["variant"],
        "trained_on": record["dataset"],
        "threshold": 0.5,
        "n_images": len(examples),
        "weights": {"file": arguments.weights.name, "sha256": record["sha256"],
                    "parameters": model.count_params(), "recipe": record["recipe"]},
        **scores,
        "published": {} if arguments.synthetic else published(dataset),
        "environment": environment(),
        "seconds": {"predicting": round(predicted - began, 2), "scoring": round(scored - predicted, 2)},
    }
    pictures = write_results(arguments.output_dir, examples, probabilities, metrics, record)
    print(f"weights   {arguments.weights}\nwritten   {arguments.output_dir}/: metrics.json, table.md,\n"
          f"          {', '.join(pictures)}, panels/, probabilities/\n"
          f"seconds   {(predicted - began) / len(examples):.2f} to predict an image, "
          f"{scored - predicted:.2f} to score all {len(examples)}")
    ranked = sorted(metrics["per_image"], key=lambda one: one["inside_fov"]["f1"] or 0)
    for word, one in (("worst", ranked[0]), ("best", ranked[-1])):
        print(f"{word:9} {one['image']}: F1 {tables.cell(one['inside_fov']['f1'])} inside the field of view")
    if arguments.synthetic:
        print(f"\nSYNTHETIC IMAGES: these figures say nothing about {dataset.title}.")
    print(tables.table(metrics))


def predict(dataset, model, examples, arguments):
    """The maps of all examples: list of float32 `(height, width)`."""
    probabilities = []
    for i, example in enumerate(examples):
        print(f"\rpredicting {i + 1}/{len(examples)} ", end="", file=sys.stderr, flush=True)
        if arguments.transfer:
            diameters = (arguments.trained_on.diameter,)
            probability = maps.predict_photograph(model, example.image, diameters).probability
        else:
            probability = maps.predict_image(model, example.image, dataset.padded)
        probabilities.append(probability)
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


def release(dataset, arguments, record):
    """Copies weights to weights/, and their JSON with the figures just scored."""
    metrics = json.loads((arguments.output_dir / "metrics.json").read_text())
    target = released(dataset, record["variant"], record["seed"])
    write_atomically(target, arguments.weights.read_bytes())
    record = {**record, "test": {protocol: metrics[protocol] for protocol in PROTOCOLS}}
    write_atomically(record_path(target), json.dumps(record, indent=1) + "\n")
    print(f"released {target}", file=sys.stderr)
