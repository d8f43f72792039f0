"""Writes, reads and checks the record: the JSON beside weights that says from what and how they were made."""

import contextlib
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
import threading
from pathlib import Path

from vessels import UserError
from vessels.files import ROOT, read_json, sha256, write_json

from pretrained import files_in, read_record, record_path, weights_file

PRECISION = threading.RLock()


def environment():
    """dict of what results may depend on: commit, versions, processor and so on; None if unknown."""
    def version(package):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(package)

    def git(*arguments):
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            return subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, text=True,
                                  check=True).stdout.strip()

    # Evaluations and reports write these files themselves.
    changes = git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":!/results", ":!/weights",
                  ":!/README.md")
    keras = sys.modules.get("keras")
    return {
        "commit": git("rev-parse", "HEAD"),
        "dirty": None if changes is None else bool(changes),
        "python": platform.python_version(),
        "backend": keras.config.backend() if keras else os.environ.get("KERAS_BACKEND", "tensorflow"),
        **{package: version(package) for package in ("keras", "tensorflow", "jax", "torch", "numpy")},
        "device": device(),
        **{name: os.environ.get(name) for name in ("TF_ENABLE_ONEDNN_OPTS", "RSAN_FUSED")},
    }


def device():
    """Name of the accelerator that an imported backend sees, else of the processor."""
    tensorflow, jax, torch = (sys.modules.get(name) for name in ("tensorflow", "jax", "torch"))
    if torch and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    if jax and jax.default_backend() != "cpu":
        return jax.devices()[0].device_kind
    if tensorflow and (gpus := tensorflow.config.list_physical_devices("GPU")):
        return tensorflow.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU")
    model = None
    with contextlib.suppress(OSError):  # not on every system
        model = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    return f"{model[1] if model else platform.machine()}, {os.cpu_count()} cores"


@contextlib.contextmanager
def full_float32():
    """Around predictions: stops GPUs (since Ampere) from rounding to TF32, which changes probabilities by .01.

    What else the program computes, such as a training of the user's own, keeps its precision.
    """
    keras = sys.modules.get("keras")
    backend = keras and keras.config.backend()
    with PRECISION, contextlib.ExitStack() as after:  # the setting is the process's: a thread must not reset it early
        if backend == "tensorflow":
            config = sys.modules["tensorflow"].config.experimental
            after.callback(config.enable_tensor_float_32_execution, config.tensor_float_32_execution_enabled())
            config.enable_tensor_float_32_execution(False)
        elif backend == "jax":
            after.enter_context(sys.modules["jax"].default_matmul_precision("highest"))
        elif backend == "torch":
            torch = sys.modules["torch"]
            after.callback(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision())
            after.callback(setattr, torch.backends.cudnn, "allow_tf32", torch.backends.cudnn.allow_tf32)
            torch.set_float32_matmul_precision("highest")
            torch.backends.cudnn.allow_tf32 = False
        yield


def write_record(weights, description, history, threshold=None):
    """Writes the record beside `weights`: all that evaluation and readers need.

    `description` is the content of config.json: all that the run depends on. Before the last epoch, the record is
    marked as unfinished. `threshold` is the one that was chosen on validation images, or None.
    """
    record = {
        **description,
        "sha256": sha256(weights),
        **({} if threshold is None else {"threshold": threshold}),
        "chosen": "last epoch",
        **({} if len(history) == description["recipe"]["epochs"] else {"unfinished": True}),
        "validation": {"held_out": description["recipe"]["train_on"] == "train",
                       **{key: history[-1][key] for key in ("epoch", "val_auc", "val_f1")}},
        "wall_time_s": round(sum(row["seconds"] for row in history)),
        "environment": read_json(weights.parent / "environment.json"),
        "history": history,
    }
    write_json(record_path(weights), record)


def find_weights(names):
    """Weights files of `names`, which are those of files, runs, released weights, or folders: list of `Path`."""
    paths = []
    for name in names:
        paths += [file for file in files_in(name) if record_path(file).exists()] or [weights_file(name)]
    return list(dict.fromkeys(paths))


def learned_from(record):
    """What weights, and those that they started from, were trained or validated on.

    Returns:
        `(digests, complete)`: SHA-256 of all files, and of the pixels of photographs and labels, a set; and whether it
        holds the pixels of all.
    """
    digests, complete = set(), True
    while record:
        for key in ("data_sha256", "validation_sha256", "pixels_sha256"):
            digests.update(record.get(key, {}).values())
        complete = complete and "pixels_sha256" in record
        record = record.get("started_from")
    return digests, complete


def read_start(weights, variant):
    """Name, SHA-256, training data and own start of the weights from which a run of `variant` starts: dict.

    Raises:
        UserError: As `read_record`; or they belong to another network.
    """
    record = read_record(weights)
    if record["variant"] != variant:
        raise UserError(f"{weights}: belongs to {record['variant']}, not {variant}; give --variant {record['variant']}")
    keys = ("sha256", "data_sha256", "validation_sha256", "pixels_sha256", "started_from")
    return {"file": weights.name, **{key: record[key] for key in keys if key in record}}
