"""A small network of RSAN's layers for tests of training: its step compiles in a seventh of RSAN's time."""

import keras
from keras import layers

import rsan_model
from attention_module import SpatialAttention
from dropblock import DropBlock2D
from rsan_model import load_weights, set_stage  # noqa: F401


def build(keep_prob=0.85, variant="rsan"):
    """One block of each kind, half the size of the image; arguments as those of `rsan_model.build_rsan`."""
    def drop(x):
        return x if variant == "backbone" else DropBlock2D(keep_prob)(x)

    def attend(x):
        return SpatialAttention()(x) if variant == "rsan" else x

    inputs = keras.Input((None, None, 3))
    x = layers.MaxPooling2D()(rsan_model.residual_block(inputs, 2, drop))
    x = layers.Conv2DTranspose(2, 3, strides=2, padding="same")(rsan_model.rsab(x, 2, drop, attend))
    return keras.Model(inputs, layers.Conv2D(1, 1, activation="sigmoid", dtype="float32")(x), name=variant)
