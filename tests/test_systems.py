"""The scripts need nothing that Windows or macOS lack, run in folders with unusual names, and report a backend that is
missing or broken."""

import importlib.metadata
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import weakref

import pytest
from conftest import ROOT
from PIL import Image

import vessels
from vessels.data.images import EXAMPLE

# Runs a script as if this system had neither /proc nor the modules that only Unix has.
HIDDEN = """
import os, runpy, sys

def hide(event, arguments):
    if event == "import" and arguments[0] in ("fcntl", "resource"):
        raise ImportError(arguments[0])
    if event == "open" and str(arguments[0]).startswith("/proc"):
        raise FileNotFoundError(arguments[0])

sys.addaudithook(hide)
sys.path.insert(0, os.path.dirname(sys.argv[1]))
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run(script, *arguments, folder=ROOT):
    done = subprocess.run([sys.executable, "-c", HIDDEN, ROOT / script, *map(str, arguments)], cwd=folder, text=True,
                          capture_output=True, encoding="utf-8", env={**os.environ, "PYTHONIOENCODING": "utf-8"})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("script", sorted(path.name for pattern in ("train_*.py", "eval_*.py", "predict.py")
                                          for path in ROOT.glob(pattern)))
def test_help_needs_nothing_that_only_unix_has(script, tmp_path):
    assert run(script, "--help", folder=tmp_path).startswith("usage: ")


@pytest.mark.slow
def test_from_training_to_a_photograph_in_folders_with_awkward_names(tmp_path):
    folder = tmp_path / "Läufe von GESTERN" / "a b"
    run("train_drive.py", "--synthetic", "--variant", "backbone", "--epochs", 1, "--steps-per-epoch", 2,
        "--output-dir", folder)
    assert "AUC" in run("eval_drive.py", folder / "final.weights.h5")
    photograph = tmp_path / "Mein Auge.JPG"
    Image.open(EXAMPLE).resize((600, 600)).save(photograph)
    run("predict.py", photograph, "--diameter", 400, "-o", tmp_path / "OUT put")
    assert (tmp_path / "OUT put" / "Mein Auge_mask.png").exists()


TENSORFLOW = """
import traceback
try:
    raise ImportError("DLL load failed")
except ImportError:
    raise ImportError(f"{traceback.format_exc()}\\nFailed to load the native TensorFlow runtime.")
"""


@pytest.mark.parametrize(("script", "backend", "module", "said"), [
    ("train_drive.py", "nosuch", None, "(Unable to import backend : nosuch)"),
    ("eval_drive.py", "jax", "raise ImportError('No module named jax')", "(No module named jax)"),
    ("predict.py", "torch", "raise OSError('libtorch.so:\\nundefined symbol')", "(libtorch.so: undefined symbol)"),
    ("predict.py", "tensorflow", TENSORFLOW, "(DLL load failed)"),
])
def test_a_backend_that_cannot_be_imported_is_one_line_and_exit_code_2(script, backend, module, said, tmp_path):
    if module:
        (tmp_path / f"{backend}.py").write_text(module, encoding="utf-8")
    weights = shutil.copy(ROOT / "weights" / "drive_rsan.weights.h5", tmp_path)
    record = json.loads((ROOT / "weights" / "drive_rsan.json").read_text(encoding="utf-8"))
    record.update(dataset="synthetic", data_sha256={})  # needs no photographs
    (tmp_path / "drive_rsan.json").write_text(json.dumps(record), encoding="utf-8")
    flags = {"train_drive.py": ["--synthetic"], "eval_drive.py": [weights], "predict.py": []}[script]
    done = subprocess.run([sys.executable, ROOT / script, *flags], cwd=tmp_path, capture_output=True, text=True,
                          env={**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(tmp_path)})
    assert (done.returncode, done.stderr) == (
        2, f"error: KERAS_BACKEND={backend}: cannot be imported {said}: pip install -r requirements.txt for "
        "TensorFlow, set it to tensorflow, jax or torch, or correct keras.json in ~/.keras or $KERAS_HOME\n")


@pytest.mark.parametrize("redirected", ["2>&-", ">&- 2>&-", "2>&1 | head -1", "| head -c 1", "> /dev/full 2>&1"])
def test_a_command_goes_on_without_its_streams(redirected, tmp_path):
    command = ("import sys, pathlib, vessels\ndef run():\n for i in range(9999):\n  print(i, flush=True)\n"
               "  print(i, file=sys.stderr)\n with vessels.quiet_imports():\n  pass\n"
               " open('done', 'w').write(f'{sys.stdout.isatty()}')\n return 0\nsys.exit(vessels.exit_code(run))")
    (tmp_path / "script.py").write_text(command)
    (tmp_path / "keras.py").write_text("class config: set_floatx = str")
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {sys.executable} script.py {redirected}"], cwd=tmp_path,
                          env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, check=False)
    assert done.returncode == 0 and (tmp_path / "done").read_text() == "False"


def test_packages_that_are_too_old_are_named_at_the_start(monkeypatch, capsys):
    old = {"scikit-image": "0.25.2", "pillow": "9.5.0"}
    usual = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", lambda name: old.get(name) or usual(name))
    assert vessels.exit_code(lambda: pytest.fail("must not start")) == 2
    assert capsys.readouterr().err == ("error: too old: pillow 9.5.0 (10.1 is needed), scikit-image 0.25.2 (0.26 is "
                                       "needed); pip install -r requirements.txt\n")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_a_callback_whose_exceptions_python_drops_stops_the_command(number, code, capsys):
    def command():
        thing = threading.Event()
        watched = weakref.ref(thing, lambda _: signal.raise_signal(number))
        del thing
        for _ in range(1000):
            threading.Event().wait(0.01)
        return watched

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a process in the background ignores it
    assert vessels.exit_code(command) == code
    assert capsys.readouterr().err == "\nstopped\n"


def test_no_temporary_folder_and_a_wrong_keras_json_are_one_line(tmp_path, monkeypatch):
    def none():
        raise FileNotFoundError(2, "No usable temporary directory found")

    with monkeypatch.context() as patch, pytest.raises(vessels.UserError, match="set TMPDIR"):
        patch.setattr(tempfile, "gettempdir", none)
        with vessels.quiet_imports():
            pass
    (tmp_path / "keras.json").write_text('{"floatx": "bfloat16"}')
    done = subprocess.run([sys.executable, ROOT / "predict.py", "-o", tmp_path], capture_output=True, text=True,
                          env={**os.environ, "KERAS_HOME": str(tmp_path)})
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "(Invalid `floatx`" in done.stderr and "correct keras.json" in done.stderr


def test_help_and_wrong_options_import_nothing_slow():
    command = ("import sys; from vessels.prediction import command\ntry: command.main('', '', [sys.argv[1]])\n"
               "except SystemExit: print({'cv2', 'keras', 'scipy', 'skimage', 'h5py'} & set(sys.modules))")
    for flag in ("--help", "--degrees=a"):
        done = subprocess.run([sys.executable, "-c", command, flag], cwd=ROOT, capture_output=True, text=True)
        assert done.stdout.endswith("set()\n")


@pytest.mark.parametrize(("opens", "said"), [(3, None), (1000, "close the program that has it open, allow writing")])
def test_a_file_that_is_open_elsewhere_is_waited_for_then_named(opens, said, tmp_path, monkeypatch):
    from vessels import UserError, files

    failures, rename = iter(range(opens)), type(tmp_path).replace

    def replace(self, target):
        if next(failures, None) is not None:
            raise PermissionError(13, "Permission denied")
        return rename(self, target)

    monkeypatch.setattr(type(tmp_path), "replace", replace)
    monkeypatch.setattr(files.time, "sleep", lambda seconds: None)
    path = tmp_path / "metrics.json"
    if said:
        with pytest.raises(UserError, match=said):
            files.write_atomically(path, "text")
    else:
        files.write_atomically(path, "text")
        assert path.read_text(encoding="utf-8") == "text"
    assert len(list(tmp_path.iterdir())) == (said is None)


@pytest.mark.slow
def test_the_benchmark_of_a_step_gives_seconds_and_memory():
    command = [sys.executable, ROOT / "benchmarks" / "speed.py", "1x56"]
    assert subprocess.run(command, stdout=subprocess.PIPE, text=True).stdout.rstrip().endswith(" GB")
