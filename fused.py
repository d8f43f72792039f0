"""Faster versions of Keras layers: the same results with fewer passes over memory, and on JAX a faster gradient.

The environment variable `RSAN_FUSED=0` or the context `with unfused():` switches them off; then Keras' own layers
compute everything.
"""

import contextlib
import os

# TensorFlow reads this on import. oneDNN halves the time of a training step on processors where TensorFlow
# does not use it by default (those without VNNI or AMX). A value set by the user is kept.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# isort: split
import keras
import numpy as np
from keras import layers, ops

FUSED = os.environ.get("RSAN_FUSED", "1") != "0"
BACKEND = keras.backend.backend()


@contextlib.contextmanager
def unfused():
    """In this context, layers compute as Keras' own layers do. Functions compiled before are not changed."""
    global FUSED
    before, FUSED = FUSED, False
    try:
        yield
    finally:
        FUSED = before


def compiled(function):
    """`function` of tensors as one kernel: XLA fuses its elementwise operations and those of its gradient.

    For training only: export formats do not support such kernels, and each new image size needs a compilation.
    """
    if BACKEND != "tensorflow":
        return function
    import tensorflow as tf

    kernel = tf.function(function, jit_compile=True, autograph=False)
    return lambda *arguments: (kernel if FUSED else function)(*arguments)


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
class NarrowConv2D(layers.Conv2D):
    """Conv2D for very few channels, stride 1 and "same" padding.

    With 2 input channels and 1 output channel, Keras' own convolution uses only a small part of the vector units. Here,
    four neighbouring columns are treated as channels, with a kernel rearranged to match. Arguments, weights and
    results are those of `keras.layers.Conv2D`, except that `padding` is "same" by default. Keras computes all other
    strides, dilations, groups, paddings and data formats.
    """

    columns = 4

    def __init__(self, filters, kernel_size, strides=1, padding="same", **kwargs):
        super().__init__(filters, kernel_size, strides, padding, **kwargs)

    def convolution_op(self, x, kernel):
        usual = (self.padding, self.data_format, {*self.strides, *self.dilation_rate}, self.groups, len(x.shape))
        if not FUSED or BACKEND != "tensorflow" or usual != ("same", "channels_last", {1}, 1, 4):
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

    def build(self, input_shape):
        super().build(input_shape)
        if BACKEND == "tensorflow":
            import tensorflow as tf

            # Devices that share a batch must share its statistics too.
            self.asked_synchronized = self.synchronized
            self.synchronized |= tf.distribute.get_strategy().num_replicas_in_sync > 1

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

    def get_config(self):
        # The saved layer may be loaded on another number of devices: save what the user asked for.
        return {**super().get_config(), "synchronized": getattr(self, "asked_synchronized", self.synchronized)}
