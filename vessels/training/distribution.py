"""Training on several devices or machines, by the backend's own engine: `tf.distribute` or `keras.distribution`.

A batch is divided evenly, batch normalization uses the statistics of the whole batch, and the gradients of all parts
are summed, so that the result is that of one device. The exception is DropBlock on TensorFlow: each device draws its
own blocks, and rescales its part of the batch by itself.
"""

import contextlib
import dataclasses
import json
import os
import re
import zlib

import keras

from vessels import UserError
from vessels.training.rendezvous import address, meet

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf


@dataclasses.dataclass
class Engine:
    """The devices and processes of a run.

    Attributes:
        strategy: A `tf.distribute.Strategy`, or None.
        replicas: Number of devices that share a batch, in all processes.
        workers, worker: Number of processes, and the index of this one.
    """

    strategy: object = None
    replicas: int = 1
    workers: int = 1
    worker: int = 0

    @property
    def chief(self):
        """Whether this process validates and writes files."""
        return self.worker == 0

    def scope(self):
        """The context in which to build and compile a network."""
        return self.strategy.scope() if self.strategy else contextlib.nullcontext()

    def adapt(self, model):
        """Returns the new `model` in a form that this engine can train."""
        return MultiWorkerModel(model.inputs, model.outputs, name=model.name) if self.workers > 1 else model

    def part_random_streams(self, states):
        """Makes the random streams of the replicas differ; all replicas start with the same ones."""
        if self.strategy:
            for state in states:
                local = self.strategy.experimental_local_results(state.value)
                for i, copy in enumerate(local):
                    copy.assign_add([self.worker * len(local) + i, 0])

    def agree(self, run):
        """Raises UserError unless all workers give the same `run`, a str that describes flags and checkpoint."""
        if self.workers > 1:
            sums = self.strategy.gather(keras.ops.convert_to_tensor([zlib.crc32(run.encode())], "int64"), axis=0)
            if len(set(sums.numpy())) > 1:
                raise UserError("the workers have different flags, or see different checkpoints: give all of them the "
                                "same command, and an --output-dir on a disk that they share")


class MultiWorkerModel(keras.Model):
    """Replaces two steps of `fit` that fail in Keras 3.15 if each worker has one device."""

    def train_step(self, data):
        # Keras averages the workers' metrics along an axis that scalars do not have.
        return {name: keras.ops.reshape(value, (1,)) for name, value in super().train_step(data).items()}

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        # Keras builds the metrics with a mean over the workers' batches, which fails.
        with self.distribute_strategy.scope():
            self._symbolic_build(data_batch=(self.inputs[0], self.outputs[0]))


def start(name, batches):
    """Starts the engine `name`: "mirrored", "multiworker", or None for one device. Call it before any computation.

    Raises:
        UserError: The backend or TF_CONFIG does not allow it, or a batch size in `batches` cannot be divided
            evenly among the devices.
    """
    backend = keras.backend.backend()
    if name is None:
        return Engine()
    if backend == "tensorflow":
        engine = start_tensorflow(name)
    elif backend == "jax" and name == "mirrored":
        devices = keras.distribution.list_devices()
        keras.distribution.set_distribution(keras.distribution.DataParallel(devices=devices))
        engine = Engine(replicas=len(devices))
    else:
        raise UserError(f"--strategy {name} does not work on {backend}; set KERAS_BACKEND=tensorflow")
    for batch in batches:
        if batch % engine.replicas:
            raise UserError(f"{engine.replicas} devices cannot share a batch of {batch} evenly; choose --batch-size")
    return engine


def start_tensorflow(name):
    if name == "mirrored":
        strategy = tf.distribute.MirroredStrategy()
        return Engine(strategy, strategy.num_replicas_in_sync)
    try:
        config = json.loads(os.environ.get("TF_CONFIG", ""))
        workers, task = config["cluster"]["worker"], config["task"]
        if set(config["cluster"]) != {"worker"} or task["type"] != "worker" or not 0 <= task["index"] < len(workers):
            raise ValueError
        for worker in workers:
            address(worker)
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError("--strategy multiworker needs TF_CONFIG, the same on all machines except for the index: "
                        '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}') from None
    print(f"worker {task['index']} of {len(workers)}", flush=True)
    meet(workers, task["index"])
    with lost_workers():
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    return Engine(strategy, strategy.num_replicas_in_sync, len(workers), task["index"])


@contextlib.contextmanager
def lost_workers():
    """Turns TensorFlow's errors into a UserError."""
    try:
        yield
    except tf.errors.OpError as error:
        # The reason is in the last paragraph, after the place in the graph.
        reason = re.sub(r"{{.*?}} ?", "", str(error.message).strip().split("\n\n")[-1].splitlines()[0])
        raise UserError(f"TensorFlow stopped: {type(error).__name__}, {reason}; if a worker is gone, repeat the "
                        "commands of all workers: they resume from the last complete epoch") from None
