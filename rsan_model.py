"""RSAN, the Residual Spatial Attention Network for retinal vessel segmentation.

Guo, Szemenyei, Yi, Zhou, Bian: ICONIP 2020, arXiv:2009.08829. Everything in here
follows the authors' code: three levels of pooling, 16 to 128 filters, 1,054,523 parameters.
"""

from functools import partial

from fused import BatchNormalization, StepInput  # first: it chooses TensorFlow's settings

# isort: split
import keras
from keras import layers

from attention_module import SpatialAttention
from dropblock import DropBlock2D
from pretrained import load_weights, takes_weights

__all__ = ["VARIANTS", "build_rsan", "load_weights", "residual_block", "rsab"]

# Whatever Keras' configuration says of images.
Conv2D, Conv2DTranspose, MaxPooling2D = (
    partial(layer, data_format="channels_last")
    for layer in (layers.Conv2D, layers.Conv2DTranspose, layers.MaxPooling2D)
)
VARIANTS = ("rsan", "backbone", "backbone_dropblock")


def norm_relu(x):
    x = BatchNormalization(momentum=0.9, epsilon=2e-5)(x)
    return layers.ReLU()(x)


def two_convolutions(x, filters, drop):
    """The residual branch that both blocks share: twice batch normalization, ReLU, 3x3 convolution, DropBlock."""
    for _ in range(2):
        x = norm_relu(x)
        x = Conv2D(filters, 3, padding="same")(x)
        x = drop(x)
    return x


def residual_block(x, filters, drop):
    """Pre-activation residual block with DropBlock (the figure of the modified residual block).

    Args:
        x: Tensor `(batch, height, width, channels)`.
        filters: Width of the output; a 1x1 convolution brings the identity to it where `channels` differs.
        drop: What follows each 3x3 convolution, a function of a tensor.

    Returns:
        Tensor `(batch, height, width, filters)`.
    """
    residual = two_convolutions(x, filters, drop)
    if x.shape[-1] != filters:
        x = Conv2D(filters, 1)(x)
    return layers.Add()([residual, x])


def rsab(x, filters, drop, attend):
    """Residual spatial attention block (the figure of RSAB): attention acts on the residual branch.

    Args and return value as in `residual_block`; `attend` is what the residual branch goes through.
    """
    residual = attend(two_convolutions(x, filters, drop))
    return norm_relu(layers.Add()([residual, x]))


@takes_weights
def build_rsan(input_shape=(None, None, 3), filters=16, keep_prob=0.85, block_size=7, variant="rsan"):
    """The network of figure 1, or one of the paper's two ablations of it.

    Args:
        input_shape: `(height, width, channels)`; sides are multiples of 8 or None.
        filters: Width of the first level, doubled by each of three poolings.
        keep_prob: Share of values that DropBlock keeps in training (paper: 0.85 on DRIVE, 0.78 on CHASE DB1).
        block_size: Side of DropBlock's blocks.
        variant: "rsan"; "backbone" (no DropBlock, no attention); "backbone_dropblock" (no attention).
        weights: By keyword, trained ones that decide all but the shape: "any", "drive", "chase", ... (a wrong name
            lists them), or the path of a file with its JSON beside it; by default None, random ones.

    Returns:
        Uncompiled `keras.Model`: float images in [0, 1], `(batch, height, width, 3)`, to vessel
        probabilities, float32 `(batch, height, width, 1)`.

    Raises:
        ValueError: An unknown variant, or sides that the three poolings or DropBlock cannot take; unknown weights, or
            others than their JSON describes, or arguments that contradict it.
    """
    if variant not in VARIANTS:
        raise ValueError(f"variant must be one of {', '.join(VARIANTS)}, got {variant!r}")
    for side in input_shape[:2]:
        if side is not None and side % 8:
            raise ValueError(f"sides must be multiples of 8 (three poolings), got {input_shape}")
        if side is not None and variant != "backbone" and side < 8 * block_size:
            raise ValueError(f"sides must be at least {8 * block_size}, 8 blocks of {block_size}, got {input_shape}")

    def drop(x):
        return x if variant == "backbone" else DropBlock2D(keep_prob, block_size)(x)

    def attend(x):
        return SpatialAttention()(x) if variant == "rsan" else x

    def level(x, width):
        return rsab(residual_block(x, width, drop), width, drop, attend)

    inputs = x = keras.Input(input_shape)
    widths = (filters, 2 * filters, 4 * filters)
    skips = []
    for width in widths:
        x = level(x, width)
        skips.append(x)
        x = MaxPooling2D()(x)
    x = level(x, 8 * filters)
    for width, skip in zip(reversed(widths), reversed(skips), strict=True):
        # Figure 1 says 2x2: that is the stride, the kernel is 3x3.
        x = Conv2DTranspose(width, 3, strides=2, padding="same")(x)
        x = layers.Concatenate()([x, skip])
        x = level(x, width)
    # Under mixed precision the probability stays float32: rounded to bfloat16, 0.999 would be 1.
    outputs = Conv2D(1, 1, activation="sigmoid", dtype="float32")(x)
    return keras.Model(inputs, outputs, name=variant)


def set_stage(model, keep_prob=None, momentum=None):
    """Changes DropBlock's `keep_prob` and the normalization's `momentum` in all layers of `model`; None leaves them.

    The first call makes both inputs of the compiled training step, which then is compiled again only for a
    `keep_prob` smaller than any before, that of `build_rsan` included: it bounds how many blocks a step draws.

    Raises:
        ValueError: `keep_prob` is not in (0, 1].
    """
    settings = [layer.setting for layer in model.layers if isinstance(layer, (DropBlock2D, BatchNormalization))]
    smallest = [setting.least for setting in settings]
    for layer in model.layers:
        if isinstance(layer, DropBlock2D) and keep_prob is not None:
            layer.keep_prob = keep_prob
        if isinstance(layer, BatchNormalization) and momentum is not None:
            layer.momentum = momentum
    if keras.backend.backend() == "torch":  # compiles nothing
        return
    new = not hasattr(model, "step_inputs")
    if new:
        model.step_inputs = [StepInput(setting) for setting in settings]
    if model.compiled and (new or smallest != [setting.least for setting in settings]):
        model.make_train_function(force=True)
