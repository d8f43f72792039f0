"""What the model card weights/README.md repeats of results/*/*/metrics.json and of the records of the weights."""

import json

from vessels.data import published
from vessels.report.tables import cell, markdown, results_of, title

# The names that model hubs use.
METRICS = {"auc": "roc_auc", "accuracy": "accuracy", "sensitivity": "recall", "specificity": "specificity", "f1": "f1"}


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
    models = {}
    for dataset in sorted(published.DATASETS, key=lambda dataset: dataset.name):
        for metrics in results_of(dataset.name, results_dir).values():
            if metrics["variant"] == "rsan" and "maps" not in metrics and not metrics.get("tta"):
                scores = metrics["inside_fov"]
                models.setdefault(metrics["weights"]["file"].removesuffix(".weights.h5"), []).extend([
                    "  - task: {type: image-segmentation}",
                    f"    dataset: {{name: {dataset.title}, type: {dataset.name.lower()}, split: test}}",
                    f"    # threshold {metrics['threshold']:g}",
                    "    metrics:",
                    *(f"    - {{type: {kind}, value: {cell(scores[key])}, name: {key} inside the field of view}}"
                      for key, kind in METRICS.items())])
    lines = [line for name, results in sorted(models.items()) for line in (f"- name: {name}", "  results:", *results)]
    return "\n".join(["model-index:" if lines else "model-index: []", *lines]) + "\n# "
