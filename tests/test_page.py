"""The results page, on drawn images; also in Chromium if it is installed."""

import json
import re
import shutil
import subprocess

import pytest
from PIL import Image
from test_metrics import example, maps, scored
from test_report import measured

from vessels import UserError
from vessels.data import published
from vessels.metrics import to_16_bit
from vessels.report import page

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
EXAMPLES = [example(f"0{seed}_test", seed) for seed in range(4)]
SOURCES = published.DATASETS[:2]


@pytest.fixture
def results(tmp_path, stand_in):
    """A results folder of two sets, whose photographs are `EXAMPLES`, and of two networks."""
    stand_in(EXAMPLES)
    probabilities = maps(EXAMPLES)
    scores = scored(EXAMPLES, probabilities).result()
    for dataset in SOURCES:
        for variant in ("backbone", "rsan"):
            folder = tmp_path / dataset.name / variant
            (folder / "probabilities").mkdir(parents=True)
            (folder / "metrics.json").write_text(json.dumps({**measured(variant, dataset.name), **scores}))
            for one, found in zip(EXAMPLES, probabilities, strict=True):
                Image.fromarray(to_16_bit(found)).save(folder / "probabilities" / f"{one.name}.png")
    return tmp_path


def test_page_opens_with_pictures_and_a_plot_and_folds_the_rest(results):
    assert [line.split()[0] for line in page.write(results)] == ["written"]
    text = (results / "index.html").read_text(encoding="utf-8")
    opening, folded = text[: text.index("<details")], text[text.index("<details") :]
    sources = re.findall(r"(?:src|href)=['\"]?([^'\">]*)", text)
    assert sources and all(source.startswith("data:image/") for source in sources)  # nothing is fetched
    assert not re.search(r"url\(|<link|<iframe", text)
    assert "<h1>RSAN: results on DRIVE, CHASE DB1</h1>" in opening
    assert "<pre>" not in opening and opening.count("class=case id=") == 3 * len(SOURCES)
    assert "F1 and AUC of each network" in opening and folded.count("<details") == 2 * len(SOURCES)
    assert "RSAN (paper)" in folded and folded.count("class=case id=") == len(SOURCES)
    shown = re.findall(r"0\d_test</b>: F1 ([\d.]+)", opening)[:3]
    assert len(set(shown)) == 3 and shown == sorted(shown)  # from worst to best


def test_what_is_left_out_is_said(results, monkeypatch):
    maps_of_drive = results / "DRIVE" / "rsan" / "probabilities"
    for prepare, message in ((lambda path: path.write_bytes(b"no picture"), "01_test.png: cannot be decoded"),
                             (lambda path: path.unlink(), "01_test.png: No such file")):
        prepare(maps_of_drive / "01_test.png")
        left_out, written = page.write(results)
        assert left_out.startswith("left out DRIVE") and message in left_out and written.startswith("written")

    def absent(*_):
        raise UserError("no data")

    monkeypatch.setattr(published.Dataset, "photographs", absent)
    lines = page.write(results)
    assert len(lines) == len(SOURCES) and all("no data" in line for line in lines)


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="no Chromium here")
def test_page_in_chromium_slides(results):
    page.write(results)
    index = results / "index.html"
    acts = """<script>
      const slider = document.querySelector(".case input");
      slider.value = 20; slider.dispatchEvent(new Event("input"));
      document.querySelector("input[value=label]").click();
      document.title = slider.closest(".case").style.cssText + "|" + document.body.dataset.layer
        + "|" + (document.documentElement.scrollWidth <= innerWidth);
    </script></body>"""
    index.write_text(index.read_text(encoding="utf-8").replace("</body>", acts))
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=500,900",
               f"--user-data-dir={results / 'profile'}"]
    dom = subprocess.run([*command, "--dump-dom", index.as_uri()], capture_output=True, text=True, timeout=120).stdout
    title = re.search("<title>(.*?)</title>", dom)[1]
    assert title == "--at: 20%;|label|true"
