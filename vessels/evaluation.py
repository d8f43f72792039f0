"""Scoring: metrics over the whole image and inside the field of view, pooled and per image."""

import argparse
import importlib.metadata
import io
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image
from skimage.morphology import skeletonize

from vessels import UserError, datasets, synthetic
from vessels.files import write_atomically

ROOT = Path(__file__).resolve().parent.parent
PROTOCOLS = ("whole_image", "inside_fov")
METRICS = ("auc", "average_precision", "accuracy", "sensitivity", "specificity", "f1", "mcc", "cldice")


def score(probability, label, where=None, threshold=0.5):
    """Metrics of a set of pixels, equal to scikit-learn's.

    Args:
        probability: float array of any shape, in [0, 1]; or a bool map (an observer's), which has
            no ranking: its `auc` and `average_precision` are None.
        label: bool array of that shape.
        where: bool array of that shape, the pixels that count; by default all.
        threshold: What counts as vessel: `probability >= threshold`.

    Returns:
        dict of `auc`, `average_precision`, `accuracy`, `sensitivity`, `specificity`, `f1`, `mcc`: float,
        or None where the figure is not defined (no vessel pixel, or nothing else).
    """
    probability, label = np.asarray(probability), np.asarray(label, bool)
    where = slice(None) if where is None else where
    probability, label = probability[where].ravel(), label[where].ravel()
    vessel = binary(probability, threshold)
    tp, fp = np.count_nonzero(vessel & label), np.count_nonzero(vessel & ~label)
    fn, tn = np.count_nonzero(label) - tp, np.count_nonzero(~label) - fp
    auc = average_precision = None
    if probability.dtype != bool and 0 < tp + fn < label.size:
        fps, tps, _ = curve(probability, label)
        auc = float(np.trapezoid(np.r_[0, tps / tps[-1]], np.r_[0, fps / fps[-1]]))
        average_precision = float(np.sum(np.diff(np.r_[0, tps]) * tps / (tps + fps)) / tps[-1])
    margins = float((tp + fp) * (tp + fn)) ** 0.5 * float((tn + fp) * (tn + fn)) ** 0.5
    return {
        "auc": auc,
        "average_precision": average_precision,
        "accuracy": ratio(tp + tn, label.size),
        "sensitivity": ratio(tp, tp + fn),
        "specificity": ratio(tn, tn + fp),
        "f1": ratio(2 * tp, 2 * tp + fp + fn),
        "mcc": ratio(tp * tn - fp * fn, margins) or 0.0,
    }


def binary(found, threshold):
    return found if found.dtype == bool else found >= threshold


def curve(probability, label):
    """`(false positives, true positives, thresholds)` at each distinct probability, thresholds falling.

    One curve serves both areas, and `np.sort` is eight times faster here than the argsort that
    scikit-learn's functions each make: 0.4 s for 6.6 million pixels.
    """
    ranked, vessels = np.sort(probability), np.sort(probability[label])
    first = np.r_[0, 1 + np.flatnonzero(np.diff(ranked))]
    thresholds = ranked[first]
    tps = vessels.size - np.searchsorted(vessels, thresholds)
    return (ranked.size - first - tps)[::-1], tps[::-1], thresholds[::-1]


def ratio(a, b):
    return float(a / b) if b else None


def centreline_dice(prediction, label, where=None):
    """Centreline Dice (Shit et al., CVPR 2021, equation 3) of two bool maps `(height, width)`.

    Skeletons are of the whole maps; with `where`, bool, only its pixels are counted. None where neither map
    has a vessel.
    """
    return cldice(skeleton_counts(prediction, label, [True if where is None else where])[0])


def skeleton_counts(prediction, label, regions):
    """int `(regions, 4)`, what centreline Dice is made of and what can be summed over images.

    Skeleton pixels of `prediction` on the label, all of them, and the same with the two exchanged.
    """
    thin, thin_label = skeletonize(prediction), skeletonize(label)
    parts = thin & label, thin, thin_label & prediction, thin_label
    return np.array([[np.count_nonzero(part & region) for part in parts] for region in regions])


def cldice(counts):
    on_label, found, on_prediction, wanted = counts
    if not found and not wanted:
        return None
    precision, sensitivity = ratio(on_label, found) or 0, ratio(on_prediction, wanted) or 0
    return ratio(2 * precision * sensitivity, precision + sensitivity) or 0.0


def evaluate(examples, probabilities, threshold=0.5):
    """The scoring part of `metrics.json`.

    Args:
        examples: list of `Example`.
        probabilities: Their maps, float32 `(height, width)` in [0, 1].
        threshold: What counts as vessel: `probability >= threshold`.

    Returns:
        dict with `whole_image`, `inside_fov` (pooled over all pixels), `per_image`, `mean` and `std` over the
        images, and `second_observer` (None unless all images have one); figures rounded to six digits.

    Raises:
        ValueError: A map is not of its image's size, or holds what is no probability.
    """
    for example, probability in zip(examples, probabilities, strict=True):
        if probability.shape != example.label.shape:
            raise ValueError(f"the map of {example.name} is {probability.shape}, not {example.label.shape}")
        if not (probability.min() >= 0 and probability.max() <= 1):  # NaN is neither
            raise ValueError(f"the map of {example.name} holds values outside [0, 1]")
    per_image, pooled = score_maps(examples, probabilities, threshold)
    observers = [example.second for example in examples]
    complete = all(observer is not None for observer in observers)
    return rounded({
        **pooled,
        "per_image": [{"image": example.name, **scores}
                      for example, scores in zip(examples, per_image, strict=True)],
        "mean": over_images(np.mean, per_image),
        "std": over_images(np.std, per_image),
        "second_observer": score_maps(examples, observers, threshold)[1] if complete else None,
    })


def score_maps(examples, maps, threshold):
    """`(per image, pooled)`: a list of, and one, `{protocol: scores}`."""
    labels = [example.label for example in examples]
    regions = [(np.ones_like(example.fov), example.fov) for example in examples]
    counts = [skeleton_counts(binary(found, threshold), label, inside)
              for found, label, inside in zip(maps, labels, regions, strict=True)]
    per_image = [
        {protocol: {**score(found, label, where, threshold), "cldice": cldice(count)}
         for protocol, where, count in zip(PROTOCOLS, inside, both, strict=True)}
        for found, label, inside, both in zip(maps, labels, regions, counts, strict=True)
    ]
    found, label = np.concatenate(maps, axis=None), np.concatenate(labels, axis=None)
    everywhere = [np.concatenate(inside, axis=None) for inside in zip(*regions, strict=True)]
    pooled = {protocol: {**score(found, label, where, threshold), "cldice": cldice(count)}
              for protocol, where, count in zip(PROTOCOLS, everywhere, sum(counts), strict=True)}
    return per_image, pooled


def over_images(statistic, per_image):
    """`statistic` of each figure over the images where it is defined."""
    def of(protocol, key):
        values = [scores[protocol][key] for scores in per_image if scores[protocol][key] is not None]
        return float(statistic(values)) if values else None

    return {protocol: {key: of(protocol, key) for key in METRICS} for protocol in PROTOCOLS}


def rounded(value):
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [rounded(inner) for inner in value]
    return round(value, 6) if isinstance(value, float) else value


def environment():
    """dict of what a figure may depend on: commit, versions, processor; None where not known."""
    def version(package):
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            return None

    def git(*arguments):
        try:
            return subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, text=True,
                                  check=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            return None

    # But for what an evaluation and its report write themselves.
    changes = git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":!/results", ":!/weights",
                  ":!/README.md")
    keras = sys.modules.get("keras")
    return {
        "commit": git("rev-parse", "HEAD"),
        "dirty": None if changes is None else bool(changes),
        "python": platform.python_version(),
        "backend": keras.config.backend() if keras else os.environ.get("KERAS_BACKEND", "tensorflow"),
        **{package: version(package) for package in ("keras", "tensorflow", "jax", "torch", "numpy")},
        "device": device(),
        **{name: os.environ.get(name) for name in ("TF_ENABLE_ONEDNN_OPTS", "RSAN_FUSED")},
    }


def device():
    """Name of the accelerator that an imported backend sees, else of the processor."""
    tensorflow, jax, torch = (sys.modules.get(name) for name in ("tensorflow", "jax", "torch"))
    if torch and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    if jax and jax.default_backend() != "cpu":
        return jax.devices()[0].device_kind
    if tensorflow and (gpus := tensorflow.config.list_physical_devices("GPU")):
        return tensorflow.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU")
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{models[0] if models else platform.machine()}, {os.cpu_count()} cores"


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
    try:
        record = read_record(arguments.weights, arguments.trained_on, arguments.variant, arguments.seed,
                             arguments.synthetic, arguments.allow_modified)
        examples = (synthetic.make(dataset, "test") if arguments.synthetic
                    else datasets.load(dataset, "test", arguments.data_dir))
        try:
            model = build(**record["model"])
            load_weights(model, arguments.weights)
        except (TypeError, ValueError) as error:
            raise UserError(f"{arguments.weights} does not fit {record_path(arguments.weights)}: {error}; "
                            "name other --weights") from None
        run_evaluation(dataset, model, record, examples, arguments)
        if arguments.release:
            release(dataset, arguments, record)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    return 0


def released(dataset, variant, seed):
    """Path of released weights: `drive_rsan.weights.h5`, and `drive_rsan_seed1.weights.h5` of another seed than 0."""
    return ROOT / "weights" / f"{dataset.key}_{variant}{f'_seed{seed}' if seed else ''}.weights.h5"


def record_path(weights):
    return weights.with_name(weights.name.removesuffix(".h5").removesuffix(".weights") + ".json")


def read_record(weights, dataset, variant, seed=0, synthetic=False, allow_modified=False):
    """The JSON beside the weights, after checking that it and they are what is asked for."""
    path = record_path(weights)
    train = f"python train_{dataset.key}.py{' --synthetic' * synthetic} --variant {variant}"
    train += f" --seed {seed}" if seed else ""
    if not weights.exists():
        raise UserError(f"{weights}: no such weights; make some with `{train}`, and name those with --weights")
    try:
        record = json.loads(path.read_text())
        missing = {"dataset", "variant", "seed", "model", "sha256", "recipe"} - set(record)
    except FileNotFoundError:
        raise UserError(f"{path}: missing, it says what network {weights.name} belongs to; restore it, or "
                        f"make both with `{train}`") from None
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); restore it") from None
    if missing:
        raise UserError(f"{path}: lacks {', '.join(sorted(missing))}; restore it")
    expected = {"dataset": "synthetic" if synthetic else dataset.name, "variant": variant, "seed": seed}
    for key, value in expected.items():
        if record[key] != value:
            remedy = "name other --weights" if key == "dataset" else f"give --{key} {record[key]}"
            raise UserError(f"{weights}: is of {key} {record[key]}, not {value}; {remedy}, or "
                            f"make some with `{train}`")
    digest = datasets.sha256(weights)
    if digest != record["sha256"] and not allow_modified:
        raise UserError(f"{weights}: not the file that {path.name} describes (SHA-256 {digest[:12]}..., not "
                        f"{record['sha256'][:12]}...); restore it, or go on with --allow-modified")
    return {**record, "sha256": digest}


def run_evaluation(dataset, model, record, examples, arguments):
    """Predicts, scores, writes the results (where `metrics.json` is, they are complete), prints the table."""
    from vessels import pipeline, report

    output, probabilities, began = arguments.output_dir, [], time.time()
    for i, example in enumerate(examples):
        print(f"\rpredicting {i + 1}/{len(examples)} ", end="", file=sys.stderr, flush=True)
        if arguments.transfer:
            from vessels.prediction import predict_photograph

            probability, _, _ = predict_photograph(model, example.image, arguments.trained_on)
        else:
            probability = pipeline.predict_image(model, example.image, dataset.padded)
        probabilities.append(probability)
    print(file=sys.stderr)
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
    for example, probability in zip(examples, probabilities, strict=True):
        sixteen = Image.fromarray(np.round(probability * 65535).astype("uint16"))
        for folder, picture in (("probabilities", sixteen), ("panels", report.panel(example, probability))):
            buffer = io.BytesIO()
            picture.save(buffer, "PNG")
            write_atomically(output / folder / f"{example.name}.png", buffer.getvalue())
    pictures = report.curves(examples, probabilities, metrics)
    if record.get("history"):
        pictures["history.png"] = report.history_plot(record["history"], record["validation"]["epoch"])
    for name, picture in pictures.items():
        write_atomically(output / name, picture)
    write_atomically(output / "table.md", report.table_markdown(metrics))
    write_atomically(output / "metrics.json", json.dumps(metrics, indent=1) + "\n")

    print(f"weights   {arguments.weights}\nwritten   {output}/: metrics.json, table.md,\n"
          f"          {', '.join(pictures)}, panels/, probabilities/\n"
          f"seconds   {(predicted - began) / len(examples):.2f} to predict an image, "
          f"{scored - predicted:.2f} to score all {len(examples)}")
    ranked = sorted(metrics["per_image"], key=lambda one: one["inside_fov"]["f1"] or 0)
    for word, one in (("worst", ranked[0]), ("best", ranked[-1])):
        print(f"{word:9} {one['image']}: F1 {report.cell(one['inside_fov']['f1'])} inside the field of view")
    if arguments.synthetic:
        print(f"\nSYNTHETIC IMAGES: these figures say nothing about {dataset.title}.")
    print(report.table(metrics))


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
