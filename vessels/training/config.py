"""The recipe, which is also the command line of the training scripts."""

import argparse
import dataclasses

from vessels import add_renamed, exit_code, file_path, network, parser_for, quiet_imports
from vessels.data import synthetic
from vessels.data.examples import Example, Source
from vessels.files import ROOT, sha256
from vessels.record import read_start

from pretrained import weights_file


def option(default, text, least=None, most=1e38, choices=None):
    return dataclasses.field(default=default, metadata={"help": text, "least": least, "most": most, "choices": choices})


@dataclasses.dataclass
class Recipe:
    """Everything that a run depends on; each field is a flag of the training script."""

    recipe: str = option("patches", "'patches': augmented patches; 'authors': as the authors' script: whole padded "
                         "images, no augmentation, constant keep_prob, and for the last third of the epochs a new "
                         "optimizer with a tenth of the learning rate; 'augmented': the same on 14 versions of each "
                         "image: mirrored, rotated, noisy and colour-jittered, as they name for SA-UNet; strengths are "
                         "ours",
                         choices=("patches", "authors", "augmented"))
    network: str = option(None, "the module that defines the network: my_unet for a file my_unet.py of your own beside "
                          "this script, with a function build(**arguments)")
    variant: str = option("rsan", "the network: rsan, or without a part of it: backbone_dropblock (no "
                         "attention), backbone (neither)")
    seed: int = option(0, "random seed for initial weights, patches and DropBlock", least=0, most=2**32 - 1)
    train_on: str = option("train", "training images; if they include the validation images, the "
                           "validation scores are no longer a test", choices=("train", "train+validation"))
    epochs: int = option(None, "number of epochs", least=1)
    second_cycle: float = option(0, "this last part of the epochs is a second cycle: learning rate, keep_prob and "
                                 "batch normalization begin again, the rate at 40 %% of its peak; with --start: none",
                                 least=0, most=0.99)
    steps_per_epoch: int = option(None, "batches per epoch", least=1)
    batch_size: int = option(None, "patches per batch, or images", least=1)
    patch_size: int = option(None, "side of a patch in pixels, a multiple of 8", least=56)
    learning_rate: float = option(2.5e-3, "peak learning rate", least=1e-9)
    keep_prob: float = option(None, "fraction of the values that DropBlock keeps; with patches, it falls from 1 "
                              "to this value over the first 60 %% of the epochs; DropBlock is off in the last 20 %%",
                              least=0.01, most=1)
    block_size: int = option(7, "side of DropBlock's blocks", least=1)
    vessel_weight: float = option(1.2, "weight of a vessel pixel in the loss (background: 1); with 1, F1 is highest at "
                                  "a threshold below 0.5, and a larger weight moves it towards 0.5; for the general "
                                  "network, it is multiplied by the weight of each data set", least=0.1)
    mixed_precision: bool = option(False, "compute in bfloat16, with weights and loss in float32: needs less memory, "
                                   "and is faster on processors with AVX512-BF16 or AMX")
    start: str = option("", "weights to fine-tune: a file, a run folder, or released ones such as any")
    synthetic: bool = option(False, "train briefly on procedural fundus images, without any data set")

    @property
    def whole_images(self):
        return self.recipe in ("authors", "augmented")


PATCHES_ONLY = ("second_cycle", "steps_per_epoch", "patch_size")
# What `--synthetic` changes, so that a training takes a minute.
SYNTHETIC = {"epochs": 3, "steps_per_epoch": 80, "batch_size": 4, "patch_size": 64, "keep_prob": 0.95,
             "second_cycle": 0, "train_on": "train"}


def flag(field):
    return "--" + field.name.replace("_", "-")


def parse(source, recipe, authors, description, argv=None):
    """Command line -> (Recipe, source of photographs, `argparse.Namespace` of data_dir and output_dir).

    Flags override what `--recipe` and `--synthetic` imply.
    """
    parser = flags(source, recipe, authors, description)
    arguments = parser.parse_args(argv)
    fields = dataclasses.fields(Recipe)
    given = {field.name: getattr(arguments, field.name) for field in fields if field.name in arguments}
    default = recipe.network
    if given.get("network", default) != default:
        given.setdefault("variant", given["network"])
    if source.general and arguments.sources:
        source = dataclasses.replace(source, sources=tuple(arguments.sources))
        if given.get("synthetic"):
            parser.error(f"--synthetic reads no photographs: leave {' '.join(source.sources)} out")
    preset, implied = given.get("recipe", "patches"), {}
    if preset != "patches":
        implied.update(authors)
    if given.get("start"):
        implied.update(second_cycle=0)
    if given.get("synthetic"):
        implied.update(SYNTHETIC)
    recipe = dataclasses.replace(recipe, **{**implied, **given})
    for field in fields:
        value, least, most = getattr(recipe, field.name), field.metadata["least"], field.metadata["most"]
        if recipe.whole_images and field.name in given and field.name in PATCHES_ONLY:
            parser.error(f"{flag(field)} has no effect with --recipe {preset}: omit it")
        if least is not None and not least <= value <= most:
            parser.error(f"{flag(field)} must be at least {least} and at most {most}, got {value}")
    side = source.padded if recipe.whole_images else recipe.patch_size
    if recipe.network == default and side < 8 * recipe.block_size:
        parser.error(f"--block-size must be at most {side // 8}, an eighth of the side of a patch or image")
    if given.get("start") == "":
        parser.error("--start is empty: name weights, or omit it")
    if recipe.patch_size % 8:
        parser.error(f"--patch-size must be a multiple of 8, got {recipe.patch_size}")
    words = [source.key, recipe.synthetic and "synthetic", preset != "patches" and preset,
             recipe.network not in (default, recipe.variant) and recipe.network, recipe.variant, str(recipe.seed)]
    arguments.output_dir = arguments.output_dir or ROOT / "runs" / "-".join(word for word in words if word)
    return recipe, source, arguments


def flags(source, recipe, authors, description):
    parser = parser_for(description)
    if source.general:
        parser.add_argument("sources", nargs="*", help="training data: CSVs of your own photographs, DRIVE, CHASEDB1, "
                            f"HRF (default: {' '.join(source.sources)})")
    for field in dataclasses.fields(Recipe):
        if field.name == "recipe" and not source.padded:
            continue
        if field.type is bool:
            options = {"action": argparse.BooleanOptionalAction}
        else:
            options = {"type": field.type, "choices": field.metadata["choices"]}
        default = f"{getattr(recipe, field.name)}" or "none"
        if field.name in authors:
            default += f"; authors, augmented: {authors[field.name]}"
        parser.add_argument(flag(field), default=argparse.SUPPRESS,
                            help=f"{field.metadata['help']} (default: {default})", **options)
    add_renamed(parser, "--steps", "--steps-per-epoch")
    parser.add_argument("--data-dir", type=file_path, help=f"folder of {source.name.replace('+', ' and ')}, or its "
                        "parent folder (default: $RSAN_DATA_ROOT or data/)")
    parser.add_argument("--output-dir", type=file_path, help="run folder (default: in runs/, named after set, recipe, "
                        "network and seed)")
    return parser


@dataclasses.dataclass
class Data:
    """The photographs of a run, and `facts`: what config.json and the record say about them, and about the start."""

    source: Source
    train: list[Example]
    validation: list[Example]
    facts: dict


def main(source, recipe, authors, description, argv=None):
    """The command line of `train_drive.py`, `train_chase.py` and `train_any.py`.

    Args:
        source: A `published.Dataset`, or `sources.Several`, in whose place the command line may name other sources.
        recipe: The default `Recipe`.
        authors: dict of the fields that `--recipe authors` and `augmented` change.
        description: Text of `--help`.

    Returns:
        Exit code: 0; 2 after an error that names the remedy.
    """
    default = recipe.network
    recipe, source, arguments = parse(source, recipe, authors, description, argv)
    run_dir = arguments.output_dir

    def command():
        own = {"network_sha256": sha256(network.find(recipe.network))} if recipe.network != default else {}
        chosen = synthetic.Procedural(source) if recipe.synthetic else source.for_training(recipe.seed)
        data = read(chosen.at(arguments.data_dir), recipe)
        data.facts.update(own)
        with quiet_imports():
            from vessels.training.loop import train

        train(data, network.load(recipe.network), recipe, run_dir)

    return exit_code(command, f"stopped; the same command resumes from the last complete epoch in {run_dir}")


def read(source, recipe):
    """The `Data` of a run. Raises `UserError` as the methods of `source` do."""
    start = {"started_from": read_start(weights_file(recipe.start), recipe.variant)} if recipe.start else {}
    if recipe.synthetic:
        print(f"SYNTHETIC IMAGES: what follows says nothing about {source.title}.")
    for split in (recipe.train_on, "validation"):
        source.check(split)
    weights = {"vessel_weights": {data.name: data.vessel_weight for data in source.parts}} if source.general else {}
    facts = {"data_sha256": source.checksums(recipe.train_on), "validation_sha256": source.checksums("validation"),
             "pixels_sha256": source.pixels("train+validation"), **source.widths.as_record(), **weights, **start}
    return Data(source, source.load(recipe.train_on), source.load("validation"), facts)
