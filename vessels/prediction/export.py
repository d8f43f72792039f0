"""Exports the network to ONNX, which runs without Keras."""

import tempfile
import warnings
from pathlib import Path

import keras
import numpy as np

from vessels import UserError
from vessels.data.images import EXAMPLE, read_photograph
from vessels.files import read_bytes, sha256, write_atomically, write_json
from vessels.prediction.maps import predict_image
from vessels.prediction.runtimes import OnnxNetwork

from pretrained import record_path

TOLERANCE = 1e-4


def main(model, weights, path=None):
    """The command predict.py --export: writes `model`, the network of the file `weights`, to `path`.

    Without `path`, the file is written beside the weights, and replaces an earlier one. Its SHA-256 is added to the
    JSON beside it.
    """
    written = path or record_path(weights).with_suffix(".onnx")
    if written.suffix != ".onnx":
        raise UserError(f"{path}: the name must end in .onnx")
    beside = record_path(written)
    for file in (written, beside) if path else ():
        if file.exists() and file != record_path(weights):
            raise UserError(f"{file}: exists; remove it, or choose another path with -o")
    difference = export(model, written)
    write_json(beside, model.record | {"onnx_sha256": sha256(written)})
    print(f"written {written}: its probabilities differ from Keras' by at most {difference:.1e}")


def export(model, path):
    """Writes the network to `path` if it gives the same probabilities as Keras for scikit-image's photograph.

    Args:
        model: The network: float32 `(batch, height, width, 3)` in [0, 1], sides that are multiples of 8, to
            `(batch, height, width, 1)`. So is the written network, whose input is named "photograph".
        path: File to write, a `Path`.

    Returns:
        The largest difference between the two probabilities of a pixel, float.

    Raises:
        UserError: A package is missing, the file cannot be written, or the probabilities differ.
    """
    if keras.backend.backend() != "tensorflow":
        raise UserError("--export needs TensorFlow: set KERAS_BACKEND=tensorflow")
    photograph = read_photograph(EXAMPLE)[200:904, 200:904]
    signature = [keras.InputSpec(dtype="float32", shape=(None, None, None, 3), name="photograph")]
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / path.name
        try:
            with warnings.catch_warnings(action="ignore"):
                model.export(str(made), format="onnx", verbose=False, input_signature=signature)
        except ImportError as error:
            raise UserError(f"--export: {error}; pip install onnxruntime tf2onnx") from None
        differences = predict_image(OnnxNetwork(made, {}), photograph) - predict_image(model, photograph)
        difference = float(np.abs(differences).max())
        if not difference <= TOLERANCE:  # also true for NaN
            raise UserError(f"{path.name}: not written: the exported network's probabilities differ from Keras' by "
                            f"{difference:.1e}, and {TOLERANCE:.0e} is allowed")
        write_atomically(path, read_bytes(made))
    return difference
