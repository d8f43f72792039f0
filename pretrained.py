"""Weights for the networks of rsan_model.py: by name from weights/, or from a file."""

import functools
import hashlib
import inspect
import json
import shutil
import tempfile
from pathlib import Path

import h5py

FOLDER = Path(__file__).resolve().parent / "weights"


def takes_weights(build):
    """Adds the argument `weights` to a function that builds a network: a name or path as in `released`, or None.

    The network is then built as the record of the weights says; an argument that contradicts the record raises
    ValueError. The network gets two attributes: `record`, the JSON beside the weights (which holds the widths at which
    it should see a field of view), and `threshold`, the probability from which a pixel counts as vessel.
    """
    signature = inspect.signature(build)

    @functools.wraps(build)
    def built(*arguments, weights=None, **named):
        if weights is None:
            return build(*arguments, **named)
        path, record = released(weights)
        asked = signature.bind(*arguments, **named).arguments
        defaults = {name: argument.default for name, argument in signature.parameters.items()}
        recorded = {**defaults, **record["model"], "input_shape": asked.get("input_shape", defaults["input_shape"])}
        for name, value in asked.items():
            if value != recorded[name]:
                raise ValueError(f"the weights {str(weights)!r} have {name}={recorded[name]!r}, not {value!r}")
        model = build(**recorded)
        load_weights(model, path)
        model.record, model.threshold = record, record.get("threshold", 0.5)
        return model

    added = inspect.Parameter("weights", inspect.Parameter.KEYWORD_ONLY, default=None)
    built.__signature__ = signature.replace(parameters=[*signature.parameters.values(), added])
    return built


def released(name):
    """`(path, record)` of weights and of the JSON beside them; checks the SHA-256 in the JSON.

    Args:
        name: For example "any" for weights/any_rsan.weights.h5, or "chase_backbone"; or the path of an .h5 file.

    Raises:
        FileNotFoundError: There is no such file, or no JSON beside it.
        ValueError: There is no such name, or the file is not the one that the JSON describes.
    """
    path = Path(name) if str(name).endswith(".h5") else names().get(str(name).replace("_rsan", ""))
    if path is None:
        raise ValueError(f"no weights named {name!r}: give one of {', '.join(names())}, or the path of an .h5 file")
    if not path.exists():
        raise FileNotFoundError(f"no such file: {path}")
    beside = path.with_name(path.name.removesuffix(".h5").removesuffix(".weights") + ".json")
    record = json.loads(beside.read_text(encoding="utf-8"))
    if missing := {"diameters", "model", "sha256"} - set(record):
        raise ValueError(f"{beside} lacks {', '.join(sorted(missing))}")
    if hashlib.sha256(path.read_bytes()).hexdigest() != record["sha256"]:
        raise ValueError(f"{path} is not the file that {beside.name} describes: restore it")
    return path, record


def names():
    """`{name: path}` of the files in weights/; names omit "_rsan": "drive", "drive_seed1", "drive_backbone"."""
    return {path.name.removesuffix(".weights.h5").replace("_rsan", ""): path
            for path in sorted(FOLDER.glob("*.weights.h5"))}


def load_weights(model, path):
    """Loads a weights file of this project, or an `.h5` file of Keras 2 (such as the authors'), into `model`.

    Raises:
        ValueError: The file is not HDF5, or its arrays do not match those of `model`.
    """
    try:
        with h5py.File(path) as file:
            root = file.get("model_weights", file)  # the file holds a whole model, or weights alone
            legacy = "layer_names" in root.attrs
            if legacy:
                groups = [root[name] for name in root.attrs["layer_names"]]
                arrays = [group[name][()] for group in groups for name in group.attrs["weight_names"]]
            else:
                arrays = []
                file.visititems(lambda name, item: arrays.append(item[()]) if is_weight(name, item) else None)
    except OSError as error:
        raise ValueError(f"{path} is not a readable HDF5 file: {error}") from error
    # Keras would load a larger network's file into a smaller network without an error.
    found, wanted = [array.shape for array in arrays], [tuple(weight.shape) for weight in model.weights]
    if (found if legacy else sorted(found)) != (wanted if legacy else sorted(wanted)):
        raise ValueError(f"{path} holds {len(found)} arrays that do not match the {len(wanted)} of {model.name}")
    if legacy:
        model.set_weights(arrays)
    else:
        # Keras treats a file without the suffix .weights.h5 as a file of Keras 2.
        with tempfile.TemporaryDirectory() as folder:
            model.load_weights(shutil.copy(path, Path(folder) / "copy.weights.h5"))


def is_weight(name, item):
    """Whether an item of a `.weights.h5` file is an array of the network, not a group or the optimizer's."""
    return isinstance(item, h5py.Dataset) and not name.startswith("optimizer")
