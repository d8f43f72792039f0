"""Makes the results page from the maps that eval_*.py wrote; it shows photographs."""

import base64
import html
import io
import re
import string
from pathlib import Path

from PIL import Image

from vessels import UserError
from vessels.data import published
from vessels.data.images import decode
from vessels.files import ROOT, write_atomically
from vessels.report import plots, tables

WIDTH = 560  # width of a picture on the page, in pixels


def data_uri(content, kind):
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def embed(pixels):
    """Source of an `<img>` that contains a picture, uint8 array, reduced to at most `WIDTH`."""
    picture, buffer = Image.fromarray(pixels), io.BytesIO()
    picture.thumbnail((WIDTH, picture.height), Image.Resampling.LANCZOS)
    picture.save(buffer, "webp", quality=85)
    return data_uri(buffer.getvalue(), "webp")


def case(example, values, image, threshold):
    """HTML of one photograph: left of the slider it, right of it the layer that the reader chooses.

    `values`: its map, uint16 `(height, width)`. `image`: its entry in metrics.json.
    """
    layers = {"probability": (values >> 8).astype("uint8"), "errors": plots.agreement(example, values, threshold),
              "label": 255 * example.label.astype("uint8")}
    over = "".join(f"<img class={layer} src='{embed(pixels)}' alt='{layer} of {example.name}'>"
                   for layer, pixels in layers.items())
    figures = ", ".join(f"{tables.COLUMNS[key]} {tables.cell(image['inside_fov'][key])}" for key in ("f1", "auc"))
    return (f"<figure class=case id='{example.name}'><div class=compare><img src='{embed(example.image)}' "
            f"alt='photograph {example.name}'><div class=over>{over}</div><div class=line></div></div>"
            f"<input type=range min=0 max=100 value=50 aria-label='from photograph to prediction, {example.name}'>"
            f"<figcaption><b>{example.name}</b>: {figures}</figcaption></figure>")


def section(dataset, folder, metrics):
    """One evaluation: `(opening, details)`, HTML of the worst, the middle and the best photograph; and, folded, of the
    others and the scores.

    Args:
        dataset: A `Dataset`, of whose photographs only one at a time is kept.
        folder: `Path` of the results.
        metrics: The content of metrics.json.

    Raises:
        UserError: A photograph or its map is missing or cannot be read.
    """
    images = {image["image"]: image for image in metrics["per_image"]}
    cases = {}
    for photograph in dataset.photographs("test"):
        values = decode(folder / "probabilities" / f"{photograph.name}.png")
        cases[photograph.name] = case(photograph.load(), values, images[photograph.name], metrics["threshold"])
    ranked = sorted(images, key=lambda name: images[name]["inside_fov"]["f1"])
    chosen = ranked[0], ranked[len(ranked) // 2], ranked[-1]
    heading = f"{dataset.title}: worst, middle and best photograph by F1, {tables.label(metrics)}"
    opening, others = ("".join(cases[name] for name in ranked if (name in chosen) == shown) for shown in (True, False))
    return (f"<h2>{html.escape(heading)}</h2><div class=cases>{opening}</div>",
            f"<details><summary>{dataset.title}: the other photographs, from worst to best</summary>"
            f"<div class=cases>{others}</div></details>"
            f"<details><summary>{dataset.title}: scores</summary><pre>{html.escape(tables.table(metrics))}</pre>"
            "</details>")


def write(results_dir=ROOT / "results"):
    """Writes `<results_dir>/index.html`, self-contained: all sets with results whose photographs and maps are here.

    Returns:
        list of str, a line for each: written, or left out and why.
    """
    lines, openings, details, plotted = [], [], [], {}
    for dataset in published.DATASETS:
        if not (results := tables.results_of(dataset.name, results_dir)):
            continue
        folder = "rsan" if "rsan" in results else next(iter(results))
        try:
            opening, folded = section(dataset, results_dir / dataset.name / folder, results[folder])
        except UserError as error:
            lines.append(f"left out {dataset.title}: {error} (eval_*.py write the maps)")
            continue
        openings.append(opening)
        details.append(folded)
        plotted[dataset.title] = [metrics for name, metrics in results.items()
                                  if name == folder or not re.search("_seed|_of_", name)]
    if plotted:
        template = string.Template(Path(__file__).with_suffix(".html").read_text(encoding="utf-8"))
        write_atomically(results_dir / "index.html", template.substitute(
            titles=", ".join(plotted), openings="\n".join(openings), plot=data_uri(plots.overview(plotted), "png"),
            details="\n".join(details)))
        lines.append(f"written {results_dir / 'index.html'}")
    return lines
