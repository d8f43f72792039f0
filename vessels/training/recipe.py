"""The recipe, which is also the command line of the training scripts."""

import argparse
import dataclasses
import math
import os
import sys
from pathlib import Path

from vessels import exit_code, quiet_imports
from vessels.data import datasets, mixture, synthetic
from vessels.files import ROOT
from vessels.record import read_start


def option(default, text, **metadata):
    return dataclasses.field(default=default, metadata={"help": text, **metadata})


@dataclasses.dataclass
class Recipe:
    """Everything that a run depends on; each field is a flag of the training script."""

    recipe: str = option("patches", "'patches': augmented patches; 'authors': what the authors' script does: whole "
                         "padded images, no augmentation, keep_prob the same from first step to last, a tenth of the "
                         "learning rate and a new Adam for the last third", choices=("patches", "authors"))
    variant: str = option("rsan", "the network: rsan, backbone_dropblock (no attention) or backbone (neither)")
    seed: int = option(0, "what chance decides follows from it: initial weights, patches, DropBlock", minimum=0)
    train_on: str = option("train", "images to learn from; with the validation images among them, the "
                           "validation figures are no longer a test", choices=("train", "train+validation"))
    epochs: int = option(None, "epochs", minimum=1)
    steps: int = option(None, "batches in an epoch", minimum=1, ignored="authors")
    batch_size: int = option(None, "patches (authors: images) in a batch", minimum=1)
    patch_size: int = option(None, "side of a patch in pixels, a multiple of 8", minimum=56, ignored="authors")
    learning_rate: float = option(2.5e-3, "peak learning rate of Adam", minimum=1e-9)
    keep_prob: float = option(None, "DropBlock keeps this share of the values; patches come down to it from 1 "
                              "over the first 60 %% of the epochs and do without DropBlock in the last 20 %%")
    vessel_weight: float = option(1.2, "weight of a vessel pixel in the loss, background having 1: what is best for F1 "
                                  "lies below a probability of 0.5, and this brings it nearer", minimum=0.1)
    mixed_precision: bool = option(False, "compute in bfloat16, weights and loss in float32: less memory, faster on "
                                   "GPUs and on processors with AVX512-BF16 or AMX")
    start: str = option("", "weights to go on from, which fine-tunes them")
    synthetic: bool = option(False, "no data at hand: a minute on procedural fundus images")


# What `--synthetic` changes, so that the whole path takes a minute.
SYNTHETIC = {"epochs": 3, "steps": 80, "batch_size": 4, "patch_size": 64, "keep_prob": 0.95, "train_on": "train"}


def parse(dataset, recipe, authors, description, argv=None):
    """Command line -> (Recipe, data_dir, run folder, strategy, data set).

    Flags beat what `--recipe` and `--synthetic` imply.
    """
    parser = flags(dataset, recipe, authors, description)
    given = vars(parser.parse_args(argv))
    if sources := given.pop("sources", None):
        dataset = dataclasses.replace(dataset, sources=tuple(sources))
        if given.get("synthetic"):
            parser.error(f"--synthetic reads no photographs: leave {' '.join(sources)} out")
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
        if least is not None and not least <= getattr(recipe, field.name) < math.inf:
            flag = field.name.replace("_", "-")
            parser.error(f"--{flag} must be at least {least}, got {getattr(recipe, field.name)}")
    if recipe.patch_size % 8:
        parser.error(f"--patch-size must be a multiple of 8, got {recipe.patch_size}")
    if not 0 < recipe.keep_prob <= 1:
        parser.error(f"--keep-prob must be in (0, 1], got {recipe.keep_prob}")
    parts = [dataset.key, "synthetic" * recipe.synthetic, "authors" * (recipe.recipe == "authors"), recipe.variant]
    name = "-".join(part for part in [*parts, str(recipe.seed)] if part)
    return recipe, data_dir, output_dir or ROOT / "runs" / name, strategy, dataset


def flags(dataset, recipe, authors, description):
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    general = isinstance(dataset, mixture.Mixture)
    if general:
        parser.add_argument("sources", nargs="*", help="what to learn from: CSVs of own photographs, DRIVE, CHASEDB1 "
                            f"(default: {' '.join(dataset.sources)})")
    for field in dataclasses.fields(Recipe):
        if general and field.name == "recipe":
            continue
        flag = "--" + field.name.replace("_", "-")
        text = field.metadata["help"]
        if field.type is bool:
            parser.add_argument(flag, action="store_true", default=argparse.SUPPRESS, help=text)
        else:
            default = f"{getattr(recipe, field.name)}" or "none"
            if field.name in authors:
                default += f"; authors: {authors[field.name]}"
            elif field.metadata.get("ignored"):
                default += "; not for authors"
            parser.add_argument(flag, type=field.type, default=argparse.SUPPRESS, choices=field.metadata.get("choices"),
                                help=f"{text} (default: {default})")
    parser.add_argument("--data-dir", type=Path, help=f"folder of {dataset.name.replace('+', ' and ')}, or the one "
                        "around it (default: $RSAN_DATA_ROOT or data/)")
    parser.add_argument("--output-dir", type=Path, help="run folder (default: runs/<set>-<variant>-<seed>)")
    parser.add_argument("--strategy", choices=("mirrored", "multiworker"), help="share each batch among all devices "
                        "of this machine, or those of the workers that TF_CONFIG lists, which see the same files; "
                        "give each of them the same command (default: one device)")
    return parser


def main(dataset, network, recipe, authors, description, argv=None):
    """The command line of `train_drive.py`, `train_chase.py` and `train_any.py`.

    Args:
        dataset: A `datasets.Dataset`, or a `mixture.Mixture`, in which the command line may name other sources.
        network: Called once the command line is known to be right: returns `(build, set_stage)`. `build(keep_prob,
            variant)` returns the network; `set_stage(model, keep_prob, momentum)` changes both in it.
        recipe: The default `Recipe`.
        authors: dict of what `--recipe authors` changes in it.
        description: Text of `--help`.

    Returns:
        Exit code: 0; 2 after an error that names the remedy.
    """
    recipe, data_dir, run_dir, strategy, dataset = parse(dataset, recipe, authors, description, argv)

    def command():
        found = dataset
        if isinstance(dataset, mixture.Mixture) and not recipe.synthetic:
            found = mixture.read(dataset, recipe.seed)
        data = read(found, recipe, data_dir)
        with quiet_imports():
            from vessels.training.loop import train

        train(found, network, recipe, data, run_dir, strategy)
        return 0

    code = exit_code(command, f"stopped; the same command goes on from the last whole epoch in {run_dir}")
    if code and strategy == "multiworker":
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # TensorFlow would wait at exit for workers that will not come
    return code


def read(dataset, recipe, data_dir):
    """`(examples, validation, checksums)` of a run: two lists of `Example`, and the SHA-256 of their files.

    `checksums` also holds "started_from" where the run goes on from other weights.
    """
    checksums = {"started_from": read_start(Path(recipe.start), recipe.variant)} if recipe.start else {}
    if recipe.synthetic:
        print(f"SYNTHETIC IMAGES: what follows says nothing about {dataset.title}.")
        examples, validation = (synthetic.make(dataset, split) for split in (recipe.train_on, "validation"))
        return examples, validation, {"train": {}, "validation": {}, **checksums}
    source = mixture if isinstance(dataset, mixture.Mixture) else datasets
    examples, validation = (source.load(dataset, split, data_dir) for split in (recipe.train_on, "validation"))
    return examples, validation, {"train": source.checksums(dataset, recipe.train_on, data_dir),
                                  "validation": source.checksums(dataset, "validation", data_dir), **checksums}
