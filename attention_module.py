"""Spatial attention of CBAM (Woo et al., ECCV 2018, arXiv:1807.06521), as RSAN uses it."""

from fused import compiled  # first: sets what TensorFlow reads on import

# isort: split
import keras
from keras import layers, ops


def mean_and_maximum(x):
    return ops.concatenate([ops.mean(x, axis=-1, keepdims=True), ops.max(x, axis=-1, keepdims=True)], axis=-1)


compiled_mean_and_maximum = compiled(mean_and_maximum)


@keras.saving.register_keras_serializable(package="rsan")
class SpatialAttention(layers.Layer):
    """Multiplies every position of a feature map by a weight between 0 and 1.

    The channel mean and the channel maximum are concatenated. A convolution without bias
    and a sigmoid turn them into one attention map, by which every channel is multiplied.

    Args:
        kernel_size: Side of the convolution window, in pixels of the feature map.

    Input and output: float tensor `(batch, height, width, channels)`.

    Example:
        >>> SpatialAttention()(keras.ops.ones((1, 32, 32, 16))).shape
        (1, 32, 32, 16)

    Reference: Guo et al., ICONIP 2020, arXiv:2009.08829, figure of spatial attention (SA).
    """

    def __init__(self, kernel_size=7, **kwargs):
        super().__init__(**kwargs)
        self.kernel_size = kernel_size
        self.conv = layers.Conv2D(
            1,
            kernel_size,
            padding="same",
            use_bias=False,
            kernel_initializer="he_normal",
            activation="sigmoid",
            data_format="channels_last",
            dtype=self.dtype_policy,
        )

    def build(self, input_shape):
        self.conv.build((*input_shape[:-1], 2))

    def compute_output_shape(self, input_shape):
        return input_shape

    def attention(self, inputs, training=False):
        """Attention map that multiplies every channel of `inputs`: float `(batch, height, width, 1)` in [0, 1]."""
        return self.conv((compiled_mean_and_maximum if training else mean_and_maximum)(inputs))

    def call(self, inputs, training=False):
        return inputs * self.attention(inputs, training)

    def get_config(self):
        return {**super().get_config(), "kernel_size": self.kernel_size}
