"""Reads probability maps of any program, so that they can be scored in the same way."""

import numpy as np

from vessels import UserError
from vessels.data.images import decode

ENDINGS = (".png", ".tif", ".tiff", "_probability.png")  # the last as predict.py writes them


def read_map(folder, example):
    """The map of `example` in `folder`, named as the photograph: PNG or TIFF, 8 or 16 bit or floating point.

    The folder into which predict.py wrote its maps will do as well.

    Args:
        folder: A `Path`.
        example: An `Example`.

    Returns:
        float32 `(height, width)` in [0, 1], the largest value of an integer type becomes 1; or bool if the map is black
        and white, and so does not rank the pixels.

    Raises:
        UserError: The map is missing, has another size or several channels, holds values outside [0, 1], one value
            alone, or none over .4 of an integer type's largest, or is inverted.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; name the folder of the maps")
    place = (folder / example.name).parent
    wanted = {f"{(folder / example.name).name}{ending}".lower() for ending in ENDINGS}
    paths = sorted(path for path in place.glob("*") if path.name.lower() in wanted)
    if len(paths) != 1:
        listed = f"{', '.join(path.name for path in paths)} all claim to be" if paths else "lacks"
        raise UserError(f"{folder}: {listed} the map of {example.name}; there must be one {example.name}.png or .tif")
    (path,) = paths
    values = decode(path)
    if values.ndim == 3:
        if np.ptp(values, axis=2).any():
            raise UserError(f"{path}: is in colour; save the vessel probability alone, in grey")
        values = values[..., 0]
    if values.shape != example.label.shape:
        sizes = ["x".join(map(str, array.shape[::-1])) for array in (values, example.label)]
        raise UserError(f"{path}: {sizes[0]} pixels, not {sizes[1]} as the photograph; save it in that size")
    return probabilities(path, values, example)


def probabilities(path, values, example):
    """What `read_map` returns, from the grey `values` of the map of `example`, in the file `path`."""
    if np.ptp(values) == 0:
        raise UserError(f"{path}: holds the value {values.max()} alone; save the map of the photograph")
    if values[example.label].mean() < values[example.fov & ~example.label].mean():
        raise UserError(f"{path}: is darker in vessels than elsewhere; make them bright, unless this is another "
                        "photograph's map")
    if np.isin(values, (0, values.max())).all():
        return values > 0
    if values.dtype in (np.uint8, np.uint16):
        white = np.iinfo(values.dtype).max
        if values.max() < 0.4 * white:
            raise UserError(f"{path}: its largest value is {values.max()}, but {white} means 1; save it so, or as "
                            "floats in [0, 1]")
        return (values / np.float32(white)).astype("float32")
    if not (values.min() >= 0 and values.max() <= 1):  # NaN is neither
        raise UserError(f"{path}: holds values outside [0, 1]; save probabilities")
    return values.astype("float32")
