"""Makes pages of results from the maps that eval_*.py wrote; they show photographs."""

import base64
import html
import io
import string
from pathlib import Path

from PIL import Image

from vessels import UserError
from vessels.data import published
from vessels.data.images import decode
from vessels.files import ROOT, write_atomically
from vessels.report import bland_altman, comparison, plots, tables

WIDTH = 560  # width of a picture on the page, in pixels
SHOWN = ("rsan", comparison.GENERAL)  # the first of these folders with results shows its maps


def data_uri(content, kind):
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def embed(pixels):
    """Source of an `<img>` that contains a picture, uint8 array, reduced to at most `WIDTH`."""
    picture, buffer = Image.fromarray(pixels), io.BytesIO()
    picture.thumbnail((WIDTH, picture.height), Image.Resampling.LANCZOS)
    picture.save(buffer, "webp", quality=85)
    return data_uri(buffer.getvalue(), "webp")


def table(head, rows):
    """HTML of a table; `rows` are lists of cells, in plain text."""
    def row(kind, cells):
        return f"<tr>{''.join(f'<{kind}>{html.escape(cell)}</{kind}>' for cell in cells)}</tr>"

    return f"<div class=wide><table>{row('th', head)}{''.join(row('td', cells) for cells in rows)}</table></div>"


def case(example, values, image, threshold):
    """HTML of one photograph: left of the slider it, right of it the layer that the reader chooses.

    `values`: its map, uint16 `(height, width)`. `image`: its entry in metrics.json.
    """
    name = html.escape(example.name)
    layers = {"probability": (values >> 8).astype("uint8"), "errors": plots.agreement(example, values, threshold),
              "label": 255 * example.label.astype("uint8")}
    over = "".join(f"<img class={layer} src='{embed(pixels)}' alt='{layer} of {name}'>"
                   for layer, pixels in layers.items())
    figures = ", ".join(f"{tables.COLUMNS[key]} {tables.cell(image['inside_fov'][key])}" for key in ("f1", "auc"))
    return (f"<figure class=case id='{name}'><div class=compare><img src='{embed(example.image)}' "
            f"alt='photograph {name}'><div class=over>{over}</div><div class=line></div></div>"
            f"<input type=range min=0 max=100 value=50 aria-label='from photograph to prediction, {name}'>"
            f"<figcaption><b>{name}</b>: {figures}</figcaption></figure>")


def together(cases):
    return f"<div class=cases>{''.join(cases)}</div>"


def section(source, folder, metrics):
    """One evaluation: `(opening, details)`, HTML of the worst, the middle and the best photograph; and, folded, of the
    others, the scores and the measures.

    Args:
        source: A `Source` of the photographs, of which only one at a time is kept.
        folder: `Path` of the results.
        metrics: The content of metrics.json.

    Raises:
        UserError: A photograph or its map is missing or cannot be read.
    """
    images = {image["image"]: image for image in metrics["per_image"]}
    cases = {}
    for photograph in source.photographs("test"):
        path = folder / "probabilities" / f"{photograph.name}.png"
        if not path.exists():
            command = source.eval_command(f"weights/{metrics['weights']['file']}")
            raise UserError(f"{path}: missing; make it with `python {command}`")
        cases[photograph.name] = case(photograph.load(), decode(path), images[photograph.name], metrics["threshold"])
    ranked = sorted(images, key=lambda name: images[name]["inside_fov"]["f1"] or 0)
    chosen = list(dict.fromkeys([ranked[0], ranked[len(ranked) // 2], ranked[-1]]))
    heading = f"{source.title}: worst, middle and best photograph by F1, {tables.label(metrics)}"
    details = {"scores": table(*tables.score_table(metrics))}
    if others := [cases[name] for name in ranked if name not in chosen]:
        details = {"the other photographs, from worst to best": together(others), **details}
    head, rows = bland_altman.table(metrics)
    if rows:
        details["measures of maps and of labels"] = f"{table(head, rows)}<p>{html.escape(bland_altman.HOW)}</p>"
    return (f"<h2>{html.escape(heading)}</h2>{together(cases[name] for name in chosen)}",
            "\n".join(f"<details><summary>{html.escape(source.title)}: {title}</summary>{content}</details>"
                      for title, content in details.items()))


def overview(by_title):
    """The plot of F1 and AUC: HTML. `by_title`: for each set, a list of contents of metrics.json."""
    return (f"<figure class=picture><img src='{data_uri(plots.overview(by_title), 'png')}' "
            "alt='F1 and AUC of each network'><figcaption>F1 and AUC over whole images, as the paper scored: mean over "
            "the images with its 95 % interval. Lines: the paper, and the second observer, whose label has no AUC."
            "</figcaption></figure>")


def write_page_of(folder, source, metrics):
    """Writes `<folder>/index.html`, self-contained: this one evaluation, with its photographs."""
    about = "This page shows the photographs that were scored: publish it only where you may publish them."
    fill(folder / "index.html", [source.title], about, section(source, folder, metrics))


def fill(path, titles, about, parts):
    template = string.Template(Path(__file__).with_suffix(".html").read_text(encoding="utf-8"))
    colours = {"found": plots.FOUND, "missed": plots.MISSED, "false": plots.FALSE}
    titles = html.escape(" and ".join(", ".join(titles).rsplit(", ", 1)))
    write_atomically(path, template.substitute(titles=titles, about=about, content="\n".join(parts),
                                               **{name: f"rgb{colour}" for name, colour in colours.items()}))


def write(results_dir=ROOT / "results"):
    """Writes `<results_dir>/index.html`, self-contained: all sets with results whose photographs and maps are here.

    Returns:
        list of str, a line for each: written, or left out and why.
    """
    lines, titles, openings, details, plotted = [], [], [], [], {}
    for dataset in published.DATASETS:
        if not (results := tables.results_of(dataset.name, results_dir)):
            continue
        folder = next((folder for folder in SHOWN if folder in results), next(iter(results)))
        try:
            opening, rest = section(dataset, results_dir / dataset.name / folder, results[folder])
        except UserError as error:
            lines.append(f"left out {dataset.title}: {error}")
            continue
        titles.append(dataset.title)
        openings.append(opening)
        details.append(rest)
        if own := [metrics for name, metrics in results.items() if tables.own(metrics) and "_seed" not in name]:
            plotted[dataset.title] = own
    if titles:
        about = ("Made by <code>python -m vessels.report</code> from the maps in <code>results/</code>. It shows "
                 "photographs of data sets that may not be redistributed: do not publish it.")
        plot = [overview(plotted)] if plotted else []
        fill(results_dir / "index.html", titles, about, [*openings, *plot, *details])
        lines.append(f"written {results_dir / 'index.html'}")
    return lines
