"""Faster versions of Keras layers: the same results with fewer passes over memory, and on JAX a faster gradient.

The environment variable `RSAN_FUSED=0` switches them off; then Keras' own layers compute everything, and DropBlock
draws as `dropblock.py` reads.
"""

import math
import os

# TensorFlow reads this on import. oneDNN halves the time of a training step on processors where TensorFlow
# does not use it by default (those without VNNI or AMX). A value set by the user is kept.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# isort: split
import keras
from keras import layers, ops

FUSED = os.environ.get("RSAN_FUSED", "1") != "0"
BACKEND = keras.backend.backend()
# DropBlock's masks of this many channels share one int32. A bit is 1 where a value is dropped.
PACKED = 16
# TensorFlow keeps int32 in the host's memory, also between kernels of a GPU.
STORED = "uint32" if BACKEND == "tensorflow" else "int32"


def compiled(function):
    """`function` of tensors as one kernel: XLA fuses its elementwise operations and those of its gradient.

    For training only: export formats do not support such kernels, and each new image size needs a compilation.
    """
    if BACKEND != "tensorflow" or not FUSED:
        return function
    import tensorflow as tf

    return tf.function(function, jit_compile=True, autograph=False)


class Setting:
    """A number that a layer uses: a constant in a compiled step or, once it has a variable, an input of the step.

    Attributes:
        number: float, the value.
        least: float, the smallest value so far.
        variable: `keras.Variable` that a compiled step reads, or None.
    """

    def __init__(self, number):
        self.number = self.least = number
        self.variable = None

    def assign(self, number):
        self.number, self.least = number, min(number, self.least)
        if self.variable is not None:
            self.variable.assign(number)

    def read(self):
        return self.number if self.variable is None else ops.convert_to_tensor(self.variable)


class StepInput(keras.random.SeedGenerator):
    """Makes `setting` an input of the compiled steps of a model that has this object as an attribute.

    It is a `SeedGenerator`, because Keras lists its state among a model's variables (so that a compiled step reads it)
    but not among the weights (so that it is not saved).
    """

    def __init__(self, setting):
        if setting.variable is None:
            # Not cast: in bfloat16, 0.85 would be 0.8516.
            setting.variable = keras.Variable(setting.number, dtype="float32", trainable=False, autocast=False,
                                              aggregation="none")
        self.state = setting.variable


@keras.saving.register_keras_serializable(package="rsan")
class Conv2DTranspose(layers.Conv2DTranspose):
    """Keras' layer; on JAX, with another way to the gradient of its kernel.

    JAX's own way is a convolution with a kernel of the size of the image, which takes most of RSAN's training step
    on a GPU. Here, it is the gradient of the ordinary convolution whose transpose this layer is. Arguments,
    weights and results are those of `keras.layers.Conv2DTranspose`. For all but "same" padding, dilation 1 and channels
    last, Keras computes the gradient.
    """

    def call(self, inputs):
        usual = self.padding, self.output_padding, self.data_format, {*self.dilation_rate}
        if not FUSED or BACKEND != "jax" or usual != ("same", None, "channels_last", {1}):
            return super().call(inputs)
        y = transposed_convolution(inputs, ops.convert_to_tensor(self.kernel), self.strides)
        if self.use_bias:
            y = ops.add(y, self.bias)
        return self.activation(y) if self.activation else y


def transposed_convolution(x, kernel, strides):
    """`ops.conv_transpose` with "same" padding on JAX, with the gradient of `Conv2DTranspose`."""
    import jax

    @ops.custom_gradient
    def transposed(x, kernel):
        def gradient(upstream):
            y, pull = jax.vjp(lambda kernel: ops.conv(upstream, kernel, strides, "same", "channels_last"), kernel)
            return y, *pull(x)

        return ops.conv_transpose(x, kernel, strides, "same", data_format="channels_last"), gradient

    return transposed(x, kernel)


@keras.saving.register_keras_serializable(package="rsan")
class BatchNormalization(layers.BatchNormalization):
    """Keras' layer; on TensorFlow, its mean, variance and scaling are one operation instead of ten.

    Arguments, weights and results are those of `keras.layers.BatchNormalization`. The fused operation computes float
    `(batch, height, width, channels)` normalized over the last axis, with scale and centre, float32 weights, no
    `mask` and no renormalization. Keras computes everything else.
    """

    setting = None
    computing = False

    @property
    def momentum(self):
        """Fraction of the moving averages that a step keeps: a float, or `Setting.read()` while the layer computes."""
        return self.setting.read() if self.computing else self.setting.number

    @momentum.setter
    def momentum(self, value):
        if self.setting is None:
            self.setting = Setting(value)
        self.setting.assign(value)

    def call(self, inputs, training=None, mask=None):
        learns = training and self.trainable
        renorm = getattr(self, "renorm", False)  # older Keras has none
        usual = (len(inputs.shape), self.axis % len(inputs.shape), self.scale, self.center, renorm, mask is None,
                 self.variable_dtype, inputs.dtype == self.compute_dtype)
        fused = FUSED and BACKEND == "tensorflow" and not (learns and self.synchronized)
        if not fused or usual != (4, 3, True, True, False, True, "float32", True):
            self.computing = True
            try:
                return super().call(inputs, training=training, mask=mask)
            finally:
                self.computing = False
        import tensorflow as tf

        gamma, beta = ops.convert_to_tensor(self.gamma), ops.convert_to_tensor(self.beta)
        if not learns:
            y, _, _ = tf.compat.v1.nn.fused_batch_norm(
                inputs, gamma, beta, ops.convert_to_tensor(self.moving_mean),
                ops.convert_to_tensor(self.moving_variance), epsilon=self.epsilon, is_training=False,
            )
            return y
        y, mean, variance = tf.compat.v1.nn.fused_batch_norm(inputs, gamma, beta, epsilon=self.epsilon)
        # TensorFlow returns the unbiased variance, Keras uses the biased one.
        pixels = ops.cast(ops.size(inputs) / inputs.shape[-1], "float32")
        m = self.setting.read()
        self.moving_mean.assign(self.moving_mean * m + mean * (1 - m))
        self.moving_variance.assign(self.moving_variance * m + variance * ((pixels - 1) / pixels) * (1 - m))
        return y


# ---- DropBlock: its seeds are drawn as distances, and its masks are bits


def shape_with_sides_of_at_least(size, x):
    """Shape of `x`: `(batch, height, width, channels)`, once both sides are known to hold a block of `size`."""
    batch, height, width = ops.shape(x)[:3]
    message = f"DropBlock's blocks of {size} are larger than the map: train on larger images"
    if not isinstance(height * width, int):
        import tensorflow as tf

        # TensorFlow orders only stateful operations: the draw must wait for this check.
        check = tf.debugging.assert_greater_equal(ops.minimum(height, width), size, message)
        with tf.control_dependencies([check]):
            height = tf.identity(height)
    elif min(height, width) < size:
        raise ValueError(f"{message}, or with a smaller block_size; got {height}x{width}")
    return batch, height, width, x.shape[-1]


def number(integer):
    """An int, or an integer tensor (TensorFlow learns the size only when the layer runs), as float."""
    return float(integer) if isinstance(integer, int) else ops.cast(integer, "float32")


def enough_seeds(expected):
    """A number of seeds that practically never is exceeded: six standard deviations above the mean."""
    count = expected + 6 * expected**0.5 + 6
    return math.ceil(count) if isinstance(count, float) else ops.cast(ops.ceil(count), "int32")


def drop_blocks(x, u, gamma, size, sides):
    """`x` with blocks set to zero and the rest rescaled, as in `DropBlock2D.call`.

    Args:
        x: float `(batch, height, width, channels)`.
        u: float32 `(batch, count)` in [0, 1), a random number for each possible seed, see `enough_seeds`.
        gamma: Probability that a position starts a block: a float or a tensor.
        size: Side of a block.
        sides: Height, width and channels of the mask; one channel serves all of `x`.
    """
    height, width, channels = sides

    def draw():
        dropped = packed_blocks(gaps(u, gamma, size, sides), *sides, size)
        count = ops.cast(ops.shape(u)[0], "float32") * ops.cast(height * width * channels, "float32")
        return dropped, count / ops.maximum(count - count_dropped(dropped), 1)

    if isinstance(gamma, float):
        dropped, scale = draw()
        return multiply(x, lambda x: scale_kept(x, dropped, scale, channels))
    some = gamma > 0
    none = ops.zeros((ops.shape(u)[0], height, width, -(-channels // PACKED)), STORED), ops.ones(())
    dropped, scale = either(some, draw, lambda: none)
    return multiply(x, lambda x: either(some, lambda: scale_kept(x, dropped, scale, channels), lambda: x))


def gaps(u, gamma, size, sides):
    """Distance from each seed to the next, float32 `(batch, count)`.

    The gaps between successes of Bernoulli trials are geometrically distributed. Drawing gaps makes the cost
    proportional to the number of seeds, not of positions. Longer gaps than the map are cut.
    """
    height, width, channels = sides
    trials = (height - size + 1) * (width - size + 1) * channels
    # Clipped so that the logarithm is finite and not zero in float32.
    if isinstance(gamma, float):
        log = math.log1p(-min(gamma, 1 - 2**-24))
    else:
        log = ops.log1p(-ops.clip(gamma, 2**-60, 1 - 2**-24))
    return ops.minimum(ops.floor(ops.log1p(-u) / log), trials) + 1


def unpack(dropped, channels):
    """Mask of `packed_blocks` -> int32 `(batch, height, width, channels)`, 1 where a value is dropped."""
    dropped = ops.cast(dropped, "int32")
    bits = ops.bitwise_and(ops.right_shift(ops.expand_dims(dropped, -1), ops.arange(PACKED, dtype="int32")), 1)
    return ops.reshape(bits, (-1, *ops.shape(dropped)[1:3], dropped.shape[3] * PACKED))[..., :channels]


def grow(seeds, size):
    """Grows each seed into a block of `size` x `size` bits; removes the padding of `size - 1` rows and columns."""
    reach = 1
    while reach < size:
        step = min(reach, size - reach)
        seeds = ops.bitwise_or(seeds[:, step:], seeds[:, :-step])
        seeds = ops.bitwise_or(seeds[:, :, step:], seeds[:, :, :-step])
        reach += step
    return seeds


@compiled
def packed_blocks(gaps, height, width, channels, size):
    """Mask of the dropped values: integers `(batch, height, width, words)`, one bit for each channel.

    Args:
        gaps: float `(batch, count)`, distance from each seed to the next, counted in positions where a block fits.
        height, width, channels: Shape of the feature map.
        size: Side of a block.
    """
    rows, columns = height - size + 1, width - size + 1
    words = -(-channels // PACKED)
    batch = ops.shape(gaps)[0]
    place = ops.cumsum(ops.cast(gaps, "int32"), axis=1) - 1
    # Beyond the map, the integer sum may wrap around; the float one is only rounded.
    inside = (place < rows * columns * channels) & (ops.cumsum(gaps, axis=1) < 2**30)
    channel = place % channels
    column = place // channels % columns + size - 1
    row = place // (channels * columns) + size - 1
    h, w = height + size - 1, width + size - 1
    sample = ops.expand_dims(ops.arange(batch, dtype="int32"), 1)
    index = ((sample * h + row) * w + column) * words + channel // PACKED
    index = ops.where(inside, index, 0)
    bit = ops.where(inside, ops.left_shift(ops.ones_like(channel), channel % PACKED), 0)
    seeds = ops.segment_sum(ops.reshape(bit, (-1,)), ops.reshape(index, (-1,)), batch * h * w * words)
    return ops.cast(grow(ops.reshape(seeds, (-1, h, w, words)), size), STORED)


@compiled
def count_dropped(dropped):
    """Number of the dropped values, float32 `()`."""
    dropped = ops.cast(dropped, "int32")
    count = ops.sum(sum(ops.bitwise_and(ops.right_shift(dropped, i), 1) for i in range(PACKED)))
    return ops.cast(count, "float32")


@compiled
def scale_kept(x, dropped, scale, channels):
    return x * (ops.cast(1 - unpack(dropped, channels), x.dtype) * ops.cast(scale, x.dtype))


def either(some, yes, no):
    """`yes()` if the tensor `some` is true, else `no()`."""
    if BACKEND == "jax":  # computes both: for a branch, a GPU waits until the host has read `some`
        return keras.tree.map_structure(lambda a, b: ops.where(some, a, b), yes(), no())
    return ops.cond(some, yes, no)


def multiply(x, by):
    """`by(x)`; its gradient is `by` of the upstream gradient.

    The backward pass unpacks the bits again, because a stored float mask would take as much memory as `x`.
    """
    @ops.custom_gradient
    def multiplied(x):
        def gradient(*args, upstream=None):
            if upstream is None:
                (upstream,) = args
            return by(upstream)

        return by(x), gradient

    return multiplied(x)
