"""The results page and the Results figure, on drawn images; also in Chromium if it is installed."""

import html.parser
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image
from test_metrics import example, maps, scored
from test_report import measured

from vessels import UserError
from vessels.data import published
from vessels.metrics import to_16_bit
from vessels.report import bland_altman, page, plots

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
NAMES = ("01_test", "02_test", "03_test")


@pytest.fixture
def results(tmp_path):
    """A results folder of both sets and all variants, and the other arguments of `write_page`."""
    loaded = []
    for dataset in published.DATASETS:
        examples = [example(name, seed) for seed, name in enumerate(NAMES)]
        probabilities = maps(examples)
        for variant in page.NETWORKS:
            folder = tmp_path / dataset.name / variant
            (folder / "probabilities").mkdir(parents=True)
            scores = scored(examples, probabilities)
            metrics = {**measured(variant, dataset.name, n_images=3), **scores.result()}
            (folder / "metrics.json").write_text(json.dumps(metrics))
            histograms = {protocol: counts.histogram for protocol, counts in scores.pooled.items()}
            for name, content in plots.curves(histograms, metrics).items():
                (folder / name).write_bytes(content)
            for one, probability in zip(examples, probabilities, strict=True):
                sixteen = np.round(probability * 65535).astype("uint16")
                Image.fromarray(sixteen).save(folder / "probabilities" / f"{one.name}.png")
        loaded.append((dataset, examples))
    return tmp_path, loaded


class Tags(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_page_is_complete_and_self_contained(results):
    folder, loaded = results
    page.write_page(folder, loaded)
    text = (folder / "index.html").read_text(encoding="utf-8")
    tags = Tags(text).found
    sources = [attrs.get("src") or attrs.get("href") for _, attrs in tags]
    places = [f"#{attrs['id']}" for _, attrs in tags if "id" in attrs]
    assert all(source.startswith("data:image/") or source in places for source in sources if source)
    assert "url(" not in text and not any(tag in ("link", "iframe") for tag, _ in tags)
    for name in NAMES:
        assert len([attrs for tag, attrs in tags if tag == "figure" and attrs["id"] == name]) == len(loaded)
    for wanted in ("RSAN (paper)", "second observer", "backbone (here)", ", worst", ", best"):
        assert wanted in text


def test_parts_are_there_where_there_is_something_to_show(results):
    folder, loaded = results
    always = ["#standing", "#ablation", *(f"#{dataset.key}" for dataset, _ in loaded)]
    for changed, parts in (
        (lambda: None, always),
        (lambda: add_foreign(folder), [*always[:2], "#transfer", *always[2:]]),
        (lambda: Image.new("RGB", (8, 8)).save(folder / "retina.jpg"),
         [*always[:2], "#transfer", "#pictures", *always[2:]]),
    ):
        changed()
        page.write_page(folder, loaded)
        text = (folder / "index.html").read_text(encoding="utf-8")
        assert [attrs["href"] for tag, attrs in Tags(text).found if tag == "a"] == parts
    assert "rsan of CHASE DB1" in text.split("id='transfer'")[1].split("<h2")[0]
    assert "FR-UNet" in text.split("id='standing'")[1].split("<h2")[0]
    assert "DRIVE, default recipe, 3 images." in text.split("id='ablation'")[1].split("<h2")[0]


def add_foreign(folder):
    """Adds RSAN of CHASE DB1 to DRIVE's results."""
    metrics = json.loads((folder / "DRIVE" / "rsan" / "metrics.json").read_text(encoding="utf-8"))
    (folder / "DRIVE" / "rsan_of_CHASEDB1").mkdir()
    text = json.dumps({**metrics, "trained_on": "CHASEDB1"})
    (folder / "DRIVE" / "rsan_of_CHASEDB1" / "metrics.json").write_text(text)


def test_measures_are_shown_of_sets_that_have_them(results):
    folder, loaded = results
    dataset, examples = loaded[0]
    path = folder / dataset.name / "rsan" / "metrics.json"
    metrics = json.loads(path.read_text(encoding="utf-8"))
    for image, one, found in zip(metrics["per_image"], examples, maps(examples), strict=True):
        image["measures"] = bland_altman.measures(one, to_16_bit(found), metrics["threshold"])
    path.write_text(json.dumps(metrics))
    page.write_page(folder, loaded)
    page.write_page_of(path.parent, dataset, metrics, examples)
    for index in (folder, path.parent):
        text = (index / "index.html").read_text(encoding="utf-8")
        assert "#measures" in [attrs.get("href") for _, attrs in Tags(text).found]
        shown = text.split("id='measures'")[1].split("<h2")[0]
        assert re.findall("<h3>(.*?)</h3>", shown) == ["DRIVE, 3 test images"]
        first = np.mean([image["measures"]["label"]["density"] for image in metrics["per_image"]])
        assert f"<td>density</td><td>{first:.4f}</td>" in shown and "rsan, compared with the second observer" in shown
        alts = [attrs["alt"] for tag, attrs in Tags(shown).found if tag == "img"]
        assert alts[0].startswith("density") and alts[-1].startswith("fractal dimension")


def test_list_begins_with_the_worst(results):
    folder, loaded = results
    page.write_page(folder, loaded)
    text = (folder / "index.html").read_text(encoding="utf-8")
    first = [float(figure) for figure in re.findall(r"<td>0\d_test</td><td>([\d.]+)</td>", text)[:3]]
    assert len(first) == 3 and first == sorted(first)


def test_figure_has_a_row_for_each_set_and_five_columns(results):
    folder, loaded = results
    page.write_figure(folder, loaded, width=120)
    assert Image.open(folder / "figure.png").width == 5 * 126 - 6
    (folder / "CHASEDB1" / "backbone" / "probabilities" / "01_test.png").unlink()
    with pytest.raises(UserError, match=r"python eval_chase.py weights/chase_backbone.weights.h5"):
        page.write_figure(folder, loaded)
    height = Image.open(folder / "figure.png").height
    (folder / "CHASEDB1" / "backbone" / "metrics.json").unlink()  # this set has no row then
    page.write_figure(folder, loaded, width=120)
    assert 0 < Image.open(folder / "figure.png").height < height
    with pytest.raises(UserError, match="no set has results of backbone"):
        page.write_figure(folder, loaded[1:])


def test_what_is_left_out_is_said(results, monkeypatch):
    folder, loaded = results
    by_name = {dataset.name: examples for dataset, examples in loaded}
    monkeypatch.setattr(published.Dataset, "load", lambda dataset, split: by_name[dataset.name])
    assert [line.split()[0] for line in page.write(folder)] == ["written", "written"]
    (folder / "DRIVE" / "backbone" / "probabilities" / "01_test.png").write_bytes(b"no picture")
    assert [line.split()[0] for line in page.write(folder)] == ["written", "left"]

    def absent(dataset, split):
        raise UserError("no data")

    monkeypatch.setattr(published.Dataset, "load", absent)
    lines = page.write(folder)
    assert len(lines) == len(loaded) and all("no data" in line for line in lines)


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="no Chromium here")
def test_page_in_chromium_sorts_and_slides(results):
    folder, loaded = results
    page.write_page(folder, loaded)
    index = folder / "index.html"
    acts = """<script>
      document.querySelectorAll("th button")[0].click();
      const slider = document.querySelector(".case input");
      slider.value = 20; slider.dispatchEvent(new Event("input"));
      document.querySelector("input[value=label]").click();
      document.title = [...document.querySelector("table:has(button)").tBodies[0].rows]
        .map(row => row.cells[0].textContent).join() + "|" + slider.closest(".case").style.cssText
        + "|" + document.body.dataset.layer + "|" + (document.documentElement.scrollWidth <= innerWidth);
    </script></body>"""
    index.write_text(index.read_text(encoding="utf-8").replace("</body>", acts))
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=500,900",
               f"--user-data-dir={folder / 'profile'}"]
    dom = subprocess.run([*command, "--dump-dom", index.as_uri()], capture_output=True, text=True, timeout=120).stdout
    title = re.search("<title>(.*?)</title>", dom).group(1)
    assert title == "01_test,02_test,03_test|--at: 20%;|label|true"
    shot = folder / "page.png"
    subprocess.run([*command, f"--screenshot={shot}", index.as_uri()], capture_output=True, timeout=120)
    assert Image.open(shot).convert("L").getextrema()[0] < 100
