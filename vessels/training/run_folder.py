"""The run folder: its lock, its description, and the checkpoint from which a run resumes."""

import csv
import io
import json
import tempfile
from pathlib import Path

import h5py
import numpy as np
from filelock import FileLock, Timeout

from vessels import UserError
from vessels.data.images import SUFFIXES
from vessels.files import read_json, write_atomically, write_json
from vessels.record import environment
from vessels.report import plots


def lock_run(run_dir):
    """A context: creates the run folder, and locks it against a second run."""
    try:
        if run_dir.is_dir() and any(file.suffix.lower() in SUFFIXES for file in run_dir.iterdir()):
            raise UserError(f"{run_dir}: holds photographs; choose another --output-dir")
        run_dir.mkdir(parents=True, exist_ok=True)
        return FileLock(run_dir / "lock", blocking=False).acquire()
    except Timeout:
        raise UserError(f"{run_dir}: another training writes here; wait for it or choose --output-dir") from None
    except OSError as error:
        raise UserError(f"{run_dir}: {error.strerror}; choose --output-dir where you may write") from None


def describe(run_dir, config):
    """Writes config.json and environment.json, or checks that the folder holds the requested run.

    `config` is all that the run depends on.
    """
    config = json.loads(json.dumps(config))
    path = run_dir / "config.json"
    if path.exists():
        before = read_json(path)
        if missing := {"dataset", "optimizer", "schedules"} - set(before):
            raise UserError(f"{path}: not of a run of this version (it lacks {', '.join(sorted(missing))}), so it "
                            "cannot be resumed; choose another --output-dir")
        if differs := differences(before, config):
            raise UserError(f"{run_dir} holds a run with {', '.join(differs[:4])}; choose another --output-dir")
    write_json(path, config)
    if not (run_dir / "environment.json").exists():  # not on resume: the code may have changed
        write_json(run_dir / "environment.json", environment())


def differences(before, now):
    """list of str, such as "seed 0 (asked: 1)" or "optimizer: beta_1 0.9 (asked: 0.8)"."""
    def flat(config, start=""):
        entries = {}
        for key, value in config.items():
            entries |= flat(value, f"{start}{key}: ") if isinstance(value, dict) else {start + key: value}
        return entries

    if before.get("recipe") != now.get("recipe"):  # the schedules follow from it
        before, now = {**before, "schedules": {}}, {**now, "schedules": {}}
    old, new = flat(before), flat(now)
    return [f"{key} {old.get(key)} (asked: {new.get(key)})" for key in old | new if old.get(key) != new.get(key)]


def random_states(model):
    """The states of the layers' random streams, which Keras does not save in weights files."""
    return [layer.seed_generator.state for layer in model.layers if hasattr(layer, "seed_generator")]


def resume(model, checkpoint):
    """Loads weights and random streams of the last complete epoch; returns the history, a list of rows.

    The list is empty if there is no checkpoint yet.
    """
    if not checkpoint.exists():
        return []
    model.load_weights(checkpoint)
    with h5py.File(checkpoint) as file:
        for state, value in zip(random_states(model), json.loads(file.attrs["random_states"]), strict=True):
            state.assign(value)
        return json.loads(file.attrs["history"])


def save_weights(model, path, history=None):
    """Writes the file completely or not at all; with `history`, also history and random streams, so that all agree.

    HDF5 is first written to a temporary folder, because a full disk can crash the process inside the HDF5 library.
    """
    try:
        with tempfile.TemporaryDirectory() as folder:
            whole = Path(folder) / "whole.weights.h5"
            model.save_weights(whole)
            if history is not None:
                with h5py.File(whole, "a") as file:
                    file.attrs["history"] = json.dumps(history)
                    file.attrs["random_states"] = json.dumps(
                        [np.asarray(state).tolist() for state in random_states(model)])
            content = whole.read_bytes()
    except OSError as error:
        raise UserError(f"a temporary copy of {path.name} cannot be written ({error}); make room there or set TMPDIR, "
                        "then repeat the command: the last complete epoch is safe") from None
    write_atomically(path, content)


def write_history(run_dir, history):
    """Writes the history in readable form: history.csv, and its curves in previews/history.png."""
    text = io.StringIO()
    writer = csv.DictWriter(text, history[0])
    writer.writeheader()
    writer.writerows(history)
    write_atomically(run_dir / "history.csv", text.getvalue())
    write_atomically(run_dir / "previews" / "history.png", plots.history_plot(history))
