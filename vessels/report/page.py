"""Makes the results page and the paper's Results figure from the maps of released weights; both show photographs."""

import base64
import html
import io
import string
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vessels import UserError
from vessels.data import published
from vessels.files import ROOT, write_atomically
from vessels.report import ablation, bland_altman, comparison, plots, tables
from vessels.report.plots import FALSE, FOUND, MISSED

WIDTH = 560  # width of a picture on the page, in pixels
# Pictures in results/ that the page shows if they exist: file, heading, caption.
PICTURES = (
    ("retina.jpg", "A photograph on which no network here was trained",
     "A photograph, its vessel probability map, and the vessels drawn on the photograph."),
    ("retina_attention.jpg", "Spatial attention in the general network, on the same photograph",
     "For each of the seven blocks: its attention map, and the mean of the features before and after."),
)
NETWORKS = {"backbone": "(b) backbone", "backbone_dropblock": "(c) + DropBlock", "rsan": "(d) RSAN"}
FIGURE = ("(a) photograph", *NETWORKS.values(), "(e) label")


def probability_map(folder, example):
    """The map that evaluation wrote to `folder`, uint16 `(height, width)`; UserError if it is missing."""
    path = folder / "probabilities" / f"{example.name}.png"
    found = None
    if path.exists():  # on Windows, cv2.imread cannot open paths with other than the system's letters
        found = cv2.imdecode(np.frombuffer(path.read_bytes(), "uint8"), cv2.IMREAD_UNCHANGED)
    if found is None or found.dtype != np.uint16 or found.shape != example.label.shape:
        dataset = next(dataset for dataset in published.DATASETS if dataset.name == folder.parent.name)
        command = dataset.eval_command(f"weights/{dataset.key}_{folder.name}.weights.h5")
        raise UserError(f"{path}: missing or not of this image; make it with `python {command}`")
    return found


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
    """HTML of a table; `rows` are `(class, cells)`, in plain text."""
    button = "<button>{}</button>" if sortable else "{}"
    lines = ["<div class=wide><table><thead><tr>"]
    lines += [f"<th scope=col>{button.format(html.escape(title))}</th>" for title in head]
    lines.append("</tr></thead><tbody>")
    for kind, cells in rows:
        texts = (html.escape(cell).replace(" ±", "<br>±").replace(" [", "<br>[") for cell in cells)
        lines.append(f"<tr class='{kind}'>" + "".join(f"<td>{text}</td>" for text in texts) + "</tr>")
    return "".join(lines) + "</tbody></table></div>"


def scores_table(all_metrics, protocol):
    return table(("network", *tables.COLUMNS.values()),
                 [("ours" if name.endswith("(here)") else "",
                   (name, *(tables.cell(scores.get(key)) for key in tables.COLUMNS)))
                  for name, scores in tables.all_rows(all_metrics, protocol)])


def case(example, values, scores, word, threshold=0.5):
    """HTML of one test image: left of the slider the photograph, right of it the layer that the reader chooses."""
    name = html.escape(example.name, quote=True)
    grey = Image.fromarray((values >> 8).astype("uint8"))
    layers = {
        "probability": embed(grey, "jpeg", quality=80),
        "agreement": embed(Image.fromarray(plots.agreement(example, values, threshold)), "webp", quality=85),
        "label": embed(Image.fromarray(255 * example.label.astype("uint8")), "webp", quality=60),
    }
    over = "".join(f"<img class={layer} src='{source}' alt='{layer} of {name}'>" for layer, source in layers.items())
    photograph = embed(Image.fromarray(example.image), "jpeg", quality=80)
    figures = f"F1 {tables.cell(scores['f1'])}, AUC {tables.cell(scores['auc'])}"
    return (f"<figure class=case id='{name}'><div class=compare><img src='{photograph}' "
            f"alt='photograph {name}'><div class=over>{over}</div><div class=line></div></div>"
            f"<input type=range min=0 max=100 value=50 aria-label='from photograph to prediction, {name}'>"
            f"<figcaption><b>{name}</b>{word}: {figures} inside the field of view</figcaption></figure>")


def section(found, examples):
    """HTML of one data set: a table of all networks in `found`, `[(folder, metrics)]`; of the first network also the
    curves, the scores of each image, and the images."""
    folder, metrics = found[0]
    all_metrics = [metrics for _, metrics in found]
    parts = []
    for protocol, scored in tables.SCORED.items():
        parts.append(f"<h3>{metrics['n_images']} test images, {scored}</h3>{scores_table(all_metrics, protocol)}")
    parts.append("<h3>Curves</h3><div class=curves>")
    for path in sorted(folder.glob("*.png")):
        alt = html.escape(f"{path.stem} of {tables.network(metrics)}", quote=True)
        parts.append(f"<img src='{data_uri(path.read_bytes(), 'png')}' alt='{alt}'>")
    parts.append("</div>")
    ranked = sorted(metrics["per_image"], key=lambda one: one["inside_fov"]["f1"] or 0)
    keys = sorted(tables.COLUMNS, key=lambda key: key != "f1")  # F1, by which the images are ranked, comes first
    parts.append(f"<h3>Each image, {html.escape(tables.network(metrics))}, inside the field of view</h3>")
    parts.append(table(("image", *(tables.COLUMNS[key] for key in keys)),
                       [("", (one["image"], *(tables.cell(one["inside_fov"].get(key)) for key in keys)))
                        for one in ranked], sortable=True))
    order = {one["image"]: one["inside_fov"] for one in [*ranked[:2], *reversed(ranked[2:])]}
    words = {ranked[0]["image"]: ", worst", ranked[-1]["image"]: ", best"}
    by_name = {example.name: example for example in examples}
    parts.append("<h3>The two worst images, then the others from best to worst</h3><div class=cases>")
    parts += [case(by_name[name], probability_map(folder, by_name[name]), scores, words.get(name, ""),
                   metrics.get("threshold", 0.5))
              for name, scores in order.items()]
    return "\n".join([*parts, "</div>"])


def part(anchor, title, *content):
    """A part of the page: `(link for the top of the page, HTML)`."""
    link = f"<a href='#{anchor}'>{html.escape(title)}</a>"
    return link, f"<h2 id='{anchor}'>{html.escape(title)}</h2>\n" + "\n".join(content)


def paragraphs(texts):
    return "".join(f"<p>{html.escape(text)}</p>" for text in texts)


def standing_part(results_dir):
    """Tables of our and published scores, with how each row was scored."""
    content = []
    for dataset in published.DATASETS:
        for scored, found in comparison.blocks(dataset, results_dir).items():
            rows = [(f"words {kind}", cells) for kind, cells in found]
            content += [f"<h3>{dataset.title}, {tables.SCORED[scored]}</h3>", table(comparison.HEAD, rows)]
    remarks = paragraphs(comparison.published_figures()["field"])
    return part("standing", "Comparison with published methods", *content, remarks)


def ablation_part(results_dir):
    """Networks minus those that lack DropBlock or attention, with intervals; None if there is nothing to compare."""
    compared = ablation.comparisons(results_dir)
    if not compared:
        return None
    how = ("Inside the field of view, in thousandths: mean difference over the test images and trainings and, in "
           "brackets, its 95 % interval, from paired images and, if there are several, from trainings.")
    return part("ablation", "The effect of attention and DropBlock", paragraphs([how]),
                table(ablation.HEAD, [("", ablation.cells(one)) for one in compared]),
                paragraphs(ablation.conclusions(compared)))


def transfer_part(results_dir):
    """Networks trained on other sets, or on several, below the set's own network; None if there are none."""
    rows = []
    for dataset in published.DATASETS:
        found = [metrics for _, metrics in tables.results_of(dataset, results_dir)]
        foreign = [metrics for metrics in found if metrics["trained_on"] != dataset.name]
        for metrics in [*(one for one in found[:1] if one not in foreign), *foreign] if foreign else ():
            name, scores = tables.rows(metrics, "inside_fov")[0]
            rows.append(("" if metrics in foreign else "ours",
                         (name, dataset.title, *(tables.cell(scores.get(key)) for key in tables.COLUMNS))))
    how = ("Inside the field of view. The networks were not retrained: photographs are scaled so that the field of "
           "view is as wide as in the network's training. The network trained on the set itself is in bold.")
    return part("transfer", "Transfer to another set", paragraphs([how]),
                table(("network", "set", *tables.COLUMNS.values()), rows)) if rows else None


def measures_part(sets):
    """Measures of maps compared with labels; `sets` is `[(title, metrics of its networks)]`; None without measures."""
    shown = []
    for title, all_metrics in sets:
        if compared := bland_altman.pairs(all_metrics):
            head, rows = bland_altman.table(compared)
            shown += [f"<h3>{html.escape(title)}, {all_metrics[0]['n_images']} test images</h3>",
                      table(head, [("", cells) for cells in rows]), paragraphs(bland_altman.conclusions(compared)),
                      "<div class=curves>"]
            shown += [f"<img src='{data_uri(content, 'png')}' alt='{name}: scatter and Bland-Altman plot'>"
                      for name, content in bland_altman.pictures(compared).items()] + ["</div>"]
    lines = ("In the plots, grey lines mark equality, solid lines mean differences, and dashed lines their limits of "
             "agreement.")
    return part("measures", "Measures", paragraphs([*bland_altman.HOW, lines]), *shown) if shown else None


def pictures_part(results_dir):
    """The pictures in `PICTURES` that `results_dir` contains; None if there are none."""
    shown = []
    for name, title, caption in PICTURES:
        if (path := results_dir / name).exists():
            kind = path.suffix[1:].replace("jpg", "jpeg")
            shown.append(f"<h3>{html.escape(title)}</h3><figure class=picture>"
                         f"<img src='{data_uri(path.read_bytes(), kind)}' alt='{html.escape(title, quote=True)}'>"
                         f"<figcaption>{html.escape(caption)}</figcaption></figure>")
    return part("pictures", "Pictures", *shown) if shown else None


def write_page(results_dir, loaded):
    """Writes `<results_dir>/index.html`, self-contained; `loaded`: `[(dataset, its test examples)]`."""
    measured = [(dataset.title, bland_altman.networks(dataset, results_dir)) for dataset, _ in loaded]
    parts = [standing_part(results_dir), ablation_part(results_dir), transfer_part(results_dir),
             measures_part(measured), pictures_part(results_dir)]
    sets = [part(dataset.key, dataset.title, section(tables.results_of(dataset, results_dir), examples))
            for dataset, examples in loaded]
    about = ("This page was made from <code>results/*/*/metrics.json</code> and the probability maps beside them by "
             "<code>python -m vessels.report</code>. It shows photographs of data sets that may not be redistributed: "
             "do not publish it.")
    fill(results_dir / "index.html", " and ".join(dataset.title for dataset, _ in loaded), about, parts, sets)


def write_page_of(folder, dataset, metrics, examples):
    """Writes `<folder>/index.html`, self-contained: this one evaluation, with its photographs."""
    about = "This page shows the photographs that were scored: publish it only where you may publish them."
    fill(folder / "index.html", html.escape(dataset.title), about, [measures_part([(dataset.title, [metrics])])],
         [part(dataset.key, dataset.title, section([(folder, metrics)], examples))])


def fill(path, titles, about, parts, sets):
    parts = [made for made in parts if made]
    template = string.Template(Path(__file__).with_suffix(".html").read_text(encoding="utf-8"))
    colours = {name: f"rgb{colour}" for name, colour in
               (("found", FOUND), ("missed", MISSED), ("false", FALSE))}
    page = template.substitute(
        titles=titles, about=about, **colours, links=" ".join(link for link, _ in parts + sets),
        overview="\n".join(content for _, content in parts), sections="\n".join(content for _, content in sets),
    )
    write_atomically(path, page)


def write_figure(results_dir, loaded, width=300):
    """Writes `<results_dir>/figure.png`, the paper's Results figure: a row for each set, with the columns of FIGURE.

    It shows the first test image of each set with results of all three networks. UserError if there is no such set, or
    if a map is missing.
    """
    rows = []
    for dataset, (example, *_) in loaded:
        if not all((results_dir / dataset.name / variant / "metrics.json").exists() for variant in NETWORKS):
            continue
        maps = [probability_map(results_dir / dataset.name / variant, example) for variant in NETWORKS]
        planes = *((values >> 8).astype("uint8") for values in maps), 255 * example.label.astype("uint8")
        grey = [np.repeat(plane[..., None], 3, 2) for plane in planes]
        rows.append([example.image, *grey])
    if not rows:
        raise UserError(f"{results_dir}: no set has results of {', '.join(NETWORKS)}")
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
    """Makes the page and the figure for all sets with results, with photographs from the folders that training uses.

    Returns:
        list of str, a line for each: written, or left out and why.
    """
    lines, loaded = [], []
    for dataset in published.DATASETS:
        if any((results_dir / dataset.name).glob("*/metrics.json")):
            try:
                loaded.append((dataset, dataset.load("test")))
            except UserError as error:
                lines.append(f"left out {dataset.title}: {error}")
    for name, make in (("index.html", write_page), ("figure.png", write_figure)) if loaded else ():
        try:
            make(results_dir, loaded)
            lines.append(f"written {results_dir / name}")
        except UserError as error:
            lines.append(f"left out {name}: {error}")
    return lines
