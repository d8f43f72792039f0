"""A small training run as a process of its own: `tiny_training.py DEVICES FLAGS...` (TensorFlow: logical CPUs)."""

import dataclasses
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from vessels.data import published
from vessels.training import config

# The authors' recipe, because it compiles only one training step.
RECIPE = config.Recipe(network="small", epochs=24, steps_per_epoch=100, batch_size=16, patch_size=128, keep_prob=0.88)
FLAGS = ["--synthetic", "--recipe", "authors", "--epochs", "3", "--batch-size", "4", "--learning-rate", "1e-4"]


if __name__ == "__main__":
    import keras

    devices = int(sys.argv[1])
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * devices)
    tiny = dataclasses.replace(published.DRIVE, size=(60, 70), padded=72)
    sys.exit(config.main(tiny, RECIPE, {}, __doc__, FLAGS + sys.argv[2:]))
