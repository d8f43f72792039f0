"""The JSON beside weights: what they were made from and by, written, read and checked."""

import dataclasses
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import h5py

from vessels import UserError
from vessels.data import datasets
from vessels.files import ROOT, sha256, write_atomically


def environment():
    """dict of what a figure may depend on: commit, versions, processor; None where not known."""
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

    # But for what an evaluation and its report write themselves.
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
        "tf32": may_round_to_tf32(),
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


def compute_in_full_float32():
    """From here on, GPUs since Ampere do not round to TF32 before they multiply: that moves probabilities by .01."""
    import keras

    backend = keras.config.backend()
    if backend == "tensorflow":
        sys.modules["tensorflow"].config.experimental.enable_tensor_float_32_execution(False)
    elif backend == "jax":
        sys.modules["jax"].config.update("jax_default_matmul_precision", "highest")
    elif backend == "torch":
        sys.modules["torch"].set_float32_matmul_precision("highest")
        sys.modules["torch"].backends.cudnn.allow_tf32 = False


def may_round_to_tf32():
    """Whether a GPU that can would round to TF32; None before a backend is imported."""
    keras = sys.modules.get("keras")
    backend = keras and keras.config.backend()
    if backend == "tensorflow":
        return sys.modules["tensorflow"].config.experimental.tensor_float_32_execution_enabled()
    if backend == "jax":
        return sys.modules["jax"].config.jax_default_matmul_precision not in ("highest", "float32")
    return sys.modules["torch"].backends.cudnn.allow_tf32 if backend == "torch" else None


def record_path(weights):
    return weights.with_name(weights.name.removesuffix(".h5").removesuffix(".weights") + ".json")


def load_network(build, load_weights, weights, record):
    """The network that `record` describes, with its weights, in full float32; UserError where they do not fit."""
    compute_in_full_float32()
    try:
        model = build(**record["model"])
        load_weights(model, weights)
    except (TypeError, ValueError) as error:
        raise UserError(f"{weights} does not fit {record_path(weights)}: {error}; name other weights") from None
    return model


def write_record(run_dir, dataset, recipe, history, config, parameters, complete=False, threshold=None):
    """Writes best.json beside best.weights.h5: all that evaluation needs and a reader would ask for.

    `config` is what config.json holds. Unless `complete`, the record is marked as unfinished. A `threshold` was chosen
    on validation images.
    """
    weights = run_dir / "best.weights.h5"
    record = {
        "dataset": "synthetic" if recipe.synthetic else dataset.name,
        "variant": recipe.variant,
        "model": {"keep_prob": recipe.keep_prob, "variant": recipe.variant},
        "parameters": parameters,
        "sha256": sha256(weights),
        "diameters": config["diameters"],
        **({} if threshold is None else {"threshold": threshold}),
        **{key: config[key] for key in ("started_from",) if key in config},
        "seed": recipe.seed,
        "recipe": dataclasses.asdict(recipe),
        "loss": config["loss"],
        "augmentation": config["augmentation"],
        "chosen": "last epoch",
        **({} if complete else {"unfinished": True}),
        "validation": {"held_out": recipe.train_on == "train",
                       **{key: history[-1][key] for key in ("epoch", "val_auc", "val_f1")}},
        "wall_time_s": round(sum(row["seconds"] for row in history)),
        "environment": json.loads((run_dir / "environment.json").read_text(encoding="utf-8")),
        "data_sha256": config["data_sha256"],
        "validation_sha256": config["validation_sha256"],
        "history": history,
    }
    write_atomically(record_path(weights), json.dumps(record, indent=1) + "\n")


def finished(weights):
    """Whether the record beside `weights` describes them, and a whole run."""
    try:
        record = json.loads(record_path(weights).read_text(encoding="utf-8"))
        return not record.get("unfinished") and record["sha256"] == sha256(weights)
    except (OSError, ValueError, KeyError):
        return False


def keras_2_record(weights, dataset):
    """What is known of weights in the form of Keras 2, as the authors' scripts write them: dict; None of other files.

    They have no JSON; `dataset` is the name of the set that they are taken to have learned from.
    """
    try:
        with h5py.File(weights) as file:
            if not {"layer_names", "model_weights"} & {*file.attrs, *file}:
                return None
    except OSError:
        return None
    return {"dataset": dataset, "variant": "rsan", "seed": 0, "model": {}, "sha256": sha256(weights),
            "recipe": {"recipe": "authors", "seed": 0}}


def read_record(weights, allow_modified=False, dataset=None):
    """The JSON beside `weights`, a Path, after checking that it is whole and describes them: dict.

    Weights in the form of Keras 2 need none where `dataset` names what they learned from; see `keras_2_record`.

    Raises:
        UserError: Either file is missing or broken, or (unless `allow_modified`) the SHA-256 is another.
    """
    path = record_path(weights)
    if not weights.exists():
        raise UserError(f"{weights}: no such weights; name others, or train some")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        missing = {"dataset", "variant", "seed", "model", "sha256", "recipe"} - set(record)
    except FileNotFoundError:
        if dataset and (known := keras_2_record(weights, dataset)):
            return known
        raise UserError(f"{path}: missing, it says what network {weights.name} belongs to; put it there under this "
                        "name, or name other weights") from None
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); restore it") from None
    if missing:
        raise UserError(f"{path}: lacks {', '.join(sorted(missing))}; restore it")
    digest = sha256(weights)
    if digest != record["sha256"] and not allow_modified:
        raise UserError(f"{weights}: not the file that {path.name} describes (SHA-256 {digest[:12]}..., not "
                        f"{record['sha256'][:12]}...); restore it, or go on with --allow-modified")
    return {**record, "sha256": digest}


def learned_from(record):
    """`{file: SHA-256}` of all that weights learned from, those that they started from included."""
    return {**record.get("started_from", {}).get("data_sha256", {}), **record.get("data_sha256", {})}


def read_start(weights, variant):
    """What a record says of weights that a run of `variant` goes on from: their name, SHA-256 and their data's.

    Raises:
        UserError: As `read_record` does; or they are of another network, or nobody knows what they learned from.
    """
    record = read_record(weights)
    if record["variant"] != variant:
        raise UserError(f"{weights}: is of {record['variant']}, not {variant}; give --variant {record['variant']}")
    if "data_sha256" not in record:
        raise UserError(f"{record_path(weights)}: does not say what {weights.name} learned from; restore it")
    return {"file": weights.name, "sha256": record["sha256"], "data_sha256": learned_from(record)}


def known_diameters(weights, record, remedy="name other weights"):
    """How wide fields of view are that the network knows, in pixels: as its record says, else its data set's; tuple."""
    known = {dataset.name: dataset.diameters for dataset in datasets.DATASETS}
    diameters = record.get("diameters", known.get(record["dataset"]))
    if not diameters:
        raise UserError(f"{weights}: trained on {record['dataset']}, whose fields of view have no known diameter; "
                        f"{remedy}")
    return tuple(diameters)


def record_and_diameters(weights, diameter=None):
    """`(record, diameters)` of weights that are to see anyone's photographs; see `read_record`, `known_diameters`.

    A `diameter`, in pixels, stands for what the record says; weights in the form of Keras 2 need it.
    """
    record = read_record(weights, dataset="an unknown data set")
    examples = ", ".join(f"{dataset.title}: {dataset.diameter}" for dataset in datasets.DATASETS)
    remedy = f"give --diameter ({examples}), or name other weights"
    return record, (diameter,) if diameter else known_diameters(weights, record, remedy)
