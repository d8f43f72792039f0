"""Writes, reads and checks the record: the JSON beside weights that says from what and how they were made."""

import dataclasses
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

from vessels import UserError
from vessels.data import published
from vessels.data.fov import Widths
from vessels.files import ROOT, sha256, write_atomically


def environment():
    """dict of what results may depend on: commit, versions, processor and so on; None if unknown."""
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
    """Stops GPUs (since Ampere) from rounding to TF32 before they multiply, which changes probabilities by .01."""
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
    """Whether a GPU that supports TF32 would round to it; None before a backend is imported."""
    keras = sys.modules.get("keras")
    backend = keras and keras.config.backend()
    if backend == "tensorflow":
        return sys.modules["tensorflow"].config.experimental.tensor_float_32_execution_enabled()
    if backend == "jax":
        return sys.modules["jax"].config.jax_default_matmul_precision not in ("highest", "float32")
    return sys.modules["torch"].backends.cudnn.allow_tf32 if backend == "torch" else None


def record_path(weights):
    """Path of the JSON beside a file of weights, or beside the ONNX file that was exported from them."""
    return weights.with_name(weights.name.removesuffix(".onnx").removesuffix(".h5").removesuffix(".weights") + ".json")


def load_network(build, load_weights, weights, record):
    """The network that `record` describes, with its weights, in full float32; UserError if they do not fit."""
    import keras

    compute_in_full_float32()
    try:
        model = build(**record["model"])
        load_weights(model, weights)
        if keras.config.backend() == "tensorflow":
            model.jit_compile = False  # on a GPU, XLA would compile it again for each size of photograph
    except (TypeError, ValueError) as error:
        raise UserError(f"{weights} does not fit {record_path(weights)}: {error}; name other weights") from None
    return model


def default_name(variant, dataset, recipe):
    """A network's name in tables, without its seed: str, such as "rsan, authors' recipe".

    `dataset` is what it was trained on, `recipe` a dict. A release writes the name, or one that the user gives, into
    the record.
    """
    kind = recipe.get("recipe", "patches")
    if kind == "any" or "+" in dataset:
        return f"{variant}, any camera"
    parts = [variant]
    if kind != "patches":
        parts.append("authors' recipe" if kind == "authors" else f"{kind} recipe")
    if recipe.get("train_on") == "train+validation":
        parts.append("all training images")
    return ", ".join(parts)


def write_record(run_dir, dataset, recipe, history, config, parameters, complete=False, threshold=None):
    """Writes final.json beside final.weights.h5: all that evaluation and readers need.

    `config` is the content of config.json. The record is marked as unfinished unless `complete`. `threshold` is the
    one that was chosen on validation images, or None.
    """
    weights = run_dir / "final.weights.h5"
    record = {
        "dataset": dataset.name,
        "variant": recipe.variant,
        "model": config["model"],
        "parameters": parameters,
        "sha256": sha256(weights),
        **{key: config[key] for key in ("diameters", "own_width", "largest") if key in config},
        **({} if threshold is None else {"threshold": threshold}),
        **{key: config[key] for key in ("started_from", "vessel_weights", "network", "network_sha256", "pixels_sha256")
           if key in config},
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


def keras_2_record(weights, dataset):
    """Record of weights in the format of Keras 2, as the authors' scripts write them: dict; None for other files.

    Such files have no JSON. `dataset` is the name of the set on which they are assumed to be trained.
    """
    import h5py  # not needed with ONNX Runtime

    try:
        with h5py.File(weights) as file:
            if not {"layer_names", "model_weights"} & {*file.attrs, *file}:
                return None
    except OSError:
        return None
    return {"name": "rsan, authors' recipe", "dataset": dataset, "variant": "rsan", "seed": 0, "model": {},
            "sha256": sha256(weights), "recipe": {"recipe": "authors", "seed": 0}}


def read_record(weights, allow_modified=False, dataset=None):
    """The JSON beside `weights`, a Path, after checking that it is whole and describes them: dict.

    Weights in the format of Keras 2 need no JSON if `dataset` is given; see `keras_2_record`.

    Raises:
        UserError: A file is missing or broken, or (unless `allow_modified`) the SHA-256 differs.
    """
    path = record_path(weights)
    if not weights.exists():
        folder = ROOT / "weights" if weights.name == str(weights) else weights.parent
        there = ", ".join(sorted(path.name.removesuffix(".weights.h5") for path in folder.glob("*.weights.h5")))
        raise UserError(f"{weights}: no such weights{f' (but {there})' * bool(there)}; name others, or train some")
    if weights.is_dir():
        raise UserError(f"{weights}: a folder without final.weights.h5; name a file of weights")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        missing = {"dataset", "variant", "seed", "model", "sha256", "recipe"} - set(record)
    except FileNotFoundError:
        if dataset and (known := keras_2_record(weights, dataset)):
            return known
        raise UserError(f"{path}: missing; it says which network {weights.name} belongs to; put it there under this "
                        "name, or name other weights") from None
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); restore it") from None
    if missing:
        raise UserError(f"{path}: lacks {', '.join(sorted(missing))}; restore it")
    digest = sha256(weights)
    if weights.suffix == ".onnx":
        if digest != record.get("onnx_sha256"):
            raise UserError(f"{weights}: not exported from the weights that {path.name} describes; export them again "
                            "with `python predict.py --export onnx`")
        return record
    if digest != record["sha256"] and not allow_modified:
        raise UserError(f"{weights}: not the file that {path.name} describes (SHA-256 {digest[:12]}..., not "
                        f"{record['sha256'][:12]}...); restore it, or use --allow-modified")
    name = default_name(record["variant"], record["dataset"], record["recipe"])
    return {"name": name, **record, "sha256": digest}


def weights_file(name):
    """The weights file that a command line means: a `Path`.

    `name` is a file, with or without its suffix, a run folder, or the name of released weights, such as "drive".
    """
    def short(path):  # as `build_rsan(weights=...)` has it
        return path.name.removesuffix(".weights.h5").replace("_rsan", "")

    path = Path(name).expanduser()
    tried = [path, path / "final.weights.h5", path / "best.weights.h5", Path(f"{path}.weights.h5")]
    if path.name == str(name):
        tried += [one for one in (ROOT / "weights").glob("*.weights.h5") if short(one) == short(path)]
    return next((one for one in tried if one.is_file()), path)


def find_weights(names):
    """Weights files of `names`: files, folders, or patterns (which not every shell expands); list of `Path`."""
    found = []
    for path in [path for name in names for path in (
            [name] if name.exists() else sorted(name.parent.glob(name.name)) or [weights_file(name)])]:
        inside = [one for one in sorted(path.glob("*.weights.h5")) if record_path(one).exists()]
        if path.is_dir() and not inside and (one := weights_file(path)) != path:
            inside = [one]
        if path.is_dir() and not inside:
            raise UserError(f"{path}: contains no weights with their JSON; name another folder, or train some")
        found += inside or [path]
    return list(dict.fromkeys(found))


def learned_from(record):
    """SHA-256 of all files that weights were trained on, including those of the weights they started from: set."""
    before = record.get("started_from")
    return {*record.get("data_sha256", {}).values(), *(learned_from(before) if before else ())}


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
    return {"file": weights.name, **{key: record[key] for key in ("sha256", "data_sha256", "started_from")
                                     if key in record}}


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
