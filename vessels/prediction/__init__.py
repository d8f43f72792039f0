"""From a photograph to a probability map, and to measures."""

import numpy as np

from vessels.prediction.runtimes import load_onnx

__all__ = ["load_onnx", "segment"]


def segment(model, image, diameters=None, mixed_precision=None):
    """Vessel probability of each pixel of a photograph of any size, from any camera.

    The photograph is scaled so that its field of view is as wide as in the network's training.

    Args:
        model: The network, as `build_rsan(weights="any")` or `load_onnx("weights/any_rsan.onnx")` returns it.
        image: uint8 `(height, width, 3)`, RGB, or grey `(height, width)`: an array, a tensor, or an image of Pillow.
        diameters: Width in pixels to which the field of view is scaled, or several of which the maps are averaged, or
            `Widths`; by default, those of the network's record, which `build_rsan(weights=...)` reads.
        mixed_precision: Whether to compute in bfloat16; by default, if this processor does so natively.

    Returns:
        float32 `(height, width)` in [0, 1], 0 outside the field of view.

    Raises:
        ValueError: `image` is not such a photograph; or the network has no record and none are given.
    """
    from vessels.data.fov import Widths  # slow
    from vessels.prediction.maps import predict_photograph
    from vessels.prediction.precision import with_precision

    if diameters is None:
        diameters = Widths.of_record(getattr(model, "record", {"diameters": ()}))
    elif not isinstance(diameters, Widths):
        diameters = Widths(tuple(np.ravel(diameters)))
    if not diameters.diameters or not min(diameters.diameters) > 0:
        raise ValueError("give diameters: the widths in pixels of the fields of view on which the network was trained")
    if getattr(image, "mode", "")[:1] in ("I", "F"):
        raise ValueError("an image of more than 8 bits: read it by vessels.data.images.read_photograph")
    image = np.asarray(image.convert("RGB") if hasattr(image, "convert") else image)
    image = np.dstack([image] * 3) if image.ndim == 2 else image
    return predict_photograph(with_precision(model, mixed_precision)[0], image, diameters).probability
