"""The training loop."""

import dataclasses
import math
import sys
import time
from pathlib import Path

import keras

from vessels import UserError
from vessels.data import augmentation, whole_images
from vessels.data.examples import Example, Source
from vessels.files import write_atomically
from vessels.metrics import best_threshold, histogram, score, to_16_bit
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
from vessels.training.schedules import described, optimizer_of, phases, stage_callback, training_loss

from pretrained import weights_file


@dataclasses.dataclass
class Run:
    """A training under way.

    `recipe`: a `config.Recipe`. `description`: all that it depends on, the content of config.json. `history`: a row for
    each complete epoch.
    """

    source: Source
    recipe: object
    folder: Path
    validation: list[Example]
    description: dict
    history: list[dict]

    @property
    def weights(self):
        return self.folder / "final.weights.h5"

    def maps(self, model):
        """The maps of the validation photographs, as an evaluation predicts them: list of uint16."""
        def predict(example):
            if self.source.general:
                return predict_photograph(model, example.image, self.source.widths, fov=example.fov).probability
            return predict_image(model, example.image, self.source.padded)

        return [to_16_bit(predict(example)) for example in self.validation]

    def histograms(self, maps):
        """Those of `maps` inside the fields of view: list, see `metrics.histogram`."""
        return [histogram(values, example.label, example.fov)
                for values, example in zip(maps, self.validation, strict=True)]


def train(source, network, recipe, data, run_dir, strategy=None):
    """Starts the run in `run_dir`, or resumes it, trains to the end, and writes `final.weights.h5` with its JSON.

    `network` is a `Network`, `data` is the result of `config.read`, `strategy` is as in `distribution.start`.
    """
    batches = batches_of(recipe, source, data.train)
    rest = len(batches.images) % recipe.batch_size if recipe.whole_images else 0
    engine = distribution.start(strategy, [recipe.batch_size, rest])
    run = Run(source, recipe, run_dir, data.validation, {}, [])
    keras.utils.set_random_seed(recipe.seed)
    keras.config.set_dtype_policy("mixed_bfloat16" if recipe.mixed_precision else "float32")
    with engine.scope():
        model = built(network, recipe)
        run.description = description(run, network, batches, model, data.facts)
    with lock_run(run_dir):
        describe(run_dir, run.description, {"strategy": strategy, "replicas": engine.replicas})
        with engine.scope():
            run.history = resume(model, run_dir)
            engine.part_random_streams(random_states(model))
        if len(run.history) < recipe.epochs:
            named = f"{source.title}, {source.name}" if source.general else source.title
            print(f"{named}: {len(data.train)} images, {model.count_params():,} parameters, "
                  f"epochs {len(run.history) + 1} to {recipe.epochs} of {len(batches)} steps, in {run_dir}", flush=True)
        callbacks = [LossCallback(run_dir), EpochCallback(run, model)]
        if not recipe.whole_images:
            callbacks.append(stage_callback(recipe, network.set_stage))
        fit(run, model, batches, engine, callbacks)
        finish(run, model)


def description(run, network, batches, model, facts):
    """All that a run depends on: dict, the content of config.json, which the record repeats."""
    recipe = run.recipe
    return {
        "dataset": run.source.name, "network": recipe.network, "variant": recipe.variant,
        "model": network.arguments(recipe), "parameters": model.count_params(), "seed": recipe.seed,
        "recipe": dataclasses.asdict(recipe), **described(recipe, len(batches)),
        "augmentation": dataclasses.asdict(batches.strength) if batches.strength else None,
        "backend": keras.backend.backend(), **facts,
    }


def built(network, recipe):
    """The model of `network` for `recipe`, with the weights from which it starts, if any."""
    try:
        model = network.build(**network.arguments(recipe))
    except (TypeError, ValueError) as error:
        raise UserError(f"the network cannot be built: {error}") from None
    try:
        if recipe.start:
            network.load_weights(model, weights_file(recipe.start))
    except ValueError as error:
        raise UserError(f"{error}; name other weights with --start") from None
    return model


def fit(run, model, batches, engine, callbacks):
    """Trains the phases that are not yet complete in the history, each with a new optimizer."""
    for first, end, rate in phases(run.recipe, len(batches)):
        done = len(run.history)
        if done >= end:
            continue
        with engine.scope():
            # With "auto", Keras uses no XLA on a CPU, where XLA's convolutions are several times slower than oneDNN's,
            # nor with tf.distribute, whose training step XLA cannot compile (keras-team/keras#17187).
            model.compile(optimizer_of(rate), loss=training_loss(run.recipe), metrics=["accuracy"], jit_compile="auto")
            if done > first:
                resume_optimizer(model, run.folder)
        batches.epoch = done
        model.fit(batches, initial_epoch=done, epochs=end, callbacks=callbacks, shuffle=False,
                  verbose=1 if sys.stdout.isatty() else 2)


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
    """Each epoch: validation, weights, history and checkpoint; now and then, a panel of a validation image.

    The general network is validated in every tenth epoch and in the last one only, because it sees large photographs
    at several widths.
    """

    def __init__(self, run, model):
        super().__init__()
        self.run = run
        # A model without the optimizer, which predicts on one device with any engine.
        self.network = keras.Model(model.inputs, model.outputs)

    def on_epoch_begin(self, epoch, logs=None):
        self.began = time.time()

    def on_epoch_end(self, epoch, logs=None):
        run, number = self.run, epoch + 1
        seconds = time.time() - self.began
        last = number == run.recipe.epochs
        maps, result = None, {"auc": None, "f1": None}
        if last or not run.source.general or number % 10 == 0:
            maps = run.maps(self.network)
            result = score(sum(run.histograms(maps)))
            print(f"epoch {number}, validation inside the field of view: AUC {result['auc']:.4f}  "
                  f"F1 {result['f1']:.4f}", flush=True)
        run.history.append({
            "epoch": number,
            "loss": logs["loss"],
            "accuracy": logs["accuracy"],
            "val_auc": result["auc"],
            "val_f1": result["f1"],
            "learning_rate": float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)),
            "keep_prob": next((layer.keep_prob for layer in self.model.layers if hasattr(layer, "keep_prob")), 1),
            "seconds": round(seconds, 2),
        })
        save_weights(self.network, run.weights)
        write_record(run.weights, run.description, run.history)
        save_weights(self.model, run.folder / "latest.weights.h5", run.history)
        if maps and (number % 5 == 0 or last):
            picture = plots.panel(run.validation[0], maps[0])
            write_atomically(run.folder / "previews" / f"epoch_{number:03d}.png", picture)
        write_history(run.folder, run.history)


def finish(run, model):
    """Completes the record, and prints how to score the weights.

    The general network's record holds a threshold, from the validation images; others have 0.5, as in the paper.
    """
    if not finished(run.weights):
        write_history(run.folder, run.history)
        threshold = best_threshold(run.histograms(run.maps(model))) if run.source.general else None
        write_record(run.weights, run.description, run.history, True, threshold)
    print(f"weights of epoch {run.history[-1]['epoch']} in {run.weights}\n"
          f"score them: python {run.source.eval_command(run.weights)}")
