"""Trains the general network, for photographs of any camera, on DRIVE and CHASE DB1 together.

    python train_any.py              an hour and a half on one core, 2 GB of memory
"""

import dataclasses
import json
import sys
from pathlib import Path

import cv2

from vessels import datasets
from vessels.evaluation import environment
from vessels.files import write_atomically
from vessels.training import (
    Recipe,
    epoch_callback,
    export,
    lock_run,
    phases,
    resume,
    resume_optimizer,
    stage_callback,
    weighted_crossentropy,
)

from rsan_model import build_rsan

DIAMETER = 800
RECIPE = Recipe(epochs=60, steps=200, batch_size=4, patch_size=128, keep_prob=0.92, vessel_weight=1.2,
                mixed_precision=True)


def seen(example):
    """The example as the network sees it: its field of view DIAMETER pixels wide, on black."""
    width, height = cv2.boundingRect(example.fov.astype("uint8"))[2:]
    factor = DIAMETER / max(width, height)
    size = [round(side * factor) for side in example.fov.shape[::-1]]
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
    image, label, fov = (cv2.resize(plane, size, interpolation=how) for plane in (
        example.image * example.fov[..., None], example.label.astype("float32"), example.fov.astype("float32")))
    return dataclasses.replace(example, image=image, label=label >= 0.5, fov=fov >= 0.5)


def main():
    import keras

    from vessels import pipeline

    recipe, run_dir = RECIPE, Path(sys.argv[1])
    sets = datasets.DATASETS
    examples = [example for dataset in sets for example in datasets.load(dataset, "train")]
    validation = [seen(example) for dataset in sets for example in datasets.load(dataset, "validation")]
    checksums = {split: {f"{dataset.name}/{name}": digest for dataset in sets
                         for name, digest in datasets.checksums(dataset, split).items()}
                 for split in ("train", "validation")}
    lock = lock_run(run_dir)
    strength = pipeline.AnyCamera()
    write_atomically(run_dir / "config.json", json.dumps(
        {"dataset": "DRIVE+CHASEDB1", **dataclasses.asdict(recipe), "augmentation": dataclasses.asdict(strength)}))
    if not (run_dir / "environment.json").exists():
        write_atomically(run_dir / "environment.json", json.dumps(environment()))
    keras.utils.set_random_seed(recipe.seed)
    keras.config.set_dtype_policy("mixed_bfloat16")
    data = pipeline.AnyCameraPatches(examples, recipe.patch_size, recipe.batch_size, recipe.steps, recipe.seed,
                                     strength=strength)
    model = build_rsan(keep_prob=recipe.keep_prob)
    history = resume(model, run_dir)
    ((_, end, rate),) = phases(recipe, len(data))
    model.compile(keras.optimizers.Adam(rate), loss=weighted_crossentropy(recipe.vessel_weight),
                  metrics=["accuracy"], jit_compile=False)
    if history:
        resume_optimizer(model, run_dir)
    data.epoch = len(history)
    scaled = dataclasses.replace(datasets.DRIVE, padded=None)
    model.fit(data, initial_epoch=len(history), epochs=end, shuffle=False, verbose=2,
              callbacks=[epoch_callback(recipe, run_dir, scaled, validation, history, model), stage_callback(recipe)])
    export(run_dir, datasets.DRIVE, recipe, history, checksums, model)
    lock.close()


if __name__ == "__main__":
    main()
