"""Runs a network with ONNX Runtime, which needs neither Keras nor TensorFlow."""

import importlib.util
import os
from pathlib import Path

from vessels import UserError

from pretrained import read_record


class OnnxNetwork:
    """A network in a file of `predict.py --export onnx`, run on the processor.

    Args:
        path: The file.
        record: The JSON beside it, a dict.

    Attributes:
        record: As given.
        threshold: Probability from which a pixel counts as vessel, a float.

    Raises:
        UserError: The file is broken, or ONNX Runtime is missing.
    """

    def __init__(self, path, record):
        self.record, self.threshold = record, record.get("threshold", 0.5)
        try:
            import onnxruntime
        except ImportError as error:
            raise UserError(f"{path}: needs ONNX Runtime ({error}); pip install -r requirements-predict.txt") from None
        options = onnxruntime.SessionOptions()
        # Threads that wait must not keep a core busy: others read and measure photographs meanwhile.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's own errors have no common class
            raise UserError(f"{path}: cannot be opened ({' '.join(str(error).split())}); export it again") from None

    def predict_on_batch(self, x):
        """float32 `(batch, height, width, 1)`, in [0, 1] as is `x`, float32 `(batch, height, width, 3)`."""
        return self.session.run(None, {"photograph": x})[0]


def load_onnx(path):
    """The network in an .onnx file, for `segment`: an `OnnxNetwork` as the JSON beside the file describes it.

    Raises:
        WeightsError: A file is missing, or was not exported from the weights that the JSON describes.
        UserError: As `OnnxNetwork`.
    """
    return OnnxNetwork(path, read_record(Path(path)))


def only_onnx():
    """Whether Keras and TensorFlow are not installed and no backend is asked for, so that ONNX Runtime has to do."""
    installed = any(importlib.util.find_spec(package) for package in ("keras", "tensorflow"))
    return not installed and "KERAS_BACKEND" not in os.environ
