"""Environments without TensorFlow: predict.py, and app.py in a real Chromium."""

import functools
import os
import re
import shutil
import socket
import subprocess
import sys
import time

import pytest
from conftest import ROOT
from PIL import Image

from vessels.data.images import EXAMPLE

pytestmark = pytest.mark.slow
run = functools.partial(subprocess.run, check=True, text=True, capture_output=True)


def install(python, file):
    run([python, "-m", "pip", "install", "--no-compile", "-r", ROOT / file])


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    """The Python of an environment in which only requirements-predict.txt is installed."""
    folder = tmp_path_factory.mktemp("environment")
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    run([sys.executable, "-m", "venv", folder])
    install(python, "requirements-predict.txt")
    return python


def test_predict_py_needs_no_keras(python, tmp_path):
    installed = {line.split("==")[0].lower() for line in run([python, "-m", "pip", "freeze"]).stdout.splitlines()}
    assert not installed & {"keras", "tensorflow", "jax", "torch", "matplotlib", "h5py", "scikit-learn"}
    done = run([python, ROOT / "predict.py", "-o", tmp_path])
    assert "as Keras is not installed" in done.stderr and "1 of 1 photographs" in done.stdout
    done = subprocess.run([python, ROOT / "predict.py", "--weights", "drive", "-o", tmp_path / "drive"],
                          capture_output=True, text=True)
    assert done.returncode == 2 and "pip install -r requirements.txt" in done.stderr


@pytest.fixture(scope="module")
def server(python, tmp_path_factory):
    """`(address, folder of temporary files)` of a running app.py."""
    install(python, "requirements-app.txt")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("temporary")
    environment = {**os.environ, "GRADIO_SERVER_PORT": str(port), "TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen([python, ROOT / "app.py"], env=environment, stdout=subprocess.PIPE, text=True) as process:
        address = next(line.split()[-1] for line in process.stdout if "Running on" in line)
        assert address == f"http://127.0.0.1:{port}"
        yield address, folder
        process.terminate()
    assert not list(folder.glob("rsan-*"))


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="needs pip install playwright")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if not chromium:
        pytest.skip("needs Chromium")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync"]
    with playwright.sync_playwright() as api, api.chromium.launch(executable_path=chromium, args=flags) as browser:
        yield browser


class Visit:
    """A page in a browser of its own, onto which files are dropped."""

    def __init__(self, browser, address):
        self.context, self.requests = browser.new_context(), []
        self.context.set_default_timeout(300_000)
        self.page = self.context.new_page()
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(address)
        self.overlay = self.page.locator("img[src*='vessels.jpg']")

    def drop(self, *files):
        self.page.locator("input[type=file]").first.set_input_files(files)

    def width(self):
        self.overlay.wait_for()
        return self.overlay.evaluate("image => image.decode().then(() => image.naturalWidth)")

    def density(self):
        return float(self.page.locator("td", has_text="0.").first.inner_text())


def test_a_photograph_is_dropped_and_its_threshold_changed(browser, server, tmp_path):
    address, folder = server
    visit = Visit(browser, address)
    (tmp_path / "notes.txt").write_text("no photograph", encoding="utf-8")
    visit.drop(EXAMPLE, tmp_path / "notes.txt")
    assert visit.width() == 1411
    assert visit.page.get_by_label("Errors").input_value().startswith("notes.txt: cannot be decoded; is it truncated")
    before, density = visit.overlay.get_attribute("src"), visit.density()
    threshold = visit.page.get_by_label("number input for Threshold")
    threshold.fill("0.9")
    threshold.press("Enter")
    visit.page.wait_for_function("old => !document.querySelector(`img[src='${old}']`)", arg=before)
    visit.width()
    visit.page.wait_for_function("old => +document.querySelector('td:nth-child(2)').innerText < old", arg=density)
    visit.page.get_by_role("button", name="Make files").click()
    with visit.page.expect_download() as download:
        visit.page.get_by_role("link", name=re.compile("KB")).first.click()
    assert download.value.suggested_filename == "retina_mask.png"
    assert {url.split("/")[2] for url in visit.requests if not url.startswith(("data:", "blob:"))} == {address[7:]}
    assert next(folder.glob("*/*/0000/retina.jpg"))
    visit.context.close()
    deadline = time.time() + 60
    while next(folder.glob("*/*/0000"), None):  # until the server notices
        assert time.time() < deadline
        time.sleep(0.1)


def test_two_people_see_their_own_photograph(browser, server, tmp_path):
    Image.open(EXAMPLE).resize((705, 705)).save(tmp_path / "small.jpg")
    visits = [Visit(browser, server[0]) for _ in range(2)]
    for visit, path in zip(visits, (EXAMPLE, tmp_path / "small.jpg"), strict=True):
        visit.drop(path)
    assert [visit.width() for visit in visits] == [1411, 705]


def test_each_name_shows_its_own_photograph(browser, server, tmp_path):
    """The small one, dropped last, is predicted first."""
    Image.open(EXAMPLE).resize((705, 705)).save(tmp_path / "small.jpg")
    visit = Visit(browser, server[0])
    visit.drop(EXAMPLE, tmp_path / "small.jpg")
    assert visit.width() == 1411
    shown = visit.overlay.get_attribute("src")
    visit.page.get_by_label("Photograph", exact=True).click()
    visit.page.get_by_role("option", name="small.jpg").click()
    visit.page.wait_for_function("old => !document.querySelector(`img[src='${old}']`)", arg=shown)
    assert visit.width() == 705
