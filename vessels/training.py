"""Training: the recipe that is also the command line, the run folder, resuming, and the weights that come out."""

import argparse
import contextlib
import csv
import dataclasses
import fcntl
import hashlib
import io
import json
import math
import os
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

from vessels import UserError, datasets, synthetic
from vessels.evaluation import environment
from vessels.files import write_atomically

ROOT = Path(__file__).resolve().parent.parent


def option(default, text, **metadata):
    return dataclasses.field(default=default, metadata={"help": text, **metadata})


@dataclasses.dataclass
class Recipe:
    """Everything that a run depends on; each field is a flag of the training script."""

    recipe: str = option("patches", "'patches': augmented patches; 'authors': what the authors' script does: whole "
                         "padded images, no augmentation, keep_prob the same from first step to last, a tenth of the "
                         "learning rate and a new Adam for the last third", choices=("patches", "authors"))
    variant: str = option("rsan", "network", choices=("rsan", "backbone", "backbone_dropblock"))
    seed: int = option(0, "of the initial weights, the patches and DropBlock")
    train_on: str = option("train", "images to learn from; with the validation images among them, the "
                           "validation figures are no longer a test", choices=("train", "train+validation"))
    epochs: int = option(24, "epochs", minimum=1)
    steps: int = option(100, "batches in an epoch", minimum=1, ignored="authors")
    batch_size: int = option(16, "patches (authors: images) in a batch", minimum=1)
    patch_size: int = option(128, "side of a patch in pixels, a multiple of 8", minimum=56, ignored="authors")
    learning_rate: float = option(2.5e-3, "peak learning rate of Adam", minimum=0)
    keep_prob: float = option(0.88, "DropBlock keeps this share of the values; patches come down to it from 1 "
                              "over the first 60 %% of the epochs and do without DropBlock in the last 20 %%")
    vessel_weight: float = option(1.2, "weight of a vessel pixel in the loss, background having 1: what is best for F1 "
                                  "lies below a probability of 0.5, and this brings it nearer", minimum=0.1)
    mixed_precision: bool = option(False, "compute in bfloat16, weights and loss in float32: less memory, faster on "
                                   "GPUs and on processors with AVX512-BF16 or AMX")
    synthetic: bool = option(False, "no data at hand: a minute on procedural fundus images")


# What `--synthetic` changes, so that the whole path takes a minute.
SYNTHETIC = {"epochs": 3, "steps": 80, "batch_size": 4, "patch_size": 64, "keep_prob": 0.95, "train_on": "train"}


def parse(dataset, recipe, authors, description, argv=None):
    """Command line -> (Recipe, data_dir, run folder, strategy). Flags beat what `--recipe` and `--synthetic` imply."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    for field in dataclasses.fields(Recipe):
        flag = "--" + field.name.replace("_", "-")
        text = field.metadata["help"]
        if field.type is bool:
            parser.add_argument(flag, action="store_true", default=argparse.SUPPRESS, help=text)
        else:
            default = f"{getattr(recipe, field.name)}"
            if field.name in authors:
                default += f"; authors: {authors[field.name]}"
            elif field.metadata.get("ignored"):
                default += "; not for authors"
            parser.add_argument(flag, type=field.type, default=argparse.SUPPRESS, choices=field.metadata.get("choices"),
                                help=f"{text} (default: {default})")
    parser.add_argument("--data-dir", type=Path, help=f"folder of {dataset.title} (default: "
                        f"$RSAN_DATA_ROOT/{dataset.name} or data/{dataset.name})")
    parser.add_argument("--output-dir", type=Path, help="run folder (default: runs/<set>-<variant>-<seed>)")
    parser.add_argument("--strategy", choices=("mirrored", "multiworker"), help="share each batch among all devices "
                        "of this machine, or those of the workers that TF_CONFIG lists, which see the same files; "
                        "give each of them the same command (default: one device)")
    given = vars(parser.parse_args(argv))
    data_dir, output_dir, strategy = (given.pop(name) for name in ("data_dir", "output_dir", "strategy"))
    implied = authors if given.get("recipe") == "authors" else {}
    for field in dataclasses.fields(Recipe):
        if field.name in given and field.metadata.get("ignored") == given.get("recipe", "patches"):
            parser.error(f"--{field.name.replace('_', '-')} means nothing to --recipe {given['recipe']}: leave it out")
    if given.get("synthetic"):
        implied = {**implied, **SYNTHETIC}
    recipe = dataclasses.replace(recipe, **{**implied, **given})
    for field in dataclasses.fields(Recipe):
        least = field.metadata.get("minimum")
        if least is not None and getattr(recipe, field.name) < least:
            flag = field.name.replace("_", "-")
            parser.error(f"--{flag} must be at least {least}, got {getattr(recipe, field.name)}")
    if recipe.patch_size % 8:
        parser.error(f"--patch-size must be a multiple of 8, got {recipe.patch_size}")
    if not 0 < recipe.keep_prob <= 1:
        parser.error(f"--keep-prob must be in (0, 1], got {recipe.keep_prob}")
    parts = [dataset.key, "synthetic" * recipe.synthetic, recipe.recipe.replace("patches", ""), recipe.variant]
    name = "-".join(part for part in [*parts, str(recipe.seed)] if part)
    return recipe, data_dir, output_dir or ROOT / "runs" / name, strategy


def main(dataset, build, recipe, authors, description, argv=None):
    """The command line of `train_drive.py` and `train_chase.py`.

    Args:
        dataset: A `datasets.Dataset`.
        build: Returns the network, given `keep_prob` and `variant`.
        recipe: The default `Recipe`.
        authors: dict of what `--recipe authors` changes in it.
        description: Text of `--help`.

    Returns:
        Exit code: 0; 2 for what the user can mend.
    """
    recipe, data_dir, run_dir, strategy = parse(dataset, recipe, authors, description, argv)
    code = 0
    try:
        train(dataset, build, recipe, data_dir, run_dir, strategy)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print(f"\nstopped; the same command goes on from the last whole epoch in {run_dir}", file=sys.stderr)
        code = 130
    if code and strategy == "multiworker":
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # TensorFlow would wait at exit for workers that will not come
    return code


def train(dataset, build, recipe, data_dir, run_dir, strategy=None):
    """Trains to the end, from where `run_dir` stands, and exports `best.weights.h5` with its JSON.

    `strategy` as in `distribution.start`; of several workers, only the chief writes.
    """
    if recipe.synthetic:
        print(f"SYNTHETIC IMAGES: what follows says nothing about {dataset.title}.")
        examples, checksums = synthetic.make(dataset, recipe.train_on), {"train": {}, "validation": {}}
        validation = synthetic.make(dataset, "validation")
    else:
        examples = datasets.load(dataset, recipe.train_on, data_dir)
        validation = datasets.load(dataset, "validation", data_dir)
        checksums = {"train": datasets.checksums(dataset, recipe.train_on, data_dir),
                     "validation": datasets.checksums(dataset, "validation", data_dir)}

    import keras

    from vessels import distribution, pipeline

    whole = recipe.recipe == "authors"
    engine = distribution.start(strategy, [recipe.batch_size, len(examples) % recipe.batch_size if whole else 0])
    if engine.chief:
        lock = lock_run(run_dir)
        describe(run_dir, dataset, recipe, {"strategy": strategy, "replicas": engine.replicas})
    keras.utils.set_random_seed(recipe.seed)
    keras.config.set_dtype_policy("mixed_bfloat16" if recipe.mixed_precision else "float32")
    if whole:
        data = pipeline.WholeImages(examples, dataset.padded, recipe.batch_size, recipe.seed)
    else:
        data = pipeline.Patches(examples, recipe.patch_size, recipe.batch_size, recipe.steps, recipe.seed)
    with distribution.lost_workers() if engine.workers > 1 else contextlib.nullcontext():
        with engine.scope():
            model = engine.adapt(build(keep_prob=recipe.keep_prob, variant=recipe.variant))
            history = resume(model, run_dir)
            engine.part_random_streams(random_states(model))
        engine.agree(json.dumps([dataclasses.asdict(recipe), history]))
        if len(history) < recipe.epochs:
            print(f"{dataset.title}: {len(examples)} images, {model.count_params():,} parameters, "
                  f"epochs {len(history) + 1} to {recipe.epochs} of {len(data)} steps, in {run_dir}", flush=True)
            callbacks = [epoch_callback(recipe, run_dir, dataset, validation, history, model, engine.chief)]
            if not whole:
                callbacks.append(stage_callback(recipe))
        for first, end, rate in phases(recipe, len(data)):
            if len(history) >= end:
                continue
            with engine.scope():
                model.compile(
                    keras.optimizers.Adam(rate),
                    loss=weighted_crossentropy(recipe.vessel_weight),
                    metrics=["accuracy"],
                    # XLA's convolutions are several times slower than oneDNN's on a processor, and it cannot compile
                    # what tf.distribute does in a step (keras-team/keras#17187).
                    jit_compile="auto" if keras.backend.backend() != "tensorflow" or (on_gpu() and not strategy)
                    else False,
                )
                if len(history) > first:
                    resume_optimizer(model, run_dir)
            data.epoch = len(history)
            model.fit(data, initial_epoch=len(history), epochs=end, callbacks=callbacks, shuffle=False,
                      verbose=1 if sys.stdout.isatty() else 2)
    if engine.chief:
        export(run_dir, dataset, recipe, history, checksums, model)
        lock.close()


def weighted_crossentropy(vessel_weight):
    """Binary cross-entropy of each pixel, in which a vessel pixel counts `vessel_weight` times."""
    import keras

    def loss(label, probability):
        weight = 1 + (vessel_weight - 1) * label[..., 0]
        return weight * keras.losses.binary_crossentropy(label, probability)

    return loss


def on_gpu():
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


def lock_run(run_dir):
    """Makes the run folder and keeps a second run out of it as long as the returned file is open."""
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        lock = (run_dir / "lock").open("w")
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(f"{run_dir}: another training writes here; wait for it or choose --output-dir") from None
    except OSError as error:
        raise UserError(f"{run_dir}: {error.strerror}; choose --output-dir where you may write") from None
    for left in run_dir.glob(".*.[0-9]*"):  # half-written, by a run that was killed
        left.unlink()
    return lock


def describe(run_dir, dataset, recipe, engine):
    """Writes config.json and environment.json, or checks that the folder's run is the one asked for."""
    config = {"dataset": dataset.name, **dataclasses.asdict(recipe)}
    path = run_dir / "config.json"
    if path.exists():
        before = json.loads(path.read_text())
        differs = [f"{key} {before.get(key)} (asked: {value})" for key, value in config.items()
                   if before.get(key) != value]
        if differs:
            raise UserError(f"{run_dir} holds a run with {', '.join(differs)}; choose another --output-dir")
    write_atomically(path, json.dumps(config, indent=1) + "\n")
    if not (run_dir / "environment.json").exists():  # as the run began: by a later start the code may be another
        write_atomically(run_dir / "environment.json", json.dumps({**environment(), **engine}, indent=1) + "\n")


def phases(recipe, steps):
    """`[(first epoch, epoch after the last, learning rate)]`, each phase with an Adam of its own.

    Patches: one, 50 steps of warm-up, then a cosine to 1e-5. Authors: two; their script is run to the end of the
    first, then by hand once more from its weights, newly compiled, at a tenth of the rate.
    """
    import keras

    if recipe.recipe == "authors":
        boundary = recipe.epochs * 2 // 3
        return [(0, boundary, recipe.learning_rate), (boundary, recipe.epochs, recipe.learning_rate / 10)]
    warmup = min(50, recipe.epochs * steps // 10)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, recipe.epochs * steps - warmup, alpha=1e-5 / recipe.learning_rate,
        warmup_target=recipe.learning_rate, warmup_steps=warmup,
    )
    return [(0, recipe.epochs, schedule)]


def settling(recipe, epoch):
    """Whether `epoch` (from 0) is in the last fifth, in which the normalization settles on what prediction meets.

    DropBlock is off then: after each DropBlock, normalization has learned the larger variance of what it scales
    up (arXiv:1801.05134). And the moving averages reach ten times further back, as those of small batches waver.
    """
    return epoch >= math.floor(0.8 * recipe.epochs)


def ramped_keep_prob(recipe, epoch):
    """DropBlock's schedule (arXiv:1810.12890, section 3.1): from 1 down to keep_prob in six equal stages."""
    if settling(recipe, epoch):
        return 1
    stage = min(6, math.floor(6 * epoch / (0.6 * recipe.epochs)))
    return round(1 - (1 - recipe.keep_prob) * stage / 6, 6)


def stage_callback(recipe):
    import keras

    def enter(epoch, logs=None):
        settings = {"keep_prob": ramped_keep_prob(recipe, epoch)}
        if settling(recipe, epoch):
            settings["momentum"] = 0.99
        changed = False
        for layer in callback.model.layers:
            for name, value in settings.items():
                if getattr(layer, name, value) != value:
                    setattr(layer, name, value)
                    changed = True
        if changed:
            # They are constants of the compiled step.
            callback.model.make_train_function(force=True)

    callback = keras.callbacks.LambdaCallback(on_epoch_begin=enter)
    return callback


def random_states(model):
    """The states of the layers' random streams: Keras leaves them out of its weights files."""
    return [layer.seed_generator.state for layer in model.layers if hasattr(layer, "seed_generator")]


def resume(model, run_dir):
    """Loads weights and random streams of the last whole epoch; returns its history, a list of rows."""
    latest = run_dir / "latest.weights.h5"
    if not latest.exists():
        return []
    model.load_weights(latest)
    with h5py.File(latest) as file:
        if "random_states" not in file.attrs:
            raise UserError(f"{latest}: of an older version, which did not keep DropBlock's random streams; choose "
                            "another --output-dir")
        for state, value in zip(random_states(model), json.loads(file.attrs["random_states"]), strict=True):
            state.assign(value)
        return json.loads(file.attrs["history"])


def resume_optimizer(model, run_dir):
    """Loads the last whole epoch into the compiled `model`, with Adam's moments and steps."""
    model.optimizer.build(model.trainable_variables)
    model.load_weights(run_dir / "latest.weights.h5")


def save_weights(model, path, history=None):
    """Whole or not at all. With the history inside, a checkpoint's weights, history and random streams agree.

    HDF5 is written elsewhere first: a disk that fills up under its hands can take the whole process with it.
    """
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "whole.weights.h5"
        try:
            model.save_weights(whole)
            if history is not None:
                with h5py.File(whole, "a") as file:
                    file.attrs["history"] = json.dumps(history)
                    file.attrs["random_states"] = json.dumps(
                        [np.asarray(state).tolist() for state in random_states(model)])
            content = whole.read_bytes()
        except OSError as error:
            raise UserError(f"{whole}: cannot be written ({error}); make room there or set TMPDIR, then give the same "
                            "command again: the last whole epoch is safe") from None
    write_atomically(path, content)


def epoch_callback(recipe, run_dir, dataset, validation, history, model, chief=True):
    """After each epoch: validation, weights, history and checkpoint; every fifth, an early look."""
    import keras

    from vessels import pipeline, report
    from vessels.evaluation import score

    # Without the optimizer, and on one device whatever the engine.
    network = keras.Model(model.inputs, model.outputs)

    class EpochCallback(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.began, self.epoch = time.time(), epoch + 1

        def on_train_batch_end(self, batch, logs=None):
            if not math.isfinite(logs["loss"]):
                raise UserError(f"the loss is {logs['loss']} in epoch {self.epoch}; the last good checkpoint is "
                                f"{run_dir / 'latest.weights.h5'}: try a lower --learning-rate in another --output-dir")

        def on_epoch_end(self, epoch, logs=None):
            if not chief:
                return
            seconds = time.time() - self.began
            maps = [pipeline.predict_image(network, example.image, dataset.padded) for example in validation]
            result = score(*(np.concatenate(arrays, axis=None) for arrays in (
                maps, [example.label for example in validation], [example.fov for example in validation])))
            row = {
                "epoch": epoch + 1,
                "loss": logs["loss"],
                "accuracy": logs["accuracy"],
                "val_auc": result["auc"],
                "val_f1": result["f1"],
                "learning_rate": float(self.model.optimizer.learning_rate),
                "keep_prob": next((layer.keep_prob for layer in self.model.layers if hasattr(layer, "keep_prob")), 1),
                "seconds": round(seconds, 2),
            }
            print(f"validation inside the field of view: AUC {row['val_auc']:.4f}  F1 {row['val_f1']:.4f}", flush=True)
            history.append(row)
            save_weights(network, run_dir / "best.weights.h5")
            save_weights(self.model, run_dir / "latest.weights.h5", history)
            if epoch % 5 == 4 or epoch + 1 == recipe.epochs:
                picture = io.BytesIO()
                report.panel(validation[0], maps[0]).save(picture, "PNG")
                write_atomically(run_dir / "look" / f"epoch_{epoch + 1:03d}.png", picture.getvalue())
            write_history(run_dir, history)

    return EpochCallback()


def write_history(run_dir, history):
    """The checkpoint's history for people: history.csv, and its curves in look/history.png."""
    from vessels import report

    text = io.StringIO()
    writer = csv.DictWriter(text, history[0])
    writer.writeheader()
    writer.writerows(history)
    write_atomically(run_dir / "history.csv", text.getvalue())
    write_atomically(run_dir / "look" / "history.png", report.history_plot(history))


def export(run_dir, dataset, recipe, history, checksums, model):
    """Writes best.json beside best.weights.h5: all that evaluation needs and a reader would ask for."""
    write_history(run_dir, history)  # a run may have been killed between its last checkpoint and this
    weights = run_dir / "best.weights.h5"
    record = {
        "dataset": "synthetic" if recipe.synthetic else dataset.name,
        "variant": recipe.variant,
        "model": {"keep_prob": recipe.keep_prob, "variant": recipe.variant},
        "parameters": model.count_params(),
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "seed": recipe.seed,
        "recipe": dataclasses.asdict(recipe),
        "chosen": "last epoch",
        "validation": {"held_out": recipe.train_on == "train",
                       **{key: history[-1][key] for key in ("epoch", "val_auc", "val_f1")}},
        "wall_time_s": round(sum(row["seconds"] for row in history)),
        "environment": json.loads((run_dir / "environment.json").read_text()),
        "data_sha256": checksums["train"],
        "validation_sha256": checksums["validation"],
        "history": history,
    }
    write_atomically(weights.with_name("best.json"), json.dumps(record, indent=1) + "\n")
    command = f"python eval_{dataset.key}.py" + " --synthetic" * recipe.synthetic
    if recipe.variant != "rsan":
        command += f" --variant {recipe.variant}"
    if recipe.seed:
        command += f" --seed {recipe.seed}"
    print(f"weights of epoch {history[-1]['epoch']} in {weights}\n"
          f"score them: {command} --weights {weights}")
