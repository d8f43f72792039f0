"""Exports the network to formats that run without Keras."""

import tempfile
import warnings
from pathlib import Path

import keras
import numpy as np

from vessels import UserError
from vessels.data.images import EXAMPLE, read_photograph
from vessels.files import sha256, write_json
from vessels.prediction.maps import predict_tiled
from vessels.prediction.runtimes import OnnxNetwork

from pretrained import read_record, record_path

SUFFIXES = {"onnx": ".onnx", "litert": ".tflite"}
TOLERANCE = 1e-4

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf


def main(model, arguments):
    """The command predict.py --export; `model` as in `export`.

    `arguments` holds `export`, `weights` and `output_dir`, which may be None for ONNX: the file is then written beside
    the weights, and replaces an earlier one. The SHA-256 of an ONNX file is added to the JSON beside it.
    Returns the exit code 0, or raises UserError.
    """
    record = read_record(arguments.weights)
    path = arguments.output_dir or record_path(arguments.weights).with_suffix(SUFFIXES["onnx"])
    beside = record_path(path)
    if arguments.export == "onnx" and beside.exists() and beside != record_path(arguments.weights):
        raise UserError(f"{beside}: exists; remove it, or choose another path with -o")
    difference = export(model, arguments.export, path, replace=arguments.output_dir is None)
    if arguments.export == "onnx":
        write_json(beside, record | {"onnx_sha256": sha256(path)})
    print(f"written {path}: its probabilities differ from Keras' by at most {difference:.1e}")
    return 0


def litert(path):
    with warnings.catch_warnings(action="ignore"):
        interpreter = tf.lite.Interpreter(str(path))
    source, target = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def run(x):
        interpreter.resize_tensor_input(source, x.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(source, x)
        interpreter.invoke()
        return interpreter.get_tensor(target)

    return run


def saved_model(path):
    loaded = tf.saved_model.load(path)
    return lambda x: loaded.serve(x).numpy()


RUNNERS = {"onnx": lambda path: OnnxNetwork(path, {}).predict_on_batch, "litert": litert, "saved_model": saved_model}


def export(model, kind, path, replace=False):
    """Writes the network to `path` if it gives the same probabilities as Keras for scikit-image's photograph.

    Args:
        model: The network: float32 `(batch, height, width, 3)` in [0, 1], sides that are multiples of 8, to
            `(batch, height, width, 1)`. The written network takes images of any size, which it pads with black at all
            sides as `predict_tiled` does, as an input named "photograph".
        kind: "onnx", "litert" or "saved_model" (a folder).
        path: File or folder to write.
        replace: Whether to replace a file that `path` is.

    Returns:
        The largest difference between the two probabilities of a pixel, float.

    Raises:
        UserError: A package is missing, `path` exists or cannot be written, or the probabilities differ.
    """
    path = Path(path)
    if keras.backend.backend() != "tensorflow":
        raise UserError("--export needs TensorFlow: set KERAS_BACKEND=tensorflow")
    if path.suffix != SUFFIXES.get(kind, path.suffix):
        raise UserError(f"{path}: for {kind}, the name must end in {SUFFIXES[kind]}")
    if path.exists() and not replace:
        raise UserError(f"{path}: exists; remove it, or choose another path with -o")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as folder:
            difference = write(model, kind, Path(folder) / path.name)
            (Path(folder) / path.name).replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); choose another path with -o") from None
    return difference


class AnySize(keras.layers.Layer):
    """Pads images to multiples of 8 pixels, applies `model`, and crops the result."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def call(self, images):
        sides = tf.shape(images)[1:3]
        added = (sides + 7) // 8 * 8 - sides  # formats disagree about negative numbers modulo 8
        before = added // 2
        padded = tf.pad(images, tf.pad(tf.stack([before, added - before], 1), [[1, 1], [0, 0]]))
        # The converters must know the number of channels.
        padded = tf.reshape(padded, tf.stack([tf.shape(images)[0], *tf.unstack(sides + added), images.shape[-1]]))
        return tf.slice(self.model(padded), tf.pad(before, [[1, 1]]), tf.concat([[-1], sides, [-1]], 0))


def write(model, kind, path):
    photograph = read_photograph(EXAMPLE)[200:902, 200:903]  # sides that are no multiples of 8
    wanted = predict_tiled(model, photograph)[None, ..., None]
    photograph = photograph[None].astype("float32") / 255
    inputs = keras.Input((None, None, 3))
    whole = keras.Model(inputs, AnySize(model)(inputs))
    signature = [keras.InputSpec(dtype="float32", shape=(None, None, None, 3), name="photograph")]
    try:
        with warnings.catch_warnings(action="ignore"):
            whole.export(str(path), format={"saved_model": "tf_saved_model"}.get(kind, kind), verbose=False,
                         input_signature=signature)
        found = RUNNERS[kind](path)(photograph)
    except (ImportError, ValueError) as error:
        raise UserError(f"--export {kind}: {error}; onnx needs pip install onnxruntime tf2onnx, litert needs pip "
                        "install --upgrade keras") from None
    difference = float(np.abs(found - wanted).max()) if found.shape == wanted.shape else np.nan
    if not difference <= TOLERANCE:  # also true for NaN
        raise UserError(f"{path.name}: not written: the exported network's probabilities differ from Keras' by "
                        f"{difference:.1e}, and {TOLERANCE:.0e} is allowed")
    return difference
