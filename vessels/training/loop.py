"""The training loop."""

import dataclasses
import math
import sys
import time

import keras

from vessels import UserError
from vessels.data import augmentation, whole_images
from vessels.files import write_atomically
from vessels.metrics import best_threshold, histogram, score, to_16_bit
from vessels.prediction.maps import predict_map
from vessels.record import write_record
from vessels.report import plots, tables
from vessels.training.run_folder import describe, lock_run, resume, save_weights, write_history
from vessels.training.schedules import described, optimizer_of, phases, stage, training_loss

from pretrained import weights_file


def train(data, network, recipe, run_dir):
    """Starts the run in `run_dir`, or resumes it, trains to the end, and writes `final.weights.h5` with its JSON.

    `data` is a `config.Data`, `network` a `Network`.
    """
    batches = batches_of(recipe, data.source, data.train)
    keras.utils.set_random_seed(recipe.seed)
    keras.config.set_dtype_policy("mixed_bfloat16" if recipe.mixed_precision else "float32")
    model = built(network, recipe)
    run = Run(data, network, recipe, run_dir, model)
    run.description = description(run, batches, model)
    with lock_run(run_dir):
        describe(run_dir, run.description)
        run.history = resume(model, run.checkpoint)
        if len(run.history) < recipe.epochs:
            print(f"{data.source.name}: {len(data.train)} images, {model.count_params():,} parameters, "
                  f"epochs {len(run.history) + 1} to {recipe.epochs} of {len(batches)} steps, in {run_dir}", flush=True)
        fit(run, model, batches)
        print(f"weights of epoch {recipe.epochs} in {run.weights}\n"
              f"score them: python {data.source.eval_command(run.weights)}")


def description(run, batches, model):
    """All that a run depends on: dict, the content of config.json, which the record repeats."""
    recipe = run.recipe
    return {
        "dataset": run.data.source.name, "network": recipe.network, "variant": recipe.variant,
        "model": run.network.arguments(recipe), "parameters": model.count_params(), "seed": recipe.seed,
        "recipe": dataclasses.asdict(recipe), **described(recipe, len(batches)),
        "augmentation": dataclasses.asdict(batches.strength) if batches.strength else None,
        "backend": keras.backend.backend(), **run.data.facts,
    }


def built(network, recipe):
    """The model of `network` for `recipe`, with the weights from which it starts, if any."""
    try:
        model = network.build(**network.arguments(recipe))
        if not getattr(model, "inputs", None):
            raise ValueError("build must return a functional keras.Model, made from keras.Input")
        if recipe.start:
            network.load_weights(model, weights_file(recipe.start))
        return model
    except (TypeError, ValueError) as error:
        raise UserError(f"the network cannot be built: {error}") from None


def fit(run, model, batches):
    """Trains the phases that are not yet complete in the history, each with a new optimizer."""
    for first, end, rate in phases(run.recipe, len(batches)):
        done = len(run.history)
        if done >= end:
            continue
        # With "auto", Keras uses no XLA on a CPU, where XLA's convolutions are several times slower than oneDNN's.
        model.compile(optimizer_of(rate), loss=training_loss(run.recipe), metrics=["accuracy"], jit_compile="auto")
        if done > first:
            model.optimizer.build(model.trainable_variables)
            model.load_weights(run.checkpoint)  # again, for Adam's moments and step count
        batches.epoch = done
        model.fit(batches, initial_epoch=done, epochs=end, callbacks=[run], shuffle=False,
                  verbose=1 if sys.stdout.isatty() else 2)


def batches_of(recipe, dataset, examples):
    if recipe.whole_images:
        strength = whole_images.Versions() if recipe.recipe == "augmented" else None
        return whole_images.WholeImages(examples, dataset.padded, recipe, strength)
    patches_type = augmentation.AnyCameraPatches if recipe.recipe == "any" else augmentation.Patches
    return patches_type(examples, recipe)


class Run(keras.callbacks.Callback):
    """A training under way.

    Each epoch: schedules, validation, weights, history and checkpoint; in the end, a panel of a validation image. The
    general network is validated in every tenth epoch and in the last one only, because it sees large photographs at
    several widths. Its record holds a threshold, from the validation images; others have 0.5, as in the paper.

    Attributes:
        data, network, recipe: A `config.Data`, a `Network`, a `config.Recipe`.
        folder, weights, checkpoint: Paths of the run folder, and of two files in it.
        predictor: The model without its optimizer.
        description: All that the run depends on, the content of config.json.
        history: A row for each complete epoch.
    """

    def __init__(self, data, network, recipe, folder, model):
        super().__init__()
        self.data, self.network, self.recipe, self.folder = data, network, recipe, folder
        self.weights, self.checkpoint = folder / "final.weights.h5", folder / "latest.weights.h5"
        self.predictor = keras.Model(model.inputs, model.outputs)
        self.description, self.history = {}, []

    def on_epoch_begin(self, epoch, logs=None):
        self.began = time.time()
        if not self.recipe.whole_images:
            self.network.set_stage(self.model, *stage(self.recipe, epoch))

    def on_epoch_end(self, epoch, logs=None):
        seconds, number, source = time.time() - self.began, epoch + 1, self.data.source
        if not math.isfinite(logs["loss"]):
            raise UserError(f"the loss is {logs['loss']} in epoch {number}, which is not saved; try a lower "
                            "--learning-rate with another --output-dir")
        last = number == self.recipe.epochs
        result, threshold = {"auc": None, "f1": None}, None
        if last or not source.general or number % 10 == 0:
            maps, histograms = self.validate()
            result = score(sum(histograms))
            threshold = best_threshold(histograms) if last and source.general else None
            auc, f1 = (tables.cell(result[key]) for key in ("auc", "f1"))  # None if all maps are black and white
            print(f"epoch {number}, validation inside the field of view: AUC {auc}  F1 {f1}", flush=True)
        self.history.append({
            "epoch": number,
            "loss": logs["loss"],
            "accuracy": logs["accuracy"],
            "val_auc": result["auc"],
            "val_f1": result["f1"],
            "learning_rate": float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)),
            "keep_prob": next((layer.keep_prob for layer in self.model.layers if hasattr(layer, "keep_prob")), 1),
            "seconds": round(seconds, 2),
        })
        save_weights(self.predictor, self.weights)
        write_record(self.weights, self.description, self.history, threshold)
        write_history(self.folder, self.history)
        if last:
            panel = plots.panel(self.data.validation[0], maps[0])
            write_atomically(self.folder / "previews" / "panel.png", panel)
        save_weights(self.model, self.checkpoint, self.history)  # last: a killed run repeats all of the epoch

    def validate(self):
        """`(maps, histograms)` of the validation photographs: lists of uint16 maps as an evaluation predicts them, and
        of their histograms inside the fields of view.
        """
        source = self.data.source
        widths = source.widths if source.general else None
        maps = [to_16_bit(predict_map(self.predictor, widths, source.padded, example.image, example.fov))
                for example in self.data.validation]
        return maps, [histogram(values, example.label, example.fov)
                      for values, example in zip(maps, self.data.validation, strict=True)]
