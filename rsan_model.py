"""RSAN, the Residual Spatial Attention Network for retinal vessel segmentation.

Guo, Szemenyei, Yi, Zhou, Bian: ICONIP 2020, arXiv:2009.08829. Everything in here
follows the authors' code: three levels of pooling, 16 to 128 filters, 1,054,523 parameters.
"""

from functools import partial

from fused import BatchNormalization, Conv2DTranspose, StepInput  # first: sets what TensorFlow reads on import

# isort: split
import keras
from keras import layers

import pretrained
from attention_module import SpatialAttention
from dropblock import DropBlock2D

load_weights = pretrained.load_weights
# The user's Keras configuration may say channels_first.
Conv2D, Conv2DTranspose, MaxPooling2D = (
    partial(layer, data_format="channels_last")
    for layer in (layers.Conv2D, Conv2DTranspose, layers.MaxPooling2D)
)
# Name of each network: (whether it has DropBlock, whether it has attention).
VARIANTS = {"rsan": (True, True), "backbone": (False, False), "backbone_dropblock": (True, False)}


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
        filters: Channels of the output; if `channels` differs, a 1x1 convolution adapts the identity branch.
        drop: Function of a tensor, applied after each 3x3 convolution.

    Returns:
        Tensor `(batch, height, width, filters)`.
    """
    residual = two_convolutions(x, filters, drop)
    if x.shape[-1] != filters:
        x = Conv2D(filters, 1)(x)
    return layers.Add()([residual, x])


def rsab(x, filters, drop, attend):
    """Residual spatial attention block (the figure of RSAB): attention acts on the residual branch.

    Arguments and return value as in `residual_block`; `attend`, a function of a tensor, acts on the residual branch.
    """
    residual = attend(two_convolutions(x, filters, drop))
    return norm_relu(layers.Add()([residual, x]))


def build_rsan(input_shape=(None, None, 3), filters=16, keep_prob=0.85, block_size=7, variant="rsan",
               weights=None):
    """The network of figure 1, or one of the paper's two ablations.

    Args:
        input_shape: `(height, width, channels)`; sides are multiples of 8 or None.
        filters: Channels of the first level; each of the three poolings doubles them.
        keep_prob: Fraction of values that DropBlock keeps in training (paper: 0.85 on DRIVE, 0.78 on CHASE DB1).
        block_size: Side of DropBlock's blocks.
        variant: "rsan"; "backbone" (no DropBlock, no attention); "backbone_dropblock" (no attention).
        weights: Trained weights: "any", "drive", "chase", ... (an unknown name lists all), a run folder, or a file
            with its JSON beside it. They determine all but `input_shape`. None: random weights.

    Returns:
        Uncompiled `keras.Model`: float images in [0, 1], `(batch, height, width, 3)`, to vessel
        probabilities, float32 `(batch, height, width, 1)`.

    Raises:
        ValueError: The variant or the weights are unknown; the sides do not suit the three poolings or DropBlock; the
            weights are not the file that their JSON describes; or an argument contradicts the JSON.
    """
    if weights is not None:
        return pretrained.from_name(build_rsan, weights, input_shape, filters=filters, keep_prob=keep_prob,
                                    block_size=block_size, variant=variant)
    if variant not in VARIANTS:
        raise ValueError(f"variant must be one of {', '.join(VARIANTS)}, got {variant!r}")
    has_dropblock, has_attention = VARIANTS[variant]
    for side in input_shape[:2]:
        if side is not None and side % 8:
            raise ValueError(f"sides must be multiples of 8 (three poolings), got {input_shape}")
        if side is not None and has_dropblock and side < 8 * block_size:
            raise ValueError(f"sides must be at least {8 * block_size} (8 x block_size), got {input_shape}")

    def drop(x):
        return DropBlock2D(keep_prob, block_size)(x) if has_dropblock else x

    def attend(x):
        return SpatialAttention()(x) if has_attention else x

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


build = build_rsan  # the name that scripts look for, in this module and in others


def set_stage(model, keep_prob=None, momentum=None):
    """Changes DropBlock's `keep_prob` and the normalization's `momentum` in all layers of `model`; None keeps a value.

    The first call turns both into inputs of the compiled training step. Later calls compile the step again only for
    a `keep_prob` below all earlier ones (including that of `build_rsan`), as more random numbers are then needed.

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
