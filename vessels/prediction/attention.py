"""Draws what spatial attention does in a trained network: the command behind predict.py --attention."""

import dataclasses
import io

import keras
import numpy as np
from matplotlib.figure import Figure

from vessels import UserError
from vessels.data.images import pad, read_photograph
from vessels.files import write_atomically
from vessels.prediction.folders import identity, made_from, mark, place
from vessels.prediction.maps import predict_photograph, resize


@dataclasses.dataclass(frozen=True)
class Block:
    """One layer of spatial attention in a photograph.

    Attributes:
        name: Position in the network, such as "encoder 2", "bottom" or "decoder 1"; level 1 has full resolution.
        channels: Number of feature channels, an int.
        attention: The attention map, float32 `(height, width)` of its level in [0, 1], NaN outside the field of view.
        on_vessels, elsewhere: Mean attention where the network finds vessels, and where it finds none, floats; NaN if
            there is no such pixel.
    """

    name: str
    channels: int
    attention: np.ndarray
    on_vessels: float
    elsewhere: float


def attention_layers(model):
    """The layers of spatial attention, in the order of the network; `UserError` if there are none."""
    layers = [layer for layer in model.layers if hasattr(layer, "attention")]
    if not layers:
        raise UserError("a network without attention; name other --weights")
    return layers


def attention_blocks(model, image, widths, threshold=0.5):
    """The map of each layer of spatial attention, in the order of the network: list of `Block`.

    Args:
        model: The network; its layers of attention have a method `attention`.
        image: uint8 `(height, width, 3)`, RGB.
        widths: As in `predict_photograph`.
        threshold: Probability from which a pixel counts as vessel.

    Raises:
        UserError: The network has no such layer.
    """
    layers = attention_layers(model)
    predicted = predict_photograph(model, image, widths)
    size = [round(predicted.scale * side) for side in predicted.fov.shape[::-1]]
    width, height = (-(-side // 8) * 8 for side in size)
    planes = image * predicted.fov[..., None], predicted.fov.astype("float32"), predicted.probability
    x, fov, probability = (pad(resize(plane, *size), height, width) for plane in planes)
    outputs = [*(layer.input for layer in layers), model.output]  # at least two: Keras would not return a list of one
    *inputs, _ = keras.Model(model.input, outputs)(x[None].astype("float32") / 255)
    blocks, bottom = [], len(layers) // 2
    for i, (layer, features) in enumerate(zip(layers, inputs, strict=True)):
        attention = keras.ops.convert_to_numpy(layer.attention(features)).astype("float32")[0, ..., 0]
        inside, vessel = (resize(plane, *attention.shape[::-1]) >= least
                          for plane, least in ((fov, 0.5), (probability, threshold)))
        name = "bottom" if i == bottom else f"{'encoder' if i < bottom else 'decoder'} {min(i, 2 * bottom - i) + 1}"
        means = (float(attention[where].mean()) if where.any() else np.nan
                 for where in (inside & vessel, inside & ~vessel))
        attention = np.where(inside, attention, np.nan)
        blocks.append(Block(name, features.shape[-1], attention, *means))
    return blocks


def draw(blocks):
    """JPEG bytes: the attention map of each of `blocks`, in the same colours."""
    figure = Figure(figsize=(2 * len(blocks) + 0.8, 2.6), layout="compressed")
    axes = figure.subplots(1, len(blocks), squeeze=False)[0]
    side = max(block.attention.shape[1] for block in blocks)
    for axis, block in zip(axes, blocks, strict=True):
        picture = axis.imshow(block.attention, "cividis", vmin=0, vmax=1)  # colour-blind readers can read it
        fraction = round(side / block.attention.shape[1])
        axis.set_title(f"{block.name}\n1/{fraction} of the side, {block.channels} channels", fontsize=9)
        axis.set_xlabel(f"vessels {block.on_vessels:.2f}, elsewhere {block.elsewhere:.2f}", fontsize=8)
        axis.set(xticks=[], yticks=[], facecolor="0.8")
        axis.spines[:].set_visible(False)
    figure.colorbar(picture, ax=axes, aspect=12, pad=0.01)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=100, format="jpeg", pil_kwargs={"quality": 80})
    return buffer.getvalue()


def write(model, photograph, folder, widths, threshold):
    """Writes the picture of a photograph, a `Path`, into `folder`. Returns its path.

    Raises `UserError` if the photograph cannot be read, the picture not be written, or the network has no attention.
    """
    image, path = read_photograph(photograph), place(folder, photograph, "attention.jpg")
    made_from(path, identity(image))
    write_atomically(path, draw(attention_blocks(model, image, widths, threshold)) + mark(identity(image)))
    return path
