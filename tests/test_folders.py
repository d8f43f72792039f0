"""Large folders: interruptions, the user's files, file names with any bytes."""

import csv
import gzip
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import ROOT
from PIL import Image
from predicting import run

from vessels import UserError
from vessels.prediction import command, folders, photographs


@pytest.fixture(scope="module")
def eye(eye):
    return eye.image[::2, ::2]


@pytest.fixture
def folder(eye, tmp_path):
    (tmp_path / "in").mkdir()
    for name in "abcde":
        Image.fromarray(eye).save(tmp_path / "in" / f"{name}.png")
    return tmp_path / "in"


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def names(path):
    return sorted(Path(row["file"]).name for row in rows(path))


def test_existing_photographs_are_skipped_and_no_row_is_lost(folder, tmp_path, capsys):
    output = tmp_path / "out"
    assert run(output, folder / "b.png", folder / "d.png") == 0
    (output / "d_mask.png").unlink()  # as an interruption leaves it
    before = (output / "b_mask.png").stat().st_mtime_ns
    assert run(output, folder, "--skip-existing") == 0
    said = capsys.readouterr()
    assert "4 of 4 photographs, 1 skipped, 4 with a warning" in said.out
    assert said.err.count("warning: d.png: vessel density") == 2
    assert names(output / "vessels.csv") == ["a.png", "b.png", "c.png", "d.png", "d.png", "e.png"]
    assert (output / "b_mask.png").stat().st_mtime_ns == before
    assert run(output, folder / "a.png") == 0
    assert names(output / "vessels.csv") == ["a.png", "a.png", "b.png", "c.png", "d.png", "d.png", "e.png"]


@pytest.mark.parametrize(("flags", "skipped"), [
    ([], True), (["--threshold", 0.3], False), (["--tta"], False), (["--degrees", 45], False), (["--fast"], False),
    (["--diameter", 500], False), (["--no-mixed-precision"], True)])
def test_only_what_the_same_settings_made_is_skipped(flags, skipped, folder, tmp_path, capsys):
    weights = tmp_path / "two_widths.weights.h5"
    weights.write_bytes((ROOT / "weights/any_rsan.weights.h5").read_bytes())
    record = json.loads((ROOT / "weights/any_rsan.json").read_text())
    (tmp_path / "two_widths.json").write_text(json.dumps({**record, "network": "predicting"}))
    options = [folder / "a.png", "--weights", weights, *flags, "--skip-existing"]
    assert run(tmp_path, folder / "a.png", "--weights", weights) == 0
    assert run(tmp_path, *options) == 0
    assert ("1 skipped" in capsys.readouterr().out) == skipped
    assert run(tmp_path, *options) == 0
    assert "1 skipped" in capsys.readouterr().out


def test_another_photograph_of_that_name_is_neither_skipped_nor_overwrites(folder, eye, tmp_path, capsys):
    output, other = tmp_path / "out", tmp_path / "a.png"
    Image.fromarray(eye[::-1]).save(other)
    assert run(output, folder / "a.png") == 0
    before = (output / "a_mask.png").read_bytes()
    for flags in ([], ["--skip-existing"]):
        assert run(output, other, *flags) == 1
        assert "a_probability.png: exists, and predict.py did not make it from this" in capsys.readouterr().err
    assert (output / "a_mask.png").read_bytes() == before and names(output / "vessels.csv") == ["a.png"]
    Image.open(folder / "a.png").save(other, compress_level=1)  # a copy
    assert run(output, other, "--skip-existing") == 0
    assert "1 skipped" in capsys.readouterr().out


def test_two_runs_at_once_do_not_overwrite_each_other(folder, eye, tmp_path, capsys, monkeypatch):
    other = tmp_path / "a.png"
    Image.fromarray(eye[::-1]).save(other)
    assert run(tmp_path / "first", folder / "a.png") == 0
    usual = photographs.predict_photograph

    def while_another_writes(*arguments, **options):
        (tmp_path / "first/a_probability.png").rename(tmp_path / "out/a_probability.png")
        return usual(*arguments, **options)

    monkeypatch.setattr(photographs, "predict_photograph", while_another_writes)
    assert run(tmp_path / "out", other) == 1
    assert "a_probability.png: exists, and predict.py did not make it from this" in capsys.readouterr().err
    assert not rows(tmp_path / "out" / "vessels.csv")


def test_links_in_a_circle_fail_alone(folder, tmp_path, capsys):
    (folder / "f.png").symlink_to("g.png")
    (folder / "g.png").symlink_to("f.png")
    assert run(tmp_path / "out", folder) == 1
    assert "5 of 7" in capsys.readouterr().out


def test_an_abbreviated_flag_is_refused(capsys):
    """Of --att, nothing but the prediction would be done."""
    with pytest.raises(SystemExit):
        command.main("", "predicting", ["a.png", "--att"])
    assert "unrecognized arguments: --att" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[""], ["a.png", "-o", ""], ["a.png", "--weights", ""]])
def test_an_empty_argument_is_not_the_current_folder(words, capsys):
    with pytest.raises(SystemExit):
        command.main("", "predicting", words)
    assert "is empty; name a file or folder" in capsys.readouterr().err


def test_what_is_no_photograph_is_counted_and_left_out(folder, eye, tmp_path, capsys):
    assert run(tmp_path / "out", folder / "a.png") == 0
    results = [*(tmp_path / "out").iterdir()]
    for file in results:
        file.rename(folder / file.name)
    os.mkfifo(folder / "pipe.png")
    (folder / "sub").mkdir()
    (folder / "._b.png").write_text("what macOS leaves")
    (folder / "im.ppm.gz").write_bytes(gzip.compress(cv2.imencode(".ppm", eye)[1]))
    assert run(tmp_path / "again", folder) == 0
    said = capsys.readouterr()
    assert "skipped predict.py result (4), special file (1), subfolder (1); to try one" in said.err
    assert "6 of 6" in said.out and (tmp_path / "again/im_mask.png").exists()
    named = [*(folder / file.name for file in results), folder / "pipe.png", folder / "._b.png"]
    for more, code in (([], 2), ([folder / "b.png"], 0)):
        assert run(tmp_path / "named", *named, *more) == code
        assert "skipped companion file of macOS (1), predict.py result (4), special file (1)" in capsys.readouterr().err


def test_names_are_no_formulas_in_a_spreadsheet(eye, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = ["@SUM(1).png", "=HYPERLINK(1).png", "+1.png", "\t1.png", "\uff1d1.png", "a.png", "\u773c.png"]
    for name in files:
        Image.fromarray(eye).save(name)
    assert run(tmp_path / "out", *files) == 0
    found = {row["file"] for row in rows(tmp_path / "out" / "vessels.csv")}
    assert found == {*(f"./{name}" for name in files[:5]), *files[5:]}
    assert run(tmp_path / "out", *files, "--skip-existing") == 0 and len(rows(tmp_path / "out" / "vessels.csv")) == 7


def test_a_name_that_is_too_long_fails_alone(folder, tmp_path, capsys):
    for name in (76 * "\u773c", 80 * "\u773c", 230 * "z"):
        (folder / f"{name}.png").write_bytes((folder / "a.png").read_bytes())
    assert run(tmp_path / "out", folder) == 1
    said = capsys.readouterr()
    assert "7 of 8" in said.out and said.err.count("too long; rename the photograph") == 1


def test_a_table_that_is_open_elsewhere_is_said_so(folder, tmp_path, capsys, monkeypatch):
    usual = Path.open

    def refuse(self, mode="r", **how):
        if mode == "a":
            raise PermissionError(13, "Permission denied")
        return usual(self, mode, **how)

    monkeypatch.setattr(Path, "open", refuse)
    assert run(tmp_path, folder / "a.png") == 2
    assert "vessels.csv: cannot be written (Permission denied); close the program" in capsys.readouterr().err


@pytest.mark.parametrize(("change", "message"), [
    (lambda text: text.replace(",", ";"), "has other columns or separators"),
    (lambda text: text.replace(",weights", ""), "has other columns"),
    (lambda text: "vessel,tonnage\nTitanic,46328\n", "has other columns"),
    (lambda text: "vessel,tonnage", "has other columns"),
    (lambda text: text.replace("drive_rsan", "other"), "was begun with the weights other"),
    (lambda text: "\ufeff" + text.replace("\n", "\r\n"), None)])
def test_tables_of_other_programs_versions_and_weights_are_not_continued(change, message, folder, tmp_path, capsys):
    assert run(tmp_path, folder / "a.png") == 0
    table = tmp_path / "vessels.csv"
    table.write_bytes(change(table.read_text()).encode())
    before = table.read_bytes()
    assert run(tmp_path, folder / "a.png", "--skip-existing") == (2 if message else 0)
    assert table.read_bytes() == before and (message or "") in capsys.readouterr().err
    table.rename(tmp_path / "vessels_old.csv")
    assert run(tmp_path, folder / "a.png", "--skip-existing") == 0 and names(table) == ["a.png"]


@pytest.mark.parametrize("missing", [1, 9])
def test_half_a_row_is_cut_off_and_a_row_without_its_line_end_stays(missing, folder, tmp_path, capsys):
    output = tmp_path / "out"
    run(output, folder / "a.png", folder / "b.png")
    table = output / "vessels.csv"
    table.write_text(table.read_text()[:-missing])
    assert run(output, folder, "--skip-existing") == 0
    assert names(table) == ["a.png", "b.png", "c.png", "d.png", "e.png"]
    said = capsys.readouterr()
    assert ("removed the last row" in said.err) == (missing > 1)
    assert f"{2 - (missing > 1)} skipped" in said.out


@pytest.mark.parametrize(("kind", "make"), [
    ("probability", lambda path: Image.new("L", (50, 50), 255).save(path)),
    ("overlay", lambda path: folders.write_png(path, np.zeros((9, 9), "uint8"), b"rsan predict.py")),  # as once
    ("mask", lambda path: path.symlink_to("elsewhere.png"))])
def test_a_file_that_is_not_ours_is_never_touched(kind, make, folder, capsys):
    own = folder / f"a_{kind}.png"
    make(own)
    before = own.is_symlink() or own.read_bytes()
    assert run(folder, folder / "a.png", folder / "b.png") == 1
    assert f"a_{kind}.png: exists" in capsys.readouterr().err
    assert (own.is_symlink() or own.read_bytes()) == before and not (folder / "elsewhere.png").exists()
    assert names(folder / "vessels.csv") == ["b.png"] and len(list(folder.glob("a_*"))) == 1
    assert run(folder, folder / "b.png") == 0  # our own files are overwritten


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_file_names_may_hold_any_bytes(eye, tmp_path):
    photographs = tmp_path / "in"
    photographs.mkdir()
    Image.fromarray(eye).save(photographs / "a.png")
    latin = os.fsencode(photographs) + b"/\xe9il.png"
    try:
        with open(latin, "wb") as file:  # noqa: PTH123 (a Path cannot hold it)
            file.write((photographs / "a.png").read_bytes())
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    command = ("import sys; sys.path[:0] = ['tests', '.']; from pathlib import Path; import predict, predicting; "
               "sys.exit(predicting.run(Path(sys.argv[2]), Path(sys.argv[1])))")
    done = subprocess.run([sys.executable, "-c", command, photographs, tmp_path / "out"], cwd=ROOT,
                          capture_output=True, text=True, env={**os.environ, "PYTHONIOENCODING": "utf-8"})
    assert done.returncode == 0, done.stderr
    assert names(tmp_path / "out" / "vessels.csv") == ["\\udce9il.png", "a.png"]
    assert os.path.exists(os.fsencode(tmp_path) + b"/out/\xe9il_mask.png")  # noqa: PTH110


def test_measures_are_columns(folder, tmp_path):
    assert run(tmp_path / "out", folder / "a.png", "--degrees", 45) == 0
    (row,) = rows(tmp_path / "out" / "vessels.csv")
    assert float(row["width_um"]) > float(row["width_px"]) > 1 and 1 < float(row["fractal_dimension"]) < 2


def test_results_come_as_they_finish_and_an_error_stops_what_waits():
    started, second = [], threading.Event()

    def work(item):
        started.append(item)
        time.sleep(0.01)
        if item == 0:
            second.wait()
        if item == 5:
            raise UserError("the disk is full")
        return -item

    found = []
    with pytest.raises(UserError, match="full"):
        for item, result in folders.as_finished(work, range(1000)):
            assert result == -item
            found.append(item)
            second.set()
    assert found[0] != 0 and len(found) <= len(started) < 100


def test_marked_files_are_plain_png(tmp_path):
    array = np.random.default_rng(0).integers(0, 65536, (40, 50)).astype("uint16")
    photograph, made = "sha256:" + 16 * "a", 12 * "b"
    folders.write_png(tmp_path / "a.png", array, folders.mark(photograph, made))
    assert folders.made_from(tmp_path / "a.png", photograph) == made
    assert folders.made_from(tmp_path / "nothing.png", photograph) is None
    with Image.open(tmp_path / "a.png") as picture:
        picture.load()
        assert picture.text == {"Software": f"rsan predict.py {photograph} {made}"}
        np.testing.assert_array_equal(np.asarray(picture), array)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_UNCHANGED), array)
