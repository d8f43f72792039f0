"""A small training run as a process of its own: `tiny_training.py DEVICES FLAGS...` (TensorFlow: logical CPUs)."""

import dataclasses
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from vessels.data import datasets
from vessels.training import recipe

import rsan_model

# The authors' recipe, as it compiles but one training step.
FLAGS = ["--synthetic", "--recipe", "authors", "--epochs", "3", "--batch-size", "4", "--learning-rate", "1e-4"]


def build(**arguments):
    return rsan_model.build_rsan(filters=4, **arguments)


def main(devices, flags):
    import keras

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * devices)
    tiny = dataclasses.replace(datasets.DRIVE, size=(60, 70), padded=72)
    return recipe.main(tiny, build, recipe.Recipe(), {}, __doc__, FLAGS + flags)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
