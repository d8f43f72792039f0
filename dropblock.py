"""DropBlock (Ghiasi et al., NeurIPS 2018, arXiv:1810.12890), as RSAN uses it after each 3x3 convolution."""

import fused  # first: sets what TensorFlow reads on import

# isort: split
import keras
from keras import layers, ops


def blocks(seeds, size):
    """Grows each seed into a block.

    Args:
        seeds: bool `(batch, height - size + 1, width - size + 1, channels)`, the upper left corners of the blocks.
        size: Side of a block.

    Returns:
        float32 `(batch, height, width, channels)`: 1 inside a block, else 0.
    """
    around = (size - 1, size - 1)
    seeds = ops.pad(ops.cast(seeds, "float32"), ((0, 0), around, around, (0, 0)))
    return ops.max_pool(seeds, size, strides=1, padding="valid", data_format="channels_last")


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
            self.setting = fused.Setting(value)
        self.setting.assign(value)

    def call(self, inputs, training=False):
        if not training or (self.keep_prob == 1 and self.setting.variable is None):
            return inputs
        size = self.block_size
        batch, height, width, channels = fused.shape_with_sides_of_at_least(size, inputs)
        if self.sync_channels:
            channels = 1
        rows, columns = height - size + 1, width - size + 1  # where a whole block fits

        def gamma(keep_prob):
            return (1 - keep_prob) / size**2 * fused.number(height * width) / fused.number(rows * columns)

        if fused.FUSED:
            most = gamma(self.setting.least if self.setting.variable is not None else self.keep_prob)
            count = fused.enough_seeds(fused.number(rows * columns) * channels * most)
            u = keras.random.uniform((batch, count), seed=self.seed_generator)
            return fused.drop_blocks(inputs, u, gamma(self.setting.read()), size, (height, width, channels))
        u = keras.random.uniform((batch, rows, columns, channels), seed=self.seed_generator)
        mask = 1 - blocks(u < gamma(self.setting.read()), size)
        return inputs * ops.cast(mask / ops.maximum(ops.mean(mask), 1e-7), inputs.dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {
            **super().get_config(),
            "keep_prob": self.keep_prob,
            "block_size": self.block_size,
            "sync_channels": self.sync_channels,
            "seed": self.seed,
        }
