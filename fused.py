"""The same figures in fewer passes over memory, where TensorFlow computes.

Set `RSAN_FUSED=0` in the environment to do without: then everything is as Keras has it.
"""

import contextlib
import os

import keras
import numpy as np
from keras import layers, ops

FUSED = keras.backend.backend() == "tensorflow" and os.environ.get("RSAN_FUSED", "1") != "0"


@contextlib.contextmanager
def unfused():
    """Without this project's kernels inside the `with`: everything is as Keras has it."""
    global FUSED
    before, FUSED = FUSED, False
    try:
        yield
    finally:
        FUSED = before


def compiled(function):
    """`function` of tensors as one kernel; XLA fuses its elementwise operations and those of its gradient."""
    if keras.backend.backend() != "tensorflow":
        return function
    import tensorflow as tf

    kernel = tf.function(function, jit_compile=True, autograph=False)
    return lambda *arguments: (kernel if FUSED else function)(*arguments)


@keras.saving.register_keras_serializable(package="rsan")
class NarrowConv2D(layers.Conv2D):
    """Keras' layer for very few channels, stride 1 and "same" padding: 2 channels to 1 leave vector units idle.

    Four neighbouring columns are taken as channels, and the kernel is spread out to match. Arguments, weights and
    figures are those of `keras.layers.Conv2D`; other strides, dilation or padding raise ValueError.
    """

    columns = 4

    def __init__(self, filters, kernel_size, padding="same", **kwargs):
        super().__init__(filters, kernel_size, padding=padding, **kwargs)
        if (self.padding, {*self.strides, *self.dilation_rate}, self.groups) != ("same", {1}, 1):
            raise ValueError('only stride 1, dilation 1, one group and padding "same"')

    def convolution_op(self, x, kernel):
        if not FUSED:
            return super().convolution_op(x, kernel)
        import tensorflow as tf

        n, taps, channels = self.columns, kernel.shape[1], kernel.shape[2]
        before = (taps - 1) // 2
        blocks = 2 * -(-(taps - 1 - before) // n) + 1
        source = np.arange(blocks * n).reshape(blocks, n, 1, 1) - blocks // 2 * n
        reaches = source - np.arange(n)[:, None] + before == np.arange(taps)
        wide = tf.einsum("bijt,rtco->rbicjo", tf.constant(reaches, kernel.dtype), kernel)
        wide = tf.reshape(wide, (-1, blocks, n * channels, n * self.filters))
        batch, height, width = tf.unstack(tf.shape(x)[:3])
        x = tf.pad(x, ((0, 0), (0, 0), (0, -width % n), (0, 0)))
        y = tf.nn.conv2d(tf.reshape(x, (batch, height, -1, n * channels)), wide, 1, "SAME")
        return tf.reshape(y, (batch, height, -1, self.filters))[:, :, :width]


@keras.saving.register_keras_serializable(package="rsan")
class BatchNormalization(layers.BatchNormalization):
    """Keras' layer; on TensorFlow, its mean, variance and scaling are one operation instead of ten.

    Arguments, weights and figures are those of `keras.layers.BatchNormalization`, over the last axis, with both
    scale and centre, and without `mask`.
    Input and output: float tensor `(batch, height, width, channels)`.
    """

    def build(self, input_shape):
        super().build(input_shape)
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            # Several devices that share a batch share its statistics too.
            self.synchronized = tf.distribute.get_strategy().num_replicas_in_sync > 1

    def call(self, x, training=False):
        if not FUSED or (training and self.synchronized):
            return super().call(x, training=training)
        import tensorflow as tf

        gamma, beta = ops.convert_to_tensor(self.gamma), ops.convert_to_tensor(self.beta)
        if not (training and self.trainable):
            y, _, _ = tf.compat.v1.nn.fused_batch_norm(
                x, gamma, beta, ops.convert_to_tensor(self.moving_mean), ops.convert_to_tensor(self.moving_variance),
                epsilon=self.epsilon, is_training=False,
            )
            return y
        y, mean, variance = tf.compat.v1.nn.fused_batch_norm(x, gamma, beta, epsilon=self.epsilon)
        # TensorFlow's variance is the unbiased one, Keras' is not.
        pixels = ops.cast(ops.size(x) / x.shape[-1], "float32")
        m = self.momentum
        self.moving_mean.assign(self.moving_mean * m + mean * (1 - m))
        self.moving_variance.assign(self.moving_variance * m + variance * ((pixels - 1) / pixels) * (1 - m))
        return y
