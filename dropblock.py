"""DropBlock (Ghiasi et al., NeurIPS 2018, arXiv:1810.12890), as RSAN uses it after each 3x3 convolution."""

import math

from fused import Setting, compiled  # first: sets what TensorFlow reads on import

# isort: split
import keras
from keras import layers, ops

# The masks of this many channels share one int32. A bit is 1 where a value is dropped.
PACKED = 16
# TensorFlow keeps int32 in the host's memory, also between kernels of a GPU.
STORED = "uint32" if keras.config.backend() == "tensorflow" else "int32"


def unpack(dropped, channels):
    """Mask of `blocks` -> int32 `(batch, height, width, channels)`, 1 where a value is dropped."""
    dropped = ops.cast(dropped, "int32")
    bits = ops.bitwise_and(ops.right_shift(ops.expand_dims(dropped, -1), ops.arange(PACKED, dtype="int32")), 1)
    return ops.reshape(bits, (-1, *ops.shape(dropped)[1:3], dropped.shape[3] * PACKED))[..., :channels]


def dilate(seeds, size):
    """Grows each seed into a block of `size` x `size` bits; removes the padding of `size - 1` rows and columns."""
    reach = 1
    while reach < size:
        step = min(reach, size - reach)
        seeds = ops.bitwise_or(seeds[:, step:], seeds[:, :-step])
        seeds = ops.bitwise_or(seeds[:, :, step:], seeds[:, :, :-step])
        reach += step
    return seeds


@compiled
def blocks(gaps, height, width, channels, size):
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
    return ops.cast(dilate(ops.reshape(seeds, (-1, h, w, words)), size), STORED)


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
    if keras.config.backend() == "jax":  # computes both: for a branch, a GPU waits until the host has read `some`
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


@keras.saving.register_keras_serializable(package="rsan")
class DropBlock2D(layers.Layer):
    """Sets square blocks of a feature map to zero in training; does nothing in prediction.

    Each position where a whole block fits starts a block with probability `gamma`, independently
    in each channel, so that about `1 - keep_prob` of the values become zero. The other values are
    multiplied by `count / sum(mask)` of the whole batch, which keeps the mean unchanged.

    Args:
        keep_prob: Fraction of the values to keep, in (0, 1]. The attribute may be changed between calls, but a
            compiled training function must then be made again; `rsan_model.set_stage` avoids that.
        block_size: Side of a block in pixels of the feature map.
        sync_channels: Drop the same blocks in all channels.
        seed: Integer seed of the layer's random stream, or None.

    Input and output: float tensor `(batch, height, width, channels)`; height and width may be unknown until the
    layer runs. In training, a map smaller than a block raises ValueError, unless `keep_prob` is 1 and
    `rsan_model.set_stage` was never called. If a compiled TensorFlow function learns the size only when it runs, it
    raises `tf.errors.InvalidArgumentError` instead.

    Example:
        >>> DropBlock2D(0.85)(keras.ops.ones((2, 64, 64, 16)), training=True).shape
        (2, 64, 64, 16)
    """

    setting = None

    def __init__(self, keep_prob, block_size=7, sync_channels=False, seed=None, **kwargs):
        super().__init__(**kwargs)
        self.keep_prob = keep_prob
        if block_size < 1:
            raise ValueError(f"block_size must be at least 1, got {block_size}")
        self.block_size = block_size
        self.sync_channels = sync_channels
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    @property
    def keep_prob(self):
        return self.setting.number

    @keep_prob.setter
    def keep_prob(self, value):
        if not 0 < value <= 1:
            raise ValueError(f"keep_prob must be in (0, 1], got {value}")
        if self.setting is None:
            self.setting = Setting(value)
        self.setting.assign(value)

    def call(self, inputs, training=False):
        changes = self.setting.variable is not None
        if not training or (self.keep_prob == 1 and not changes):
            return inputs
        keep_prob = self.setting.read()
        batch, height, width = ops.shape(inputs)[:3]
        height = self._checked(height, width)
        shape = batch, height, width, 1 if self.sync_channels else inputs.shape[-1]
        u, gamma = self._draw(keep_prob, *shape)
        if not changes:
            dropped, scale = self._dropped(u, gamma, shape)
            return multiply(inputs, lambda x: scale_kept(x, dropped, scale, shape[3]))
        some = keep_prob < 1
        none = ops.zeros((*shape[:3], -(-shape[3] // PACKED)), STORED), ops.ones(())
        dropped, scale = either(some, lambda: self._dropped(u, gamma, shape), lambda: none)
        return multiply(inputs, lambda x: either(some, lambda: scale_kept(x, dropped, scale, shape[3]), lambda: x))

    def _checked(self, height, width):
        """`height`, once both sides are known to hold a block."""
        message = f"DropBlock's blocks of {self.block_size} are larger than the map: train on larger images"
        if not isinstance(height * width, int):
            import tensorflow as tf

            # TensorFlow orders only stateful operations: the draw must wait for this check.
            check = tf.debugging.assert_greater_equal(ops.minimum(height, width), self.block_size, message)
            with tf.control_dependencies([check]):
                return tf.identity(height)
        if min(height, width) < self.block_size:
            raise ValueError(f"{message}, or with a smaller block_size; got {height}x{width}")
        return height

    def _draw(self, keep_prob, batch, height, width, channels):
        """`(u, gamma)`: a random number in [0, 1) for each possible seed, `(batch, count)`, and their probability."""
        b = self.block_size
        area, places = height * width, (height - b + 1) * (width - b + 1)
        ceil = math.ceil
        if not isinstance(area, int):  # a tensor: the size is known only when the layer runs
            ceil = lambda x: ops.cast(ops.ceil(x), "int32")  # noqa: E731
            area, places = ops.cast(area, "float32"), ops.cast(places, "float32")

        def gamma(keep_prob):
            return (1 - keep_prob) / b**2 * area / places

        # The number of seeds practically never exceeds its mean by more than six standard deviations.
        expected = places * channels * gamma(self.setting.least if self.setting.variable is not None else keep_prob)
        count = ceil(expected + 6 * expected**0.5 + 6)
        return keras.random.uniform((batch, count), seed=self.seed_generator), gamma(keep_prob)

    def _dropped(self, u, gamma, shape):
        """`(dropped, scale)`: the mask as `blocks` returns it, and the factor for the values that are kept."""
        batch, height, width, channels = shape
        b = self.block_size
        trials = (height - b + 1) * (width - b + 1) * channels
        # Clipped so that the logarithm is finite and not zero in float32.
        if isinstance(gamma, float):
            log = math.log1p(-min(gamma, 1 - 2**-24))
        else:
            log = ops.log1p(-ops.clip(gamma, 2**-60, 1 - 2**-24))
        # The gaps between successes of Bernoulli trials are geometrically distributed. Drawing gaps makes the cost
        # proportional to the number of seeds, not of positions. Longer gaps than the map are cut.
        gaps = ops.minimum(ops.floor(ops.log1p(-u) / log), trials) + 1
        dropped = blocks(gaps, height, width, channels, b)
        count = ops.cast(batch, "float32") * ops.cast(height * width * channels, "float32")
        return dropped, count / ops.maximum(count - count_dropped(dropped), 1)

    def get_config(self):
        return {
            **super().get_config(),
            "keep_prob": self.keep_prob,
            "block_size": self.block_size,
            "sync_channels": self.sync_channels,
            "seed": self.seed,
        }
