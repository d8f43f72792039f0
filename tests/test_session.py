"""The photographs of a page: predicted once, at any threshold the same as predict.py, and deleted in the end."""

import csv
import zipfile

import cv2
import numpy as np
import pytest
from PIL import Image
from predicting import Darkness, run

from vessels.data.fov import Widths
from vessels.prediction.photographs import Options
from vessels.prediction.session import Session

MADE = {"weights": "any", "threshold": "0.6", "settings": ""}


@pytest.fixture
def upload(eye, tmp_path):
    """Puts the same photograph, or a text, under the given names: list of `Path`."""
    def put(*names):
        paths = [tmp_path / f"upload{number}" / name for number, name in enumerate(names)]
        for path in paths:
            path.parent.mkdir()
            if path.suffix == ".png":
                Image.fromarray(eye.image).save(path)
            else:
                path.write_text("no photograph", encoding="utf-8")
        return paths

    return put


def options(threshold=0.5):
    return Options(Widths((537,)), threshold)


def row(path):
    """Size, warning and measures in the table."""
    with path.open(encoding="utf-8") as file:
        return {name: value for name, value in next(csv.DictReader(file)).items()
                if name not in ("file", "seconds", *MADE)}


@pytest.mark.parametrize("threshold", [0.5, 0.6])
def test_another_threshold_gives_what_predict_py_gives(threshold, upload, tmp_path):
    paths = upload("eye.png")
    assert run(tmp_path / "out", *paths, "--diameter", 537, "--threshold", threshold) == 0
    session = Session(paths, tmp_path)
    assert not paths[0].exists()
    assert list(session.predict(Darkness(), options().widths)) == [("eye.png", None)]
    written = session.write(options(threshold), MADE)
    assert {path.name for path in written} == {path.name for path in (tmp_path / "out").iterdir()}
    for path in written:
        if path.suffix == ".csv":
            assert row(path) == row(tmp_path / "out" / path.name)
        else:
            np.testing.assert_array_equal(*(cv2.imread(str(one), -1) for one in (path, tmp_path / "out" / path.name)))


def test_several_photographs_come_as_a_table_and_a_zip_file(upload, tmp_path):
    session = Session(upload("b.png", "notes.txt", "a.png"), tmp_path)
    names, errors = zip(*sorted(session.predict(Darkness(), options().widths)), strict=True)
    assert names == ("a.png", "b.png", "notes.txt")
    assert errors[:2] == (None, None) and errors[2].startswith("notes.txt: cannot be decoded")
    assert [path.name for path in session.predicted()] == ["b.png", "a.png"]
    table, archive = session.write(options(), MADE)
    with table.open(encoding="utf-8") as file:
        assert [row["file"] for row in csv.DictReader(file)] == ["b.png", "a.png"]
    assert len(zipfile.ZipFile(archive).namelist()) == 7


def test_two_photographs_of_one_name_are_refused_in_the_words_of_predict_py(upload, tmp_path):
    session = Session(upload("eye.png", "eye.png"), tmp_path)
    assert list(session.predict(Darkness(), options().widths)) == [
        ("", "eye.png and eye.png: the results of one would overwrite the other's; rename one, or predict them into "
             "different folders with --output-dir")]


def test_a_session_that_is_closed_ends_its_prediction_and_leaves_nothing(upload, tmp_path):
    class Closing(Darkness):
        calls = 0

        def predict_on_batch(self, x):
            self.calls += 1
            if session.folder.exists():
                session.close()
            return super().predict_on_batch(x)

    session, network = Session(upload(*(f"{number}.png" for number in range(9))), tmp_path), Closing()
    assert len(list(session.predict(network, options().widths))) == 9
    assert network.calls <= 3 and not session.folder.exists()  # three are read at once
