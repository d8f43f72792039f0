"""The scripts need nothing that Windows or macOS lack, run in folders with unusual names, and report a backend that is
missing or broken."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT
from PIL import Image

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
    ("train_drive.py", "nosuch", None, "(Unable to import backend : nosuch); set it to tensorflow, jax or torch"),
    ("eval_drive.py", "jax", "raise ImportError('No module named jax')", "(No module named jax); install it (pip "
     "install jax), or set it to tensorflow, jax or torch"),
    ("predict.py", "torch", "raise OSError('libtorch.so:\\nundefined symbol')", "(libtorch.so: undefined symbol); "
     "install it (pip install torch), or set it to tensorflow, jax or torch"),
    ("predict.py", "tensorflow", TENSORFLOW, "(DLL load failed); install it (pip install -r requirements.txt), or set "
     "it to tensorflow, jax or torch"),
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
    assert (done.returncode, done.stderr) == (2, f"error: KERAS_BACKEND={backend}: cannot be imported {said}\n")


@pytest.mark.parametrize(("system", "opens", "said"), [
    ("nt", 3, None), ("nt", 1000, "close the program that has it open"), ("posix", 1, "allow writing there")])
def test_a_file_that_is_open_elsewhere_is_waited_for_on_windows_then_named(system, opens, said, tmp_path, monkeypatch):
    from vessels import UserError, files

    failures, rename = iter(range(opens)), type(tmp_path).replace

    def replace(self, target):
        if next(failures, None) is not None:
            raise PermissionError(13, "Permission denied")
        return rename(self, target)

    monkeypatch.setattr(type(tmp_path), "replace", replace)
    monkeypatch.setattr(files, "WINDOWS", system == "nt")
    monkeypatch.setattr(files.time, "sleep", lambda seconds: None)
    path = tmp_path / "metrics.json"
    if said:
        with pytest.raises(UserError, match=said):
            files.write_atomically(path, "text")
    else:
        files.write_atomically(path, "text")
        assert path.read_text(encoding="utf-8") == "text"
    assert len(list(tmp_path.iterdir())) == (said is None)
