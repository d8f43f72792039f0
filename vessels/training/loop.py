"""The training loop."""

import contextlib
import dataclasses
import io
import json
import math
import sys
import time

import keras
import numpy as np

from vessels import UserError
from vessels.data import batches
from vessels.files import write_atomically
from vessels.metrics import score
from vessels.prediction.maps import predict_image
from vessels.record import write_record
from vessels.report import plots
from vessels.training import distribution
from vessels.training.learning import phases, stage_callback, weighted_crossentropy
from vessels.training.runs import (
    describe,
    lock_run,
    random_states,
    resume,
    resume_optimizer,
    save_weights,
    write_history,
)


def train(dataset, build, recipe, data, run_dir, strategy=None):
    """Trains to the end, from where `run_dir` stands, and writes `best.weights.h5` with its JSON.

    `data` as `recipe.read` returns it, `strategy` as in `distribution.start`; of several workers, only the chief
    writes.
    """
    examples, validation, checksums = data
    rest = len(examples) % recipe.batch_size if recipe.recipe == "authors" else 0
    engine = distribution.start(strategy, [recipe.batch_size, rest])
    if engine.chief:
        lock = lock_run(run_dir)
        describe(run_dir, dataset, recipe, {"strategy": strategy, "replicas": engine.replicas})
    keras.utils.set_random_seed(recipe.seed)
    keras.config.set_dtype_policy("mixed_bfloat16" if recipe.mixed_precision else "float32")
    data = batches_of(recipe, dataset, examples)
    with distribution.lost_workers() if engine.workers > 1 else contextlib.nullcontext():
        with engine.scope():
            model = engine.adapt(build(keep_prob=recipe.keep_prob, variant=recipe.variant))
            history = resume(model, run_dir)
            engine.part_random_streams(random_states(model))
        engine.agree(json.dumps([dataclasses.asdict(recipe), history]))
        if len(history) < recipe.epochs:
            print(f"{dataset.title}: {len(examples)} images, {model.count_params():,} parameters, "
                  f"epochs {len(history) + 1} to {recipe.epochs} of {len(data)} steps, in {run_dir}", flush=True)
            callbacks = [EpochCallback(recipe, run_dir, dataset, validation, history, model, engine.chief)]
            if recipe.recipe != "authors":
                callbacks.append(stage_callback(recipe))
        for first, end, rate in phases(recipe, len(data)):
            if len(history) >= end:
                continue
            with engine.scope():
                compile_step(model, recipe, rate, strategy)
                if len(history) > first:
                    resume_optimizer(model, run_dir)
            data.epoch = len(history)
            model.fit(data, initial_epoch=len(history), epochs=end, callbacks=callbacks, shuffle=False,
                      verbose=1 if sys.stdout.isatty() else 2)
    if engine.chief:
        finish(run_dir, dataset, recipe, history, checksums, model)
        lock.close()


def batches_of(recipe, dataset, examples):
    if recipe.recipe == "authors":
        return batches.WholeImages(examples, dataset.padded, recipe.batch_size, recipe.seed)
    return batches.Patches(examples, recipe.patch_size, recipe.batch_size, recipe.steps, recipe.seed)


def compile_step(model, recipe, rate, strategy):
    model.compile(
        keras.optimizers.Adam(rate),
        loss=weighted_crossentropy(recipe.vessel_weight),
        metrics=["accuracy"],
        # XLA's convolutions are several times slower than oneDNN's on a processor, and it cannot compile
        # what tf.distribute does in a step (keras-team/keras#17187).
        jit_compile="auto" if keras.backend.backend() != "tensorflow" or (on_gpu() and not strategy) else False,
    )


def on_gpu():
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


class EpochCallback(keras.callbacks.Callback):
    """After each epoch: validation, weights, history and checkpoint; every fifth, an early look."""

    def __init__(self, recipe, run_dir, dataset, validation, history, model, chief=True):
        super().__init__()
        self.recipe, self.run_dir, self.dataset, self.chief = recipe, run_dir, dataset, chief
        self.validation, self.history = validation, history
        # Without the optimizer, and on one device whatever the engine.
        self.network = keras.Model(model.inputs, model.outputs)

    def on_epoch_begin(self, epoch, logs=None):
        self.began, self.epoch = time.time(), epoch + 1

    def on_train_batch_end(self, batch, logs=None):
        if not math.isfinite(logs["loss"]):
            latest = self.run_dir / "latest.weights.h5"
            raise UserError(f"the loss is {logs['loss']} in epoch {self.epoch}; the last good checkpoint is {latest}: "
                            "try a lower --learning-rate in another --output-dir")

    def on_epoch_end(self, epoch, logs=None):
        if not self.chief:
            return
        seconds = time.time() - self.began
        maps = [predict_image(self.network, example.image, self.dataset.padded) for example in self.validation]
        labels, fovs = (np.stack([getattr(example, name) for example in self.validation]) for name in ("label", "fov"))
        result = score(np.stack(maps), labels, where=fovs)
        layers = self.model.layers
        row = {
            "epoch": epoch + 1,
            "loss": logs["loss"],
            "accuracy": logs["accuracy"],
            "val_auc": result["auc"],
            "val_f1": result["f1"],
            "learning_rate": float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)),
            "keep_prob": next((layer.keep_prob for layer in layers if hasattr(layer, "keep_prob")), 1),
            "seconds": round(seconds, 2),
        }
        print(f"validation inside the field of view: AUC {row['val_auc']:.4f}  F1 {row['val_f1']:.4f}", flush=True)
        self.history.append(row)
        save_weights(self.network, self.run_dir / "best.weights.h5")
        save_weights(self.model, self.run_dir / "latest.weights.h5", self.history)
        if epoch % 5 == 4 or epoch + 1 == self.recipe.epochs:
            picture = io.BytesIO()
            plots.panel(self.validation[0], maps[0]).save(picture, "PNG")
            write_atomically(self.run_dir / "look" / f"epoch_{epoch + 1:03d}.png", picture.getvalue())
        write_history(self.run_dir, self.history)


def finish(run_dir, dataset, recipe, history, checksums, model):
    """Writes best.json, and says how to score the weights."""
    write_history(run_dir, history)  # a run may have been killed between its last checkpoint and this
    write_record(run_dir, dataset, recipe, history, checksums, model.count_params())
    weights = run_dir / "best.weights.h5"
    command = f"python eval_{dataset.key}.py" + " --synthetic" * recipe.synthetic
    if recipe.variant != "rsan":
        command += f" --variant {recipe.variant}"
    if recipe.seed:
        command += f" --seed {recipe.seed}"
    print(f"weights of epoch {history[-1]['epoch']} in {weights}\n"
          f"score them: {command} --weights {weights}")
