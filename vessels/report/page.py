"""Makes the results page from the maps that eval_*.py wrote; it shows photographs."""

import base64
import html
import io
import string
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from vessels import UserError
from vessels.data import published
from vessels.files import ROOT, write_atomically
from vessels.report import ablation, bland_altman, comparison, plots, scores, tables
from vessels.report.plots import FALSE, FOUND, MISSED

WIDTH = 560  # width of a picture on the page, in pixels
SHOWN = ("rsan", comparison.GENERAL)  # the first of these folders with results shows its maps


def probability_map(folder, example):
    """The map that evaluation wrote to `folder`, uint16 `(height, width)`; UserError if it is missing."""
    path = folder / "probabilities" / f"{example.name}.png"
    values = None
    if path.exists():  # on Windows, cv2.imread cannot open paths with other than the system's letters
        values = cv2.imdecode(np.frombuffer(path.read_bytes(), "uint8"), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16 or values.shape != example.label.shape:
        dataset = next(dataset for dataset in published.DATASETS if dataset.name == folder.parent.name)
        command = dataset.eval_command(f"weights/{dataset.key}_{folder.name}.weights.h5")
        raise UserError(f"{path}: missing or not of this image; make it with `python {command}`")
    return values


def data_uri(content, kind):
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def embed(picture, kind, **options):
    """Source of an `<img>` that contains the picture, reduced to at most `WIDTH`."""
    if picture.width > WIDTH:
        picture = picture.resize((WIDTH, round(picture.height * WIDTH / picture.width)), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return data_uri(buffer.getvalue(), kind)


def table(head, rows, sortable=False):
    """HTML of a table; `rows` are lists of cells, in plain text."""
    button = "<button>{}</button>" if sortable else "{}"
    lines = ["<div class=wide><table><thead><tr>"]
    lines += [f"<th scope=col>{button.format(html.escape(title))}</th>" for title in head]
    lines.append("</tr></thead><tbody>")
    for cells in rows:
        texts = (html.escape(cell).replace(" ±", "<br>±").replace(" [", "<br>[") for cell in cells)
        lines.append(f"<tr>{''.join(f'<td>{text}</td>' for text in texts)}</tr>")
    return "".join(lines) + "</tbody></table></div>"


def case(example, values, image, threshold):
    """HTML of one photograph: left of the slider it, right of it the layer that the reader chooses.

    `values`: its map, uint16 `(height, width)`. `image`: its entry in metrics.json.
    """
    name = html.escape(example.name, quote=True)
    layers = {
        "probability": embed(Image.fromarray((values >> 8).astype("uint8")), "jpeg", quality=80),
        "errors": embed(Image.fromarray(plots.agreement(example, values, threshold)), "webp", quality=85),
        "label": embed(Image.fromarray(255 * example.label.astype("uint8")), "webp", quality=60),
    }
    over = "".join(f"<img class={layer} src='{source}' alt='{layer} of {name}'>" for layer, source in layers.items())
    photograph = embed(Image.fromarray(example.image), "jpeg", quality=80)
    figures = ", ".join(f"{tables.COLUMNS[key]} {tables.cell(image['inside_fov'][key])}" for key in ("f1", "auc"))
    return (f"<figure class=case id='{name}'><div class=compare><img src='{photograph}' "
            f"alt='photograph {name}'><div class=over>{over}</div><div class=line></div></div>"
            f"<input type=range min=0 max=100 value=50 aria-label='from photograph to prediction, {name}'>"
            f"<figcaption><b>{name}</b>: {figures}</figcaption></figure>")


def folded(anchor, title, *content):
    return f"<details id='{anchor}'><summary>{html.escape(title)}</summary>\n{''.join(content)}</details>"


def paragraphs(texts):
    return "".join(f"<p>{html.escape(text)}</p>" for text in texts)


def pictures(key, title, folder, metrics, examples):
    """`(opening, others)`: HTML of the worst, the middle and the best photograph of a set; and of the others, folded.

    `examples`: iterable of `Example`, of which only one at a time is kept.
    """
    images = {image["image"]: image for image in metrics["per_image"]}
    cases = {example.name: case(example, probability_map(folder, example), images[example.name], metrics["threshold"])
             for example in examples}
    ranked = sorted(images, key=lambda name: images[name]["inside_fov"]["f1"] or 0)
    chosen = list(dict.fromkeys([ranked[0], ranked[len(ranked) // 2], ranked[-1]]))
    heading = html.escape(f"{title}: worst, middle and best photograph by F1, {tables.label(metrics)}")
    opening = f"<h2 id='{key}'>{heading}</h2><div class=cases>{''.join(cases[name] for name in chosen)}</div>"
    others = "".join(cases[name] for name in ranked if name not in chosen)
    return opening, folded(f"{key}-photographs", f"{title}: the other photographs, from worst to best",
                           f"<div class=cases>{others}</div>") if others else ""


def score_tables(key, title, results):
    """Folded: all networks on one set, in both protocols, and each photograph of the first of `SHOWN`."""
    content = []
    for protocol, scored in tables.SCORED.items():
        rows = [[tables.label(seeds[0]), str(len(seeds)),
                 *(tables.spread(seeds, protocol, name) for name in tables.COLUMNS)]
                for seeds in tables.trainings(results).values()]
        rows += [[name, "", *(tables.cell(scores.get(column)) for column in tables.COLUMNS)]
                 for name, scores in tables.rows(results[shown(results)], protocol)[1:]]
        content += [f"<h3>{scored}</h3>", table(("network", "trainings", *tables.COLUMNS.values()), rows)]
    metrics = results[shown(results)]
    columns = sorted(tables.COLUMNS, key=lambda name: name != "f1")  # F1, by which they are sorted, comes first
    images = sorted(metrics["per_image"], key=lambda image: image["inside_fov"]["f1"] or 0)
    content += [f"<h3>each photograph, {html.escape(tables.label(metrics))}, inside the field of view</h3>",
                table(("image", *(tables.COLUMNS[name] for name in columns)),
                      [[image["image"], *(tables.cell(image["inside_fov"].get(name)) for name in columns)]
                       for image in images], sortable=True)]
    return folded(f"{key}-scores", f"{title}: scores of all networks and photographs", *content)


def shown(results):
    """The folder whose maps are shown: the first of `SHOWN`, or the first that there is."""
    return next((folder for folder in SHOWN if folder in results), next(iter(results)))


def methods_part(results_dir):
    return folded("methods", "Comparison with published methods",
                  table(comparison.HEAD, [cells for _, cells in comparison.methods(results_dir)]),
                  paragraphs(comparison.published_figures()["field"]))


def ablation_part(results_dir):
    """Networks minus those that lack DropBlock or attention, with intervals; empty if there is nothing to compare."""
    compared = ablation.comparisons(results_dir)
    how = ("Inside the field of view, in thousandths: mean difference over the test images and trainings and, in "
           "brackets, its 95 % interval, from paired images and, if there are several, from trainings.")
    return folded("ablation", "The effect of attention and DropBlock", paragraphs([how]),
                  table(ablation.HEAD, [ablation.cells(one) for one in compared]),
                  paragraphs(ablation.conclusions(compared))) if compared else ""


def measures_part(key, title, all_metrics):
    """Measures of maps compared with those of labels; empty without measures."""
    if not (compared := bland_altman.pairs(all_metrics)):
        return ""
    return folded(f"{key}-measures", f"{title}: measures of maps and of labels", table(*bland_altman.table(compared)),
                  paragraphs([bland_altman.HOW]))


def curves_part(key, title, folder):
    plotted = "".join(f"<img src='{data_uri(path.read_bytes(), 'png')}' alt='{path.stem}'>"
                      for path in sorted(folder.glob("*.png")))
    return folded(f"{key}-curves", f"{title}: curves", f"<div class=curves>{plotted}</div>")


def overview(results_dir, sources):
    """The plot of F1 and AUC of all networks on the sets on which they were trained: HTML."""
    drawn = {}
    for source in sources:
        results = {folder: metrics for folder, metrics in tables.results_of(source.name, results_dir).items()
                   if tables.own(metrics) and "_seed" not in folder}
        if results:
            intervals = {tables.label(metrics): scores.mean_and_interval(metrics, "whole_image", plots.PLOTTED)
                         for metrics in results.values()}
            others = tables.rows(results[shown(results)], "whole_image")[1:]
            drawn[source.title] = plots.Scored(intervals, dict(others))
    how = ("F1 and AUC over whole images, as the paper scored: mean over the images with its 95 % interval. Lines: "
           "the paper, and the second observer, whose label has no AUC.")
    if not drawn:
        return ""
    source = data_uri(plots.overview(drawn), "png")
    return (f"<figure class=picture><img src='{source}' alt='F1 and AUC of each network'>"
            f"<figcaption>{how}</figcaption></figure>")


def write_page(results_dir, sources):
    """Writes `<results_dir>/index.html`, self-contained, with the test photographs of `sources`."""
    openings, details = [], []
    for source in sources:
        results = tables.results_of(source.name, results_dir)
        folder = shown(results)
        opening, others = pictures(source.key, source.title, results_dir / source.name / folder, results[folder],
                                   loaded(source))
        openings.append(opening)
        details += [others, score_tables(source.key, source.title, results),
                    measures_part(source.key, source.title, [results[name] for name in SHOWN if name in results]),
                    curves_part(source.key, source.title, results_dir / source.name / folder)]
    about = ("Made by <code>python -m vessels.report</code> from <code>results/*/*/metrics.json</code> and the maps "
             "beside them. It shows photographs of data sets that may not be redistributed: do not publish "
             "it.")
    fill(results_dir / "index.html", " and ".join(source.title for source in sources), about,
         [*openings, overview(results_dir, sources), methods_part(results_dir), ablation_part(results_dir), *details])


def write_page_of(folder, source, metrics):
    """Writes `<folder>/index.html`, self-contained: this one evaluation, with its photographs."""
    about = "This page shows the photographs that were scored: publish it only where you may publish them."
    opening, others = pictures(source.key, source.title, folder, metrics, loaded(source))
    fill(folder / "index.html", html.escape(source.title), about,
         [opening, others, score_tables(source.key, source.title, {folder.name: metrics}),
          measures_part(source.key, source.title, [metrics]), curves_part(source.key, source.title, folder)])


def loaded(source):
    """The test photographs of a source, one at a time."""
    return (photograph.load() for photograph in source.photographs("test"))


def fill(path, titles, about, parts):
    template = string.Template(Path(__file__).with_suffix(".html").read_text(encoding="utf-8"))
    colours = {name: f"rgb{colour}" for name, colour in
               (("found", FOUND), ("missed", MISSED), ("false", FALSE))}
    write_atomically(path, template.substitute(titles=titles, about=about, **colours, content="\n".join(parts)))


def write(results_dir=ROOT / "results"):
    """Makes the page for all sets with results, with photographs from the folders that training uses.

    Returns:
        list of str, a line for each: written, or left out and why.
    """
    lines, sources = [], []
    for dataset in published.DATASETS:
        if any((results_dir / dataset.name).glob("*/metrics.json")):
            try:
                dataset.photographs("test")
                sources.append(dataset)
            except UserError as error:
                lines.append(f"left out {dataset.title}: {error}")
    try:
        if sources:
            write_page(results_dir, sources)
            lines.append(f"written {results_dir / 'index.html'}")
    except UserError as error:
        lines.append(f"left out index.html: {error}")
    return lines
