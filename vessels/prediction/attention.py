"""Draws what spatial attention does in a trained network: the command behind predict.py --attention."""

import dataclasses
import io

import cv2
import keras
import numpy as np
from matplotlib.colors import SymLogNorm
from matplotlib.figure import Figure

from vessels import UserError
from vessels.data.images import pad, read_photograph
from vessels.files import write_atomically
from vessels.prediction.folders import identity, made_from, mark, place
from vessels.prediction.maps import predict_photograph

# Colour-blind readers can read both: one goes from dark to light, one from one hue to another.
ATTENTION, FEATURES = "cividis", "PuOr"


@dataclasses.dataclass(frozen=True)
class Block:
    """The effect of one layer of spatial attention on a photograph; maps are `(height, width)` of its level.

    Attributes:
        name: Position in the network, such as "encoder 2", "bottom" or "decoder 1"; level 1 has full resolution.
        channels: Number of feature channels, an int.
        attention: The attention map, float32 in [0, 1], NaN outside the field of view.
        before, after: Channel mean of the layer's input and output, float32, NaN outside the field of view.
        on_vessels, elsewhere: Mean attention where the network finds vessels, and where it finds none, floats.
    """

    name: str
    channels: int
    attention: np.ndarray
    before: np.ndarray
    after: np.ndarray
    on_vessels: float
    elsewhere: float


def attention_blocks(model, image, widths, threshold=0.5):
    """The maps of each layer of spatial attention, in the order of the network: list of `Block`, empty without any.

    Args:
        model: The network; its layers of attention have a method `attention`.
        image: uint8 `(height, width, 3)`, RGB.
        widths, threshold: As in `predict_photograph`.
    """
    found = predict_photograph(model, image, widths, threshold=threshold)
    how = {"dsize": None, "fx": found.scale, "fy": found.scale, "interpolation": cv2.INTER_AREA}
    small = cv2.resize(image * found.fov[..., None], **how)
    height, width = (-(-side // 8) * 8 for side in small.shape[:2])
    x = pad(small, height, width)[None].astype("float32") / 255
    fov, probability = (pad(cv2.resize(plane.astype("float32"), **how), height, width)
                        for plane in (found.fov, found.probability))
    layers = [layer for layer in model.layers if hasattr(layer, "attention")]
    if not layers:
        return []
    inputs = keras.Model(model.input, [layer.input for layer in layers])(x)
    blocks = []
    for i, (layer, features) in enumerate(zip(layers, inputs, strict=True)):
        maps = (layer.attention(features), keras.ops.mean(features, -1), keras.ops.mean(layer(features), -1))
        size = features.shape[2:0:-1]
        inside = cv2.resize(fov, size, interpolation=cv2.INTER_AREA) > 0.5
        vessel = cv2.resize(probability, size, interpolation=cv2.INTER_AREA) >= threshold
        maps = [keras.ops.convert_to_numpy(one).astype("float32").reshape(inside.shape) for one in maps]
        maps = [np.where(inside, one, np.nan) for one in maps]
        means = (float(maps[0][inside & where].mean()) for where in (vessel, ~vessel))
        bottom = len(layers) // 2
        name = "bottom" if i == bottom else f"{'encoder' if i < bottom else 'decoder'} {min(i, 2 * bottom - i) + 1}"
        blocks.append(Block(name, features.shape[-1], *maps, *means))
    return blocks


def draw(blocks):
    """JPEG bytes: a column for each of `blocks`. All attention maps share a colour scale, and so do all features."""
    figure = Figure(figsize=(2 * len(blocks) + 0.8, 6.6), layout="compressed")
    axes = figure.subplots(3, len(blocks), squeeze=False)
    side = max(block.before.shape[1] for block in blocks)
    limit = max(np.nanmax(np.abs(block.before)) for block in blocks)
    features = {"cmap": FEATURES, "norm": SymLogNorm(0.5, vmin=-limit, vmax=limit)}
    for (top, middle, bottom), block in zip(axes.T, blocks, strict=True):
        shares = top.imshow(block.attention, ATTENTION, vmin=0, vmax=1)
        means = middle.imshow(block.before, **features)
        bottom.imshow(block.after, **features)
        part = round(side / block.before.shape[1])
        top.set_title(f"{block.name}\n1/{part} of the side, {block.channels} channels", fontsize=9)
        top.set_xlabel(f"vessels {block.on_vessels:.2f}, elsewhere {block.elsewhere:.2f}", fontsize=8)
    for row, title in zip(axes[:, 0], ("attention", "features' mean\nbefore", "features' mean\nafter"), strict=True):
        row.set_ylabel(title, fontsize=9)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[], facecolor="0.8")
        axis.spines[:].set_visible(False)
    figure.colorbar(shares, ax=axes[0], aspect=12, pad=0.01)
    figure.colorbar(means, ax=axes[1:], aspect=24, pad=0.01)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=100, format="jpeg", pil_kwargs={"quality": 80})
    return buffer.getvalue()


def write(model, photograph, folder, widths, threshold):
    """Writes the picture of a photograph, a `Path`, into `folder`. Returns its path.

    Raises `UserError` if the photograph cannot be read, the picture not be written, or the network has no attention.
    """
    image, path = read_photograph(photograph), place(folder, photograph, "attention.jpg")
    made_from(path, identity(image))
    blocks = attention_blocks(model, image, widths, threshold)
    if not blocks:
        raise UserError("a network without attention; name other --weights")
    write_atomically(path, draw(blocks) + mark(identity(image)))
    return path
