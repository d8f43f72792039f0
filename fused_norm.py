"""Batch normalization in TensorFlow's one fused operation instead of Keras' ten: the same figures, sooner."""

import keras
from keras import layers, ops


@keras.saving.register_keras_serializable(package="rsan")
class BatchNormalization(layers.BatchNormalization):
    """Keras' layer; while training on TensorFlow, mean, variance and scaling are one operation.

    Arguments, weights and figures are those of `keras.layers.BatchNormalization` (no `mask`, no `renorm`).
    Input and output: float tensor `(batch, height, width, channels)`.
    """

    def call(self, x, training=False):
        if keras.backend.backend() != "tensorflow" or not (training and self.trainable):
            return super().call(x, training=training)
        import tensorflow as tf

        y, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            x, ops.convert_to_tensor(self.gamma), ops.convert_to_tensor(self.beta), epsilon=self.epsilon
        )
        # TensorFlow's variance is the unbiased one, Keras' is not.
        pixels = ops.cast(ops.size(x) / x.shape[-1], "float32")
        m = self.momentum
        self.moving_mean.assign(self.moving_mean * m + mean * (1 - m))
        self.moving_variance.assign(self.moving_variance * m + variance * ((pixels - 1) / pixels) * (1 - m))
        return y
