"""Training on all devices of a machine, by the backend's own engine: `tf.distribute` or `keras.distribution`.

A batch is divided evenly, batch normalization uses the statistics of the whole batch, and the gradients of all parts
are summed, so that the result is that of one device. The exception is DropBlock on TensorFlow: each device draws its
own blocks, and rescales its part of the batch by itself.
"""

import contextlib

import keras

from vessels import UserError

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf


def start(name, batches):
    """Prepares all devices if `name` is "mirrored", one if None. Call it before any computation.

    Returns:
        `(scope, devices)`: `scope()` is the context in which to build and compile a network; the number of devices.

    Raises:
        UserError: The backend does not allow it, or a size in `batches` cannot be divided evenly among the devices.
    """
    backend = keras.backend.backend()
    if name is None:
        return contextlib.nullcontext, 1
    if backend == "tensorflow":
        strategy = tf.distribute.MirroredStrategy()
        scope, devices = strategy.scope, strategy.num_replicas_in_sync
    elif backend == "jax":
        keras.distribution.set_distribution(keras.distribution.DataParallel())
        scope, devices = contextlib.nullcontext, len(keras.distribution.list_devices())
    else:
        raise UserError(f"--strategy {name} does not work on {backend}; set KERAS_BACKEND=tensorflow")
    for batch in batches:
        if batch % devices:
            raise UserError(f"{devices} devices cannot share a batch of {batch} evenly; choose --batch-size")
    return scope, devices


def part_random_streams(states):
    """Makes the random streams of TensorFlow's devices differ, within their scope; all start with the same ones."""
    if keras.backend.backend() == "tensorflow":
        for state in states:
            for i, copy in enumerate(tf.distribute.get_strategy().experimental_local_results(state.value)):
                copy.assign_add([i, 0])
