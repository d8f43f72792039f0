"""The one way from a name, a file or a run folder to a network with its weights, and to its record.

The record is the JSON beside weights; reading it needs neither Keras nor h5py. What older versions wrote is read here,
and nowhere else.
"""

import hashlib
import inspect
import json
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "weights"
SUFFIX = ".weights.h5"
# Names that older versions gave to the weights of a run, to keys, and arguments that their records do not hold.
OLD_WEIGHTS = "best.weights.h5"
OLD_KEYS = {"steps": "steps_per_epoch", "turned": "rotate_prob", "flips": "tta"}
OLD_ARGUMENTS = {"filters": 16, "block_size": 7}


class WeightsError(ValueError):
    """Weights or their record are missing or broken, or do not fit. The message is one line, with the remedy."""


def released():
    """`{name: path}` of the files in weights/; names omit "_rsan": "drive", "drive_seed1", "drive_backbone"."""
    return {short_name(path): path for path in files_in(FOLDER)}


def files_in(folder):
    """The weights files in a folder: list of `Path`. Copies of macOS, `._name.weights.h5`, are no weights."""
    return sorted(folder.glob(f"[!.]*{SUFFIX}"))


def short_name(path):
    return path.name.removesuffix(SUFFIX).replace("_rsan", "")


def weights_file(name):
    """The weights file that `name` means: a `Path`, which need not exist.

    `name` is a file, with or without its suffix, a run folder, or the name of released weights, such as "drive".
    """
    path = Path(name).expanduser()
    tried = [path, path / f"final{SUFFIX}", path / OLD_WEIGHTS, Path(f"{path}{SUFFIX}")]
    if path.name == str(name):
        tried += [file for short, file in released().items() if short == short_name(path)]
    return next((file for file in tried if file.is_file()), path)


def record_path(weights):
    """Path of the record beside a file of weights, or beside the ONNX file that was exported from them."""
    return weights.with_name(weights.name.removesuffix(".onnx").removesuffix(SUFFIX) + ".json")


def read_record(weights):
    """The record beside `weights`, a `Path`, after checking that it is whole and describes them: dict.

    Raises:
        WeightsError: A file is missing or broken, or the SHA-256 differs.
    """
    path = record_path(weights)
    if not weights.is_file():
        there = ", ".join(file.name.removesuffix(SUFFIX) for file in files_in(
            FOLDER if weights.name == str(weights) else weights.parent))
        raise WeightsError(f"{weights}: no such weights{f' (but {there})' if there else ''}; name others, or train "
                           "some")
    try:
        digest = hashlib.sha256(weights.read_bytes()).hexdigest()
        record = json.loads(path.read_text(encoding="utf-8"))
        missing = {"dataset", "data_sha256", "diameters", "variant", "seed", "model", "sha256", "recipe"} - set(record)
    except (OSError, ValueError, TypeError) as error:
        raise WeightsError(f"{path}: cannot be read ({error}); it says which network {weights.name} belongs to; put it "
                           "there under this name, or name other weights") from None
    if missing:
        raise WeightsError(f"{path}: lacks {', '.join(sorted(missing))}; restore it")
    described = record.get("onnx_sha256" if weights.suffix == ".onnx" else "sha256", "none")
    if digest != described:
        raise WeightsError(f"{weights}: not the file that {path.name} describes (SHA-256 {digest[:12]}..., not "
                           f"{described[:12]}...); restore it, name others, or export it again with `predict.py "
                           "--export onnx`")
    return todays_record(record)


def todays_record(record):
    """A record that any version wrote, in today's form: dict; with all arguments of the network and its name."""
    record = todays_keys(record)
    model = record["model"] if {"optimizer", "network", "filters"} & {*record, *record["model"]} else {
        **OLD_ARGUMENTS, **record["model"]}
    return {"name": default_name(record["variant"], record["dataset"], record["recipe"]), **record, "model": model}


def todays_keys(value):
    if isinstance(value, list):
        return [todays_keys(item) for item in value]
    if isinstance(value, dict):
        return {OLD_KEYS.get(key, key): todays_keys(item) for key, item in value.items()}
    return value


def default_name(variant, dataset, recipe):
    """A network's name in tables, without its seed, if its record has none: str, such as "rsan, authors' recipe".

    `dataset` is what it was trained on, `recipe` a dict.
    """
    preset = recipe.get("recipe", "patches")
    if preset == "any" or "+" in dataset:
        return f"{variant}, any camera"
    parts = [variant]
    if preset != "patches":
        parts.append("authors' recipe" if preset == "authors" else f"{preset} recipe")
    if recipe.get("train_on") == "train+validation":
        parts.append("all training images")
    return ", ".join(parts)


def from_name(build, name, input_shape, **given):
    """The network of `name` (see `weights_file`), with its weights, from `build`; used by `build(weights=name)`.

    Its record says all arguments of `build`. Those in `given` must agree with it, unless they are the defaults.

    Raises:
        WeightsError: As `read_record` and `load_network`; or an argument contradicts the record.
    """
    path = weights_file(name)
    record = read_record(path)
    defaults = inspect.signature(build).parameters
    for argument, value in given.items():
        if value not in (defaults[argument].default, recorded := record["model"].get(argument, value)):
            raise WeightsError(f"the weights {str(name)!r} have {argument}={recorded!r}, not {value!r}: omit it, or "
                               "name other weights")
    return load_network(build, load_weights, path, record, input_shape=input_shape)


def load_network(build, load_weights, weights, record, **given):
    """The network that `record` describes, with its weights, from `build`, which may get more arguments: `given`.

    It has two attributes: `record`, and `threshold`, the probability from which a pixel counts as vessel.

    Raises:
        WeightsError: The weights do not fit.
    """
    import keras

    try:
        model = build(**record["model"], **given)
        load_weights(model, weights)
    except (TypeError, ValueError) as error:
        raise WeightsError(f"{weights} does not fit {record_path(weights)}: {error}; name other weights") from None
    if keras.config.backend() == "tensorflow":
        model.jit_compile = False  # on a GPU, XLA would compile it again for each size of photograph
    model.record, model.threshold = record, record.get("threshold", 0.5)
    return model


def load_weights(model, path):
    """Loads a weights file of this project, or an `.h5` file of Keras 2 (such as the authors'), into `model`.

    Raises:
        ValueError: The file is not HDF5, or its arrays do not match those of `model`.
    """
    legacy, arrays = read_arrays(path)
    # Keras would load a larger network's file into a smaller network without an error.
    shapes, wanted = [array.shape for array in arrays], [tuple(weight.shape) for weight in model.weights]
    if (shapes if legacy else sorted(shapes)) != (wanted if legacy else sorted(wanted)):
        raise ValueError(f"{path} holds {len(shapes)} arrays that do not match the {len(wanted)} of {model.name}")
    if legacy:
        model.set_weights(arrays)
    elif str(path).endswith(SUFFIX):
        model.load_weights(path)
    else:  # Keras treats a file without this suffix as a file of Keras 2
        raise ValueError(f"the name of {path} must end in {SUFFIX}")


def read_arrays(path):
    """`(legacy, arrays)`: whether Keras 2 wrote the file, and its arrays, without those of an optimizer."""
    import h5py

    arrays = []

    def collect(name, item):
        if isinstance(item, h5py.Dataset) and not name.startswith("optimizer"):
            arrays.append(item[()])

    try:
        with h5py.File(path) as file:
            root = file.get("model_weights", file)  # the file holds a whole model, or weights alone
            legacy = "layer_names" in root.attrs
            if legacy:
                groups = [root[name] for name in root.attrs["layer_names"]]
                arrays = [group[name][()] for group in groups for name in group.attrs["weight_names"]]
            else:
                file.visititems(collect)
    except OSError as error:
        raise ValueError(f"{path} is not a readable HDF5 file, as Keras writes: {error}") from error
    return legacy, arrays
