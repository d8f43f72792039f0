"""The results page, and the paper's Results figure: both from released weights' maps, both show photographs."""

import base64
import html
import io
import string
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vessels import UserError
from vessels.data import datasets
from vessels.files import ROOT, write_atomically
from vessels.report import tables
from vessels.report.plots import FALSE, FOUND, MISSED, agreement

WIDTH = 560  # of a picture in the page, in pixels
NETWORKS = {"backbone": "(b) backbone", "backbone_dropblock": "(c) + DropBlock", "rsan": "(d) RSAN"}
FIGURE = ("(a) photograph", *NETWORKS.values(), "(e) label")


def probability_map(folder, example):
    """The map that evaluation left in `folder`, float32 `(height, width)` in [0, 1]; UserError without it."""
    path = folder / "probabilities" / f"{example.name}.png"
    found = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) if path.exists() else None
    if found is None or found.dtype != np.uint16 or found.shape != example.label.shape:
        key = next(dataset.key for dataset in datasets.DATASETS if dataset.name == folder.parent.name)
        raise UserError(f"{path}: missing or not of this image; make it with `python eval_{key}.py "
                        f"weights/{key}_{folder.name}.weights.h5`")
    return found.astype("float32") / 65535


def data_uri(content, kind):
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def embed(picture, kind, **options):
    """`<img>` source with the picture in it, scaled down to the page."""
    if picture.width > WIDTH:
        picture = picture.resize((WIDTH, round(picture.height * WIDTH / picture.width)), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return data_uri(buffer.getvalue(), kind)


def table(head, rows, sortable=False):
    """HTML of a table; `rows` are `(class, cells)`, all plain text."""
    button = "<button>{}</button>" if sortable else "{}"
    lines = ["<div class=wide><table><thead><tr>"]
    lines += [f"<th scope=col>{button.format(html.escape(title))}</th>" for title in head]
    lines.append("</tr></thead><tbody>")
    for kind, cells in rows:
        texts = (html.escape(cell).replace(" ±", "<br>±") for cell in cells)
        lines.append(f"<tr class='{kind}'>" + "".join(f"<td>{text}</td>" for text in texts) + "</tr>")
    return "".join(lines) + "</tbody></table></div>"


def scores_table(all_metrics, protocol):
    return table(("network", *tables.COLUMNS.values()),
                 [("ours" if name.endswith("(here)") else "",
                   (name, *(tables.cell(scores.get(key)) for key in tables.COLUMNS)))
                  for name, scores in tables.all_rows(all_metrics, protocol)])


def case(example, probability, scores, word):
    """One test image: the photograph, and over it what the reader chooses, up to where the slider stands."""
    grey = Image.fromarray((255 * probability).astype("uint8"))
    layers = {
        "probability": embed(grey, "jpeg", quality=80),
        "agreement": embed(Image.fromarray(agreement(example, probability)), "webp", quality=85),
        "label": embed(Image.fromarray(255 * example.label.astype("uint8")), "webp", quality=60),
    }
    over = "".join(f"<img class={name} src='{source}' alt='{name} of {example.name}'>"
                   for name, source in layers.items())
    photograph = embed(Image.fromarray(example.image), "jpeg", quality=80)
    figures = f"F1 {tables.cell(scores['f1'])}, AUC {tables.cell(scores['auc'])}"
    return (f"<figure class=case id='{example.name}'><div class=compare><img src='{photograph}' "
            f"alt='photograph {example.name}'><div class=over>{over}</div><div class=line></div></div>"
            f"<input type=range min=0 max=100 value=50 aria-label='from photograph to prediction, {example.name}'>"
            f"<figcaption><b>{example.name}</b>{word}: {figures} inside the field of view</figcaption></figure>")


def section(dataset, results_dir, examples):
    """HTML of one data set: tables, curves, the images' list and the images; worst and best first."""
    found = tables.results_of(dataset, results_dir)
    folder, metrics = found[0]
    all_metrics = [metrics for _, metrics in found]
    parts = [f"<h2>{dataset.title}</h2>"]
    for protocol, scored in tables.SCORED.items():
        parts.append(f"<h3>{metrics['n_images']} test images, {scored}</h3>{scores_table(all_metrics, protocol)}")
    parts.append("<h3>Curves</h3><div class=curves>")
    for path in sorted(folder.glob("*.png")):
        parts.append(f"<img src='{data_uri(path.read_bytes(), 'png')}' alt='{path.stem} of {tables.network(metrics)}'>")
    parts.append("</div>")
    ranked = sorted(metrics["per_image"], key=lambda one: one["inside_fov"]["f1"] or 0)
    keys = ("f1", "auc", "accuracy", "sensitivity", "specificity", "cldice")
    parts.append(f"<h3>Each image, {tables.network(metrics)}, inside the field of view</h3>")
    parts.append(table(("image", *(tables.COLUMNS[key] for key in keys)),
                       [("", (one["image"], *(tables.cell(one["inside_fov"].get(key)) for key in keys)))
                        for one in ranked], sortable=True))
    order = {one["image"]: one["inside_fov"] for one in [*ranked[:2], *reversed(ranked[2:])]}
    words = {ranked[0]["image"]: ", worst", ranked[-1]["image"]: ", best"}
    by_name = {example.name: example for example in examples}
    parts.append("<h3>The two worst, then from the best down</h3><div class=cases>")
    parts += [case(by_name[name], probability_map(folder, by_name[name]), scores, words.get(name, ""))
              for name, scores in order.items()]
    return "\n".join([*parts, "</div>"])


def write_page(results_dir, loaded):
    """Writes `<results_dir>/index.html`, self-contained: `loaded` is `[(dataset, its test examples)]`."""
    template = string.Template(Path(__file__).with_suffix(".html").read_text())
    colours = {name: f"rgb{colour}" for name, colour in
               (("found", FOUND), ("missed", MISSED), ("false", FALSE))}
    page = template.substitute(
        titles=" and ".join(dataset.title for dataset, _ in loaded), **colours,
        sections="\n".join(section(dataset, results_dir, examples) for dataset, examples in loaded),
    )
    write_atomically(results_dir / "index.html", page)


def write_figure(results_dir, loaded, width=300):
    """Writes `<results_dir>/figure.png`, the paper's Results figure: a row for each set, its columns in FIGURE.

    Shown is each set's first test image; the maps of all three networks must be there, else UserError.
    """
    rows = []
    for dataset, (example, *_) in loaded:
        maps = [probability_map(results_dir / dataset.name / variant, example) for variant in NETWORKS]
        grey = [np.repeat((255 * plane).astype("uint8")[..., None], 3, 2) for plane in (*maps, example.label)]
        rows.append([example.image, *grey])
    heights = [round(row[0].shape[0] * width / row[0].shape[1]) for row in rows]
    gap, strip = 6, 34
    canvas = Image.new("RGB", (len(FIGURE) * (width + gap) - gap, sum(heights) + gap * len(rows) + strip), "white")
    draw, font, top = ImageDraw.Draw(canvas), ImageFont.load_default(size=20), 0
    for row, height in zip(rows, heights, strict=True):
        for i, tile in enumerate(row):
            small = cv2.resize(tile, (width, height), interpolation=cv2.INTER_AREA)
            canvas.paste(Image.fromarray(small), (i * (width + gap), top))
        top += height + gap
    for i, title in enumerate(FIGURE):
        draw.text((i * (width + gap) + width / 2, top + strip / 2), title, "black", font, anchor="mm")
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG")
    write_atomically(results_dir / "figure.png", buffer.getvalue())


def write(results_dir=ROOT / "results"):
    """Makes page and figure of all sets with results; the photographs are looked for where training looks.

    Returns:
        list of str, a line on each: written, or left out and why.
    """
    lines, loaded = [], []
    for dataset in datasets.DATASETS:
        if any((results_dir / dataset.name).glob("*/metrics.json")):
            try:
                loaded.append((dataset, datasets.load(dataset, "test")))
            except UserError as error:
                lines.append(f"left out {dataset.title}: {error}")
    for name, make in (("index.html", write_page), ("figure.png", write_figure)) if loaded else ():
        try:
            make(results_dir, loaded)
            lines.append(f"written {results_dir / name}")
        except UserError as error:
            lines.append(f"left out {name}: {error}")
    return lines
