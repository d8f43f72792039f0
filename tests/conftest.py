import dataclasses
import hashlib
import json
import os
import shutil
import sys
import types
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

# The golden gradients are compared to the last digits. With several threads, sums are rounded in another order,
# and a ReLU with an input near zero may switch, which changes single gradients by 3e-5.
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

# `vessels` sets what TensorFlow reads on import.
from vessels.data import examples, published, synthetic  # noqa: E402
from vessels.data.fov import field_of_view  # noqa: E402
from vessels.data.images import EXAMPLE, read_photograph  # noqa: E402

TINY = dataclasses.replace(published.DRIVE, size=(60, 70), padded=72)  # for trainings that take seconds


@dataclasses.dataclass(frozen=True)
class Shown(examples.Photograph):
    example: examples.Example

    def load(self):
        return self.example


@pytest.fixture(autouse=True)
def dropped_exceptions_are_pytests(monkeypatch):
    """A command that runs in a test replaces Python's hook for them, to repeat signals."""
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)


@pytest.fixture
def stand_in(monkeypatch):
    """`stand_in(examples, files)`: makes them the photographs of all sets, procedural too; `files`: paths by kind."""
    def show(examples, files=None):
        photographs = [Shown(example.name, paths, example)
                       for example, paths in zip(examples, files or [{}] * len(examples), strict=True)]
        for source in (published.Dataset, synthetic.Procedural):
            monkeypatch.setattr(source, "photographs", lambda *_: photographs)
        monkeypatch.setattr(published.Dataset, "check", lambda *_: None)

    return show


@pytest.fixture
def command(tmp_path, monkeypatch):
    """`command(*flags, dataset=...)` -> exit code of eval_*.py, with weights/ and results/ in `tmp_path`.

    A replacement for the network, which needs no TensorFlow, takes dark pixels for vessels. `command.diameters`: those
    to which photographs were scaled, a tuple for each.
    """
    from vessels import evaluation, jobs, network, release

    def build(filters, variant):
        return types.SimpleNamespace(count_params=lambda: 7 * (filters == 16))

    def load_weights(model, path):
        if path.read_bytes() == b"other arrays":
            raise ValueError(f"{path} holds 3 arrays that do not match the 5 of rsan")

    def predict_image(model, image, side):
        green = image[..., 1].astype("float32")
        return 1 - green / green.max()

    def predict_photograph(model, image, widths, fov):
        run.diameters.append(widths.diameters)
        return evaluation.maps.Prediction(predict_image(model, image, None) * fov, fov, None, 1.0, 1.0)

    def run(*flags, dataset=published.DRIVE):
        return evaluation.main(dataset, "rsan_model", "Scores.", list(map(str, flags)))

    for module in (jobs, release):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(evaluation.maps, "predict_image", predict_image)
    monkeypatch.setattr(evaluation.maps, "predict_photograph", predict_photograph)
    monkeypatch.setattr(network, "load", lambda name: network.Network("rsan_model", build, None, load_weights))
    run.diameters = []
    return run


def save_weights(folder, stem="drive_rsan", content=b"weights", **changes):
    """Writes a weights file and its record: path of the first. A change to None leaves the field out."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / f"{stem}.weights.h5"
    weights.write_bytes(content)
    record = {"dataset": "DRIVE", "variant": "rsan", "model": {"filters": 16, "variant": "rsan"},
              "data_sha256": {}, "diameters": [537], "parameters": 7, "sha256": hashlib.sha256(content).hexdigest(),
              "seed": 0, "recipe": {"epochs": 3, "seed": changes.get("seed", 0)}}
    record = {key: value for key, value in {**record, **changes}.items() if value is not None}
    (folder / f"{stem}.json").write_text(json.dumps(record))
    return weights


@pytest.fixture
def data_root():
    """Folder that holds DRIVE and CHASEDB1; tests on real images are skipped without it."""
    root = Path(os.environ.get("RSAN_DATA_ROOT", ROOT / "data"))
    if not (root / "DRIVE").is_dir() or not (root / "CHASEDB1").is_dir():
        pytest.skip("needs DRIVE and CHASEDB1 in data/ or $RSAN_DATA_ROOT")
    return root


@pytest.fixture(scope="session")
def eye():
    """A procedural photograph in the size of DRIVE's: `published.Example`."""
    return synthetic.make(published.DRIVE, "validation")[0]


@pytest.fixture(scope="session")
def retina():
    """scikit-image's photograph; its label is what is darker than the surroundings: `Example`."""
    image = read_photograph(EXAMPLE)
    fov, diameter = field_of_view(image)
    return examples.Example("retina", image, fov & (examples.relief(image) < -9), fov, diameter=diameter)


@pytest.fixture(scope="session")
def originals(tmp_path_factory):
    """A folder with four photographs, one of another size, and their labels, masks and second observers."""
    root = tmp_path_factory.mktemp("originals")
    for i, example in enumerate(synthetic.make(published.DRIVE, "test")):
        files = {"images/{}.png": example.image, "labels/{}.png": example.label, "masks/{}.gif": example.fov,
                 "second/{}.png": example.second}
        for name, array in files.items():
            path = root / name.format(i)
            path.parent.mkdir(exist_ok=True)
            array = array[: -40 if i == 3 else None]
            Image.fromarray(array if name.startswith("images") else 255 * array.astype("uint8")).save(path)
    return root


@pytest.fixture
def root(originals, tmp_path):
    """A copy of `originals` to change."""
    return Path(shutil.copytree(originals, tmp_path / "mine"))


def pytest_collection_modifyitems(items):
    """Puts the files with the longest tests first, so that no core is idle at the end."""
    longest = ("test_tutorial", "test_interruptions", "test_backends", "test_systems")
    items.sort(key=lambda item: item.path.stem not in longest)
