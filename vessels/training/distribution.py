"""Training on all devices of a machine, by the backend's own engine: `tf.distribute` or `keras.distribution`.

A batch is divided evenly, batch normalization uses the statistics of the whole batch, and the gradients of all parts
are summed, so that the result is that of one device. The exception is DropBlock on TensorFlow: each device draws its
own blocks, and rescales its part of the batch by itself.
"""

import contextlib
import dataclasses

import keras

from vessels import UserError


@dataclasses.dataclass
class Engine:
    """`replicas`: the number of devices that share a batch; `strategy`: TensorFlow's `MirroredStrategy`, or None."""

    replicas: int = 1
    strategy: object = None

    def scope(self):
        """The context in which to build and compile a network."""
        return self.strategy.scope() if self.strategy else contextlib.nullcontext()

    def part_random_streams(self, states):
        """Makes the random streams of the replicas differ; all replicas start with the same ones."""
        if self.strategy:
            for state in states:
                for i, copy in enumerate(self.strategy.experimental_local_results(state.value)):
                    copy.assign_add([i, 0])


def start(name, batches):
    """The `Engine` for all devices if `name` is "mirrored", for one if None. Call it before any computation.

    Raises:
        UserError: The backend does not allow it, or a size in `batches` cannot be divided evenly among the devices.
    """
    backend = keras.backend.backend()
    if name is None:
        return Engine()
    if backend == "tensorflow":
        import tensorflow as tf

        strategy = tf.distribute.MirroredStrategy()
        engine = Engine(strategy.num_replicas_in_sync, strategy)
    elif backend == "jax":
        keras.distribution.set_distribution(keras.distribution.DataParallel())
        engine = Engine(len(keras.distribution.list_devices()))
    else:
        raise UserError(f"--strategy {name} does not work on {backend}; set KERAS_BACKEND=tensorflow")
    for batch in batches:
        if batch % engine.replicas:
            raise UserError(f"{engine.replicas} devices cannot share a batch of {batch} evenly; choose --batch-size")
    return engine
