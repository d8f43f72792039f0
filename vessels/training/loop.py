"""The training loop."""

import contextlib
import dataclasses
import json
import math
import sys
import time

import keras
import numpy as np

from vessels import UserError
from vessels.data import augmentation, whole_images
from vessels.files import write_atomically
from vessels.metrics import best_threshold, score
from vessels.prediction.maps import predict_image, predict_photograph
from vessels.record import finished, write_record
from vessels.report import plots
from vessels.training import distribution
from vessels.training.run_folder import (
    describe,
    lock_run,
    random_states,
    resume,
    resume_optimizer,
    save_weights,
    write_history,
)
from vessels.training.schedules import loss_of, phases, stage_callback

from pretrained import weights_file


def train(dataset, network, recipe, data, run_dir, strategy=None):
    """Starts the run in `run_dir`, or resumes it, trains to the end, and writes `final.weights.h5` with its JSON.

    `network` is a `Network`, `data` is the result of `config.read`, `strategy` is as in `distribution.start`.
    If there are several workers, only the chief writes.
    """
    facts, examples, validation = data.facts, data.train, data.validation
    data = batches_of(recipe, dataset, examples)
    rest = len(data.images) % recipe.batch_size if recipe.whole_images else 0
    engine = distribution.start(strategy, [recipe.batch_size, rest])
    seen = validation
    if dataset.general:
        seen = [augmentation.scaled(example, dataset.widths.diameters[0]) for example in validation]
    config = {
        "dataset": dataset.name, **dataclasses.asdict(recipe), "loss": loss_of(recipe).__name__,
        "augmentation": dataclasses.asdict(data.strength) if data.strength else None,
        "model": network.arguments(recipe),
        "backend": keras.backend.backend(), **facts,
    }
    keras.utils.set_random_seed(recipe.seed)
    keras.config.set_dtype_policy("mixed_bfloat16" if recipe.mixed_precision else "float32")
    with distribution.lost_workers() if engine.workers > 1 else contextlib.nullcontext():
        with engine.scope():
            model = engine.adapt(built(network, config["model"], recipe))
        if engine.chief:
            lock = lock_run(run_dir)
            describe(run_dir, config, {"strategy": strategy, "replicas": engine.replicas})
        with engine.scope():
            history = resume(model, run_dir)
            engine.part_random_streams(random_states(model))
        engine.agree(json.dumps([config, history]))
        if len(history) < recipe.epochs:
            named = f"{dataset.title}, {dataset.name}" if dataset.general else dataset.title
            print(f"{named}: {len(examples)} images, {model.count_params():,} parameters, "
                  f"epochs {len(history) + 1} to {recipe.epochs} of {len(data)} steps, in {run_dir}", flush=True)
        callbacks = [EpochCallback(recipe, run_dir, dataset, seen, history, model, config)] * engine.chief
        fit(model, data, recipe, history, run_dir, engine, callbacks, network.set_stage)
    if engine.chief:
        finish(run_dir, dataset, recipe, history, config, model, validation)
        lock.release()


def built(network, arguments, recipe):
    """The model that `network` builds with `arguments`, with the weights from which it starts, if any."""
    try:
        model = network.build(**arguments)
    except (TypeError, ValueError) as error:
        raise UserError(f"the network cannot be built: {error}") from None
    try:
        if recipe.start:
            network.load_weights(model, weights_file(recipe.start))
    except ValueError as error:
        raise UserError(f"{error}; name other weights with --start") from None
    return model


def fit(model, data, recipe, history, run_dir, engine, callbacks, set_stage):
    """Trains the phases that are not yet complete in `history`, each with a new optimizer."""
    callbacks = [LossCallback(run_dir), *callbacks]
    if not recipe.whole_images:
        callbacks.append(stage_callback(recipe, set_stage))
    done = len(history)  # only the chief adds rows to `history`
    for first, end, rate in phases(recipe, len(data)):
        if done >= end:
            continue
        with engine.scope():
            # With "auto", Keras uses no XLA on a CPU, where XLA's convolutions are several times slower than oneDNN's,
            # nor with tf.distribute, whose training step XLA cannot compile (keras-team/keras#17187).
            model.compile(keras.optimizers.Adam(rate), loss=loss_of(recipe), metrics=["accuracy"], jit_compile="auto")
            if done > first:
                resume_optimizer(model, run_dir)
        data.epoch = done
        model.fit(data, initial_epoch=done, epochs=end, callbacks=callbacks, shuffle=False,
                  verbose=1 if sys.stdout.isatty() else 2)
        done = end


def batches_of(recipe, dataset, examples):
    if recipe.whole_images:
        strength = whole_images.Versions() if recipe.recipe == "augmented" else None
        return whole_images.WholeImages(examples, dataset.padded, recipe.batch_size, recipe.seed, strength=strength)
    kind = augmentation.AnyCameraPatches if recipe.recipe == "any" else augmentation.Patches
    return kind(examples, recipe.patch_size, recipe.batch_size, recipe.steps_per_epoch, recipe.seed)


class LossCallback(keras.callbacks.Callback):
    """Stops a run whose loss becomes NaN or infinite."""

    def __init__(self, run_dir):
        super().__init__()
        self.run_dir = run_dir

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch + 1

    def on_train_batch_end(self, batch, logs=None):
        if not math.isfinite(logs["loss"]):
            latest = self.run_dir / "latest.weights.h5"
            kept = f"; the last good checkpoint is {latest}" * latest.exists()
            raise UserError(f"the loss is {logs['loss']} in epoch {self.epoch}{kept}; try a lower --learning-rate with "
                            "another --output-dir")


class EpochCallback(keras.callbacks.Callback):
    """Each epoch: validation, weights, history and checkpoint; every fifth epoch, a panel of a validation image."""

    def __init__(self, recipe, run_dir, dataset, validation, history, model, config):
        super().__init__()
        self.recipe, self.run_dir, self.dataset = recipe, run_dir, dataset
        self.validation, self.history, self.config = validation, history, config
        # A model without the optimizer, which predicts on one device with any engine.
        self.network = keras.Model(model.inputs, model.outputs)

    def on_epoch_begin(self, epoch, logs=None):
        self.began = time.time()

    def on_epoch_end(self, epoch, logs=None):
        seconds = time.time() - self.began
        maps = [predict_image(self.network, example.image, self.dataset.padded) for example in self.validation]
        labels, fovs = ([getattr(example, name) for example in self.validation] for name in ("label", "fov"))
        result = score(*(np.concatenate(arrays, axis=None) for arrays in (maps, labels, fovs)))
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
        print(f"epoch {epoch + 1}, validation inside the field of view: AUC {row['val_auc']:.4f}  "
              f"F1 {row['val_f1']:.4f}", flush=True)
        self.history.append(row)
        save_weights(self.network, self.run_dir / "final.weights.h5")
        write_record(self.run_dir, self.dataset, self.recipe, self.history, self.config, self.model.count_params())
        save_weights(self.model, self.run_dir / "latest.weights.h5", self.history)
        if epoch % 5 == 4 or epoch + 1 == self.recipe.epochs:
            picture = plots.panel(self.validation[0], maps[0])
            write_atomically(self.run_dir / "previews" / f"epoch_{epoch + 1:03d}.png", picture)
        write_history(self.run_dir, self.history)


def threshold_of(model, dataset, validation):
    """The general network's threshold for the record, from maps of validation images; None for other networks.

    The threshold of the other networks is 0.5, as in the paper.
    """
    if not dataset.general:
        return None
    maps = [predict_photograph(model, example.image, dataset.widths, fov=example.fov).probability
            for example in validation]
    return best_threshold(validation, maps)


def finish(run_dir, dataset, recipe, history, config, model, validation):
    """Completes the record, and prints how to score the weights."""
    weights = run_dir / "final.weights.h5"
    if not finished(weights):
        write_history(run_dir, history)
        threshold = threshold_of(model, dataset, validation)
        write_record(run_dir, dataset, recipe, history, config, model.count_params(), True, threshold)
    print(f"weights of epoch {history[-1]['epoch']} in {weights}\nscore them: python {dataset.eval_command(weights)}")
