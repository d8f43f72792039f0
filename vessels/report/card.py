"""The figures of the model card weights/README.md, from results/*/*/metrics.json."""

import json

from vessels.report.tables import COLUMNS, cell, markdown_row, title

# As the hubs name them.
METRICS = {"auc": "roc_auc", "accuracy": "accuracy", "sensitivity": "recall", "specificity": "specificity", "f1": "f1"}


def by_weights(results_dir):
    """`{name of the weights: [metrics of each set they are scored on]}`, names and sets in alphabetical order."""
    found = {}
    for path in sorted(results_dir.glob("*/*/metrics.json")):
        metrics = json.loads(path.read_text(encoding="utf-8"))
        if not metrics.get("flips"):
            found.setdefault(metrics["weights"]["file"].removesuffix(".weights.h5"), []).append(metrics)
    return dict(sorted(found.items()))


def model_index(results_dir):
    """YAML of the front matter, as the hubs read it: RSAN's figures inside the field of view. str, before a comment."""
    lines = []
    for name, all_metrics in by_weights(results_dir).items():
        if all_metrics[0]["variant"] != "rsan":
            continue
        lines += [f"- name: {name}", "  results:"]
        for metrics in all_metrics:
            dataset = metrics["dataset"]
            lines += ["  - task: {type: image-segmentation}",
                      f"    dataset: {{name: {title(dataset)}, type: {dataset.lower()}, split: test}}",
                      "    metrics:"]
            lines += [f"    - {{type: {kind}, value: {cell(metrics['inside_fov'][key])}, name: {key} inside the field}}"
                      for key, kind in METRICS.items()]
    return "\n".join(["model-index:", *lines] if lines else ["model-index: []"]) + "\n# "


def figures(results_dir):
    """Markdown: every weights file on each set, inside the field of view, and its worst image. str."""
    head = ("weights", "scored on", *(COLUMNS[key] for key in METRICS), "F1 of the images", "the worst of them")
    lines = [markdown_row(*head), markdown_row(*["---"] * len(head))]
    for name, all_metrics in by_weights(results_dir).items():
        for metrics in all_metrics:
            worst = min(metrics["per_image"], key=lambda image: image["inside_fov"]["f1"])
            mean, std = (metrics[key]["inside_fov"]["f1"] for key in ("mean", "std"))
            lines.append(markdown_row(
                name, title(metrics['dataset']), *(cell(metrics["inside_fov"][key]) for key in METRICS),
                f"{cell(mean)} ± {cell(std)}", f"{worst['image']}: {cell(worst['inside_fov']['f1'])}"))
    return "\n".join(lines) + "\n"
