"""The tables of the model card weights/README.md, from results/*/*/metrics.json and the records of the weights."""

import json

from vessels.data import published
from vessels.report.tables import COLUMNS, cell, markdown, title

# The names that model hubs use.
METRICS = {"auc": "roc_auc", "accuracy": "accuracy", "sensitivity": "recall", "specificity": "specificity", "f1": "f1"}


def by_weights(results_dir):
    """`{name of the weights: [metrics of each set they are scored on]}`, names and sets in alphabetical order."""
    found = {}
    paths = [path for dataset in published.DATASETS for path in (results_dir / dataset.name).glob("*/metrics.json")]
    for path in sorted(paths):
        metrics = json.loads(path.read_text(encoding="utf-8"))
        if not metrics.get("tta") and "maps" not in metrics:
            found.setdefault(metrics["weights"]["file"].removesuffix(".weights.h5"), []).append(metrics)
    return dict(sorted(found.items()))


def training(results_dir):
    """Markdown table of how long each released network was trained: str; from the JSON files beside `results_dir`."""
    head = ("weights", "trained on", "epochs", "hours", "processor")
    body = []
    for path in sorted((results_dir.parent / "weights").glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        body.append([path.stem, title(record["dataset"]), str(len(record["history"])),
                     f"{record['wall_time_s'] / 3600:.1f}", record["environment"]["device"]])
    return markdown(head, body)


def model_index(results_dir):
    """YAML front matter for model hubs: RSAN's scores inside the field of view. str; ends with "# "."""
    lines = []
    for name, all_metrics in by_weights(results_dir).items():
        if all_metrics[0]["variant"] != "rsan":
            continue
        lines += [f"- name: {name}", "  results:"]
        for metrics in all_metrics:
            dataset = metrics["dataset"]
            lines += ["  - task: {type: image-segmentation}",
                      f"    dataset: {{name: {title(dataset)}, type: {dataset.lower()}, split: test}}",
                      f"    # threshold {metrics['threshold']:g}",
                      "    metrics:"]
            scores = metrics["inside_fov"]
            lines += [f"    - {{type: {kind}, value: {cell(scores[key])}, name: {key} inside the field of view}}"
                      for key, kind in METRICS.items()]
    return "\n".join(["model-index:", *lines] if lines else ["model-index: []"]) + "\n# "


def figures(results_dir):
    """Markdown table of every weights file on each set: scores inside the field of view, and the worst image. str."""
    head = ("weights", "scored on", "threshold", *(COLUMNS[key] for key in METRICS), "F1, mean ± std of images",
            "worst image, F1")
    body = []
    for name, all_metrics in by_weights(results_dir).items():
        for metrics in all_metrics:
            worst = min(metrics["per_image"], key=lambda image: image["inside_fov"]["f1"])
            mean, std = (metrics[key]["inside_fov"]["f1"] for key in ("mean", "std"))
            body.append([name, title(metrics["dataset"]), f"{metrics['threshold']:g}",
                         *(cell(metrics["inside_fov"][key]) for key in METRICS), f"{cell(mean)} ± {cell(std)}",
                         f"{worst['image']}: {cell(worst['inside_fov']['f1'])}"])
    return markdown(head, body)
