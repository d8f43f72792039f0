"""From a photograph to a probability map, and to measures."""

import numpy as np

from vessels.data.fov import Widths
from vessels.prediction.maps import predict_photograph
from vessels.prediction.runtimes import load_onnx

__all__ = ["load_onnx", "segment"]


def segment(model, image, widths=None):
    """Vessel probability of each pixel of a photograph of any size, from any camera.

    The photograph is scaled so that its field of view is as wide as in the network's training.

    Args:
        model: The network, as `build_rsan(weights="any")` or `load_onnx("weights/any_rsan.onnx")` returns it.
        image: uint8 `(height, width, 3)`, RGB.
        widths: `Widths` at which the network sees the field of view, or widths in pixels; by default, those
            of the network's record, which `build_rsan(weights=...)` reads.

    Returns:
        float32 `(height, width)` in [0, 1], 0 outside the field of view.

    Raises:
        ValueError: `image` is not uint8 `(height, width, 3)`; or the network has no record and none are given.
    """
    if widths is None:
        widths = Widths.of_record(getattr(model, "record", {"diameters": ()}))
        if not widths.diameters:
            raise ValueError("give widths: those in pixels of the fields of view on which the network was trained")
    elif not isinstance(widths, Widths):
        widths = Widths(tuple(np.atleast_1d(widths)))
    return predict_photograph(model, image, widths).probability
