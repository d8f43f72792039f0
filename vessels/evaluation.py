"""Scoring: metrics over the whole image and inside the field of view, pooled and per image, with the second observer."""

import argparse
import hashlib
import importlib.metadata
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image
from skimage.morphology import skeletonize
from sklearn import metrics as sk

from vessels import UserError, datasets, synthetic
from vessels.files import write_atomically

ROOT = Path(__file__).resolve().parent.parent
PROTOCOLS = ("whole_image", "inside_fov")
METRICS = ("auc", "average_precision", "accuracy", "sensitivity", "specificity", "f1", "mcc", "cldice")


def score(probability, label, threshold=0.5):
    """Metrics of a set of pixels.

    Args:
        probability: float array of any shape, in [0, 1]; or a bool map (an observer's), which has
            no ranking: its `auc` and `average_precision` are None.
        label: bool array of that shape.
        threshold: What counts as vessel: `probability >= threshold`.

    Returns:
        dict of `auc`, `average_precision`, `accuracy`, `sensitivity`, `specificity`, `f1`, `mcc`: float,
        or None where the figure is not defined (no vessel pixel, or nothing else).
    """
    probability, label = np.ravel(probability), np.ravel(label)
    vessel = probability if probability.dtype == bool else probability >= threshold
    tp, fp = np.count_nonzero(vessel & label), np.count_nonzero(vessel & ~label)
    fn, tn = np.count_nonzero(label) - tp, np.count_nonzero(~label) - fp
    auc = average_precision = None
    if probability.dtype != bool and 0 < tp + fn < label.size:
        # One sort serves both areas; scikit-learn's own functions would sort twice.
        fps, tps, _ = curve(probability, label)
        auc = sk.auc(np.r_[0, fps / fps[-1]], np.r_[0, tps / tps[-1]])
        average_precision = float(np.sum(np.diff(np.r_[0, tps]) * tps / (tps + fps)) / tps[-1])
    return {
        "auc": auc and float(auc),
        "average_precision": average_precision,
        "accuracy": ratio(tp + tn, label.size),
        "sensitivity": ratio(tp, tp + fn),
        "specificity": ratio(tn, tn + fp),
        "f1": ratio(2 * tp, 2 * tp + fp + fn),
        "mcc": ratio(tp * tn - fp * fn, float((tp + fp) * (tp + fn)) ** 0.5 * float((tn + fp) * (tn + fn)) ** 0.5),
    }


def curve(probability, label):
    """Numbers of false and true positives at each distinct threshold, which come third, falling."""
    order = np.argsort(probability)[::-1]
    probability, tps = probability[order], np.cumsum(label[order], dtype=np.int64)
    last = np.r_[np.flatnonzero(np.diff(probability)), probability.size - 1]
    return 1 + last - tps[last], tps[last], probability[last]


def ratio(a, b):
    return float(a / b) if b else None


def skeleton_counts(vessel, label, where):
    """What centreline Dice is made of: skeleton pixels of `vessel` in the label, all of them, and the reverse."""
    thin_vessel, thin_label = skeletonize(vessel) & where, skeletonize(label) & where
    return np.array([np.count_nonzero(thin_vessel & label), np.count_nonzero(thin_vessel),
                     np.count_nonzero(thin_label & vessel), np.count_nonzero(thin_label)])


def centreline_dice(counts):
    """Centreline Dice (Shit et al., CVPR 2021, equation 3) of summed `skeleton_counts`; None where it is not defined."""
    in_label, vessel, in_vessel, label = counts
    if not vessel or not label:
        return None
    precision, sensitivity = in_label / vessel, in_vessel / label
    return ratio(2 * precision * sensitivity, precision + sensitivity)


def evaluate(examples, probabilities, threshold=0.5):
    """The scoring part of `metrics.json`.

    Args:
        examples: list of `Example`.
        probabilities: Their maps, float32 `(height, width)` in [0, 1].

    Returns:
        dict with `whole_image`, `inside_fov` (pooled over all pixels), `per_image`, `mean` and `std` over the
        images, and `second_observer` (None where there is none); figures rounded to six digits.
    """
    observers = [example.second for example in examples]
    per_image, pooled = score_maps(examples, probabilities, threshold)
    result = dict(pooled)
    result["per_image"] = [{"image": example.name, **scores}
                           for example, scores in zip(examples, per_image, strict=True)]
    for name, statistic in (("mean", np.mean), ("std", np.std)):
        result[name] = {protocol: {key: over(statistic, [scores[protocol][key] for scores in per_image])
                                   for key in METRICS} for protocol in PROTOCOLS}
    result["second_observer"] = None
    if all(observer is not None for observer in observers):
        result["second_observer"] = score_maps(examples, observers, threshold)[1]
    return rounded(result)


def over(statistic, values):
    defined = [value for value in values if value is not None]
    return float(statistic(defined)) if defined else None


def score_maps(examples, maps, threshold):
    """`(per image, pooled)`, each a dict of protocols; skeletons are of the whole map and counted inside."""
    per_image = [{} for _ in examples]
    pooled = {}
    for protocol in PROTOCOLS:
        inside = [example.fov if protocol == "inside_fov" else np.ones_like(example.fov) for example in examples]
        counts = []
        for example, found, where, scores in zip(examples, maps, inside, per_image, strict=True):
            vessel = found if found.dtype == bool else found >= threshold
            counts.append(skeleton_counts(vessel, example.label, where))
            scores[protocol] = score(found[where], example.label[where], threshold)
            scores[protocol]["cldice"] = centreline_dice(counts[-1])
        pooled[protocol] = score(
            np.concatenate([found[where] for found, where in zip(maps, inside, strict=True)]),
            np.concatenate([example.label[where] for example, where in zip(examples, inside, strict=True)]),
            threshold,
        )
        pooled[protocol]["cldice"] = centreline_dice(sum(counts))
    return per_image, pooled


def rounded(value):
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [rounded(inner) for inner in value]
    return round(value, 6) if isinstance(value, float) else value


def environment():
    """What a figure may depend on besides the code: commit, versions, processor."""
    def version(package):
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            return None

    def git(*arguments):
        done = subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else None

    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {
        "commit": git("rev-parse", "HEAD"),
        "modified": bool(git("status", "--porcelain", "--untracked-files=no")),
        "python": platform.python_version(),
        "backend": os.environ.get("KERAS_BACKEND", "tensorflow"),
        **{package: version(package) for package in ("keras", "tensorflow", "numpy", "scikit-learn")},
        "device": f"{models[0] if models else platform.machine()}, {os.cpu_count()} cores",
        "TF_ENABLE_ONEDNN_OPTS": os.environ.get("TF_ENABLE_ONEDNN_OPTS"),
    }


def parse(dataset, description, argv=None):
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", choices=("rsan", "backbone", "backbone_dropblock"), default="rsan",
                        help="network (default: rsan)")
    parser.add_argument("--weights", type=Path,
                        help=f"weights with their JSON beside them (default: weights/{dataset.key}_<variant>.weights.h5)")
    parser.add_argument("--data-dir", type=Path, help=f"folder of {dataset.title} (default: data/{dataset.name})")
    parser.add_argument("--output-dir", type=Path, help=f"default: results/{dataset.name}/<variant>")
    parser.add_argument("--synthetic", action="store_true",
                        help="score what `train --synthetic` trained, on procedural images")
    parser.add_argument("--allow-modified", action="store_true",
                        help="go on though the weights are not the file that their JSON describes")
    parser.add_argument("--release", action="store_true",
                        help="afterwards, copy the weights to weights/, their JSON with the test figures added")
    return parser.parse_args(argv)


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
    run = ROOT / "runs" / f"{dataset.key}-synthetic-{arguments.variant}-0"
    weights, output = arguments.weights, arguments.output_dir
    if arguments.synthetic:
        weights, output = weights or run / "best.weights.h5", output or run / "results"
    weights = weights or ROOT / "weights" / f"{dataset.key}_{arguments.variant}.weights.h5"
    output = output or ROOT / "results" / dataset.name / arguments.variant
    try:
        record = read_record(weights, dataset, arguments)
        examples = synthetic.make(dataset, "test") if arguments.synthetic else datasets.load(
            dataset, "test", arguments.data_dir)
        model = build(**record["model"])
        try:
            load_weights(model, weights)
        except ValueError as error:
            raise UserError(f"{error}; take the weights whose JSON says variant {arguments.variant}") from None
        run_evaluation(dataset, model, weights, record, examples, output)
        if arguments.release:
            release(dataset, arguments.variant, weights, record, output)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; nothing was scored", file=sys.stderr)
        return 130
    return 0


def record_path(weights):
    return weights.with_name(weights.name.removesuffix(".h5").removesuffix(".weights") + ".json")


def read_record(weights, dataset, arguments):
    """The JSON beside the weights, after checking that it and they are what is asked for."""
    synthetic = " --synthetic" * arguments.synthetic
    train = f"python train_{dataset.key}.py{synthetic} --variant {arguments.variant}"
    if not weights.exists():
        raise UserError(f"{weights}: no such weights; make some with `{train}` or name yours with --weights")
    path = record_path(weights)
    try:
        record = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path} is missing: it says what network {weights.name} belongs to; restore it, or make both "
                        f"with `{train}`") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); restore it") from None
    missing = {"dataset", "variant", "model", "sha256", "parameters", "recipe"} - set(record)
    if missing:
        raise UserError(f"{path} lacks {', '.join(sorted(missing))}; restore it")
    expected = {"dataset": "synthetic" if arguments.synthetic else dataset.name, "variant": arguments.variant}
    for key, value in expected.items():
        if record[key] != value:
            raise UserError(f"{weights} is of {key} {record[key]}, not {value}; name other --weights")
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    if digest != record["sha256"] and not arguments.allow_modified:
        raise UserError(f"{weights} is not the file that {path.name} describes (SHA-256 {digest[:12]}..., not "
                        f"{record['sha256'][:12]}...); restore it, or go on with --allow-modified")
    return record


def run_evaluation(dataset, model, weights, record, examples, output):
    from vessels import pipeline, report

    probabilities, began = [], time.time()
    for i, example in enumerate(examples):
        probabilities.append(pipeline.predict_image(model, example.image, dataset.padded))
        print(f"\rpredicting {i + 1}/{len(examples)}", end="", file=sys.stderr, flush=True)
    predicted = time.time()
    print(f"\rpredicted {len(examples)} images, {(predicted - began) / len(examples):.2f} s each", file=sys.stderr)
    metrics = {
        "dataset": record["dataset"],
        "variant": record["variant"],
        "threshold": 0.5,
        "n_images": len(examples),
        "weights": {"file": weights.name, "sha256": record["sha256"], "parameters": model.count_params(),
                    "recipe": record["recipe"]},
        **evaluate(examples, probabilities),
        "published": None if record["dataset"] == "synthetic" else published(dataset),
        "environment": environment(),
    }
    print(f"scored in {time.time() - predicted:.1f} s", file=sys.stderr)
    metrics["seconds"] = {"predicting": round(predicted - began, 2), "scoring": round(time.time() - predicted, 2)}
    write_atomically(output / "metrics.json", json.dumps(metrics, indent=1) + "\n")
    write_atomically(output / "table.md", report.table_markdown(metrics))
    for name, picture in report.curves(examples, probabilities, metrics).items():
        write_atomically(output / name, picture)
    for example, probability, scores in zip(examples, probabilities, metrics["per_image"], strict=True):
        sixteen = Image.fromarray(np.round(probability * 65535).astype("uint16"))
        for folder, picture in (("probabilities", sixteen), ("panels", report.panel(example, probability, scores))):
            buffer = io.BytesIO()
            picture.save(buffer, "PNG")
            write_atomically(output / folder / f"{example.name}.png", buffer.getvalue())
    ranked = sorted(metrics["per_image"], key=lambda scores: scores["inside_fov"]["f1"] or 0)
    print(f"weights  {weights}\nwritten  {output}")
    for word, scores in (("worst", ranked[0]), ("best", ranked[-1])):
        print(f"{word:8} {scores['image']}: F1 {scores['inside_fov']['f1']:.4f} inside the field of view")
    if record["dataset"] == "synthetic":
        print(f"SYNTHETIC IMAGES: these figures say nothing about {dataset.title}.")
    print(report.table(metrics))


def published(dataset):
    """The paper's own figures, from results/published.json."""
    rows = json.loads((ROOT / "results" / "published.json").read_text())[dataset.name]
    return next(row for row in rows if row["method"] == "RSAN (paper)")


def release(dataset, variant, weights, record, output):
    """Copies weights to weights/, and their JSON with the figures just scored."""
    metrics = json.loads((output / "metrics.json").read_text())
    target = ROOT / "weights" / f"{dataset.key}_{variant}.weights.h5"
    shutil.copyfile(weights, target.with_name("." + target.name))
    target.with_name("." + target.name).replace(target)
    record = {**record, "test": {protocol: metrics[protocol] for protocol in PROTOCOLS}}
    write_atomically(record_path(target), json.dumps(record, indent=1) + "\n")
    print(f"released {target}", file=sys.stderr)
