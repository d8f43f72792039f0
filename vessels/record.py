"""Writes, reads and checks the record: the JSON beside weights that says from what and how they were made."""

import contextlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import threading
from pathlib import Path

from vessels import UserError
from vessels.data import published
from vessels.data.fov import Widths
from vessels.files import ROOT, sha256, write_atomically

from pretrained import files_in, read_record, record_path, weights_file

PRECISION = threading.RLock()

def environment(predicting=False):
    """dict of what results may depend on: commit, versions, processor and so on; None if unknown.

    `tf32` says whether a GPU may round to it: never when `predicting`, see `full_float32`.
    """
    def version(package):
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            return None

    def git(*arguments):
        try:
            return subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, text=True,
                                  check=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            return None

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
        "tf32": may_round_to_tf32() and not predicting,
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
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not on every system
        lines = []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{models[0] if models else platform.machine()}, {os.cpu_count()} cores"


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


def may_round_to_tf32():
    """Whether a GPU that supports TF32 would round to it; None before a backend is imported."""
    keras = sys.modules.get("keras")
    backend = keras and keras.config.backend()
    if backend == "tensorflow":
        return sys.modules["tensorflow"].config.experimental.tensor_float_32_execution_enabled()
    if backend == "jax":
        return sys.modules["jax"].config.jax_default_matmul_precision not in ("highest", "float32")
    return sys.modules["torch"].backends.cudnn.allow_tf32 if backend == "torch" else None


def write_record(weights, description, history, complete=False, threshold=None):
    """Writes the record beside `weights`: all that evaluation and readers need.

    `description` is the content of config.json: all that the run depends on. The record is marked as unfinished unless
    `complete`. `threshold` is the one that was chosen on validation images, or None.
    """
    record = {
        **description,
        "sha256": sha256(weights),
        **({} if threshold is None else {"threshold": threshold}),
        "chosen": "last epoch",
        **({} if complete else {"unfinished": True}),
        "validation": {"held_out": description["recipe"]["train_on"] == "train",
                       **{key: history[-1][key] for key in ("epoch", "val_auc", "val_f1")}},
        "wall_time_s": round(sum(row["seconds"] for row in history)),
        "environment": json.loads((weights.parent / "environment.json").read_text(encoding="utf-8")),
        "history": history,
    }
    write_atomically(record_path(weights), json.dumps(record, indent=1) + "\n")


def finished(weights):
    """Whether the record beside `weights` is of a finished run; UserError if it then does not describe this file."""
    try:
        record = json.loads(record_path(weights).read_text(encoding="utf-8"))
        complete, digest = not record.get("unfinished"), record["sha256"]
    except (OSError, ValueError, KeyError):
        return False
    if complete and digest != sha256(weights):
        raise UserError(f"{weights}: not the file that {record_path(weights).name} describes; restore it, or train "
                        "again with another --output-dir")
    return complete


def find_weights(names):
    """Weights files of `names`: files, folders, or patterns (which not every shell expands); list of `Path`."""
    found = []
    for path in [path for name in names for path in (
            [name] if name.exists() else sorted(name.parent.glob(name.name)) or [weights_file(name)])]:
        inside = [one for one in files_in(path) if record_path(one).exists()]
        if path.is_dir() and not inside and (one := weights_file(path)) != path:
            inside = [one]
        if path.is_dir() and not inside:
            raise UserError(f"{path}: contains no weights with their JSON; name another folder, or train some")
        found += inside or [path]
    return list(dict.fromkeys(found))


def learned_from(record):
    """SHA-256 of all files that weights were trained or validated on, and of the pixels of photographs and labels,
    including those of the weights they started from: set.
    """
    before = record.get("started_from")
    return {*(digest for key in ("data_sha256", "validation_sha256", "pixels_sha256")
              for digest in record.get(key, {}).values()),
            *(learned_from(before) if before else ())}


def knows_pixels(record):
    """Whether `learned_from` includes the pixels of all photographs."""
    before = record.get("started_from")
    return "pixels_sha256" in record and (not before or knows_pixels(before))


def read_start(weights, variant):
    """Name, SHA-256, training data and own start of the weights from which a run of `variant` starts: dict.

    Raises:
        UserError: As `read_record`; or they belong to another network, or their training data are unknown.
    """
    record = read_record(weights)
    if record["variant"] != variant:
        raise UserError(f"{weights}: belongs to {record['variant']}, not {variant}; give --variant {record['variant']}")
    if "data_sha256" not in record:
        raise UserError(f"{record_path(weights)}: does not say what {weights.name} was trained on; restore it")
    keys = ("sha256", "data_sha256", "validation_sha256", "pixels_sha256", "started_from")
    return {"file": weights.name, **{key: record[key] for key in keys if key in record}}


def known_widths(weights, record, remedy="name other weights"):
    """`Widths` to which fields of view are scaled, from the record, else from the training set."""
    known = {dataset.name: dataset.widths for dataset in published.DATASETS}
    widths = Widths.of_record(record) if "diameters" in record else known.get(record["dataset"])
    if widths is None:
        raise UserError(f"{weights}: trained on {record['dataset']}, whose fields of view have no known diameter; "
                        f"{remedy}")
    return widths


def record_and_widths(weights, diameter=None):
    """`(record, widths)` of weights for anyone's photographs; see `read_record`, `known_widths`.

    A `diameter`, in pixels, replaces the widths of the record; weights in the form of Keras 2 need it.
    """
    record = read_record(weights, dataset="an unknown data set")
    examples = ", ".join(f"{dataset.title}: {dataset.diameter}" for dataset in published.DATASETS)
    remedy = f"give --diameter ({examples}), or name other weights"
    return record, Widths((diameter,)) if diameter else known_widths(weights, record, remedy)
