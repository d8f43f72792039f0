"""Several data sets that are used together: DRIVE, CHASE DB1 and anyone's CSVs."""

import dataclasses
from pathlib import Path

from vessels import UserError
from vessels.data import custom, published
from vessels.data.fov import Widths
from vessels.files import sha256

WIDTHS = Widths((800, 1250))


@dataclasses.dataclass(frozen=True)
class Mixture:
    """The data sets on which the general network is trained, in the form of one.

    `sources`: names of data sets and paths of CSVs. `parts`: what was read from them. `widths`: the
    `Widths` at which the network sees a field of view; validation uses the first alone.
    """

    sources: tuple[str, ...] = ("DRIVE", "CHASEDB1")
    parts: tuple[published.Dataset | custom.Table, ...] = (published.DRIVE, published.CHASEDB1)
    title: str = "any camera"
    size: tuple[int, int] = published.DRIVE.size  # of synthetic images
    padded: None = None
    widths: Widths = WIDTHS

    @property
    def name(self):
        return "+".join(part.name for part in self.parts)

    @property
    def key(self):
        """Start of a run's name: "any" for the data of the general network, else "any-" and the sources."""
        names = [Path(source).stem.lower() for source in self.sources]
        return "any" if self.sources == Mixture.sources else "any-" + "-".join(names)


def find(source):
    """The `Dataset` of this name, or the `Table` at this path; UserError if there is neither."""
    for dataset in published.DATASETS:
        if source.lower() in (dataset.name.lower(), dataset.key):
            return dataset
    if not Path(source).suffix:
        named = ", ".join(dataset.name for dataset in published.DATASETS)
        raise UserError(f"{source}: no such data set; name {named} or a CSV of your own photographs")
    return custom.read(source)


def read(mixture, seed=0):
    """`mixture` with `parts` read from its sources; `seed` divides tables that lack validation photographs.

    Raises:
        UserError: As `custom.read`; or a photograph is in two of the sources.
    """
    parts = [find(source) for source in mixture.sources]
    parts = [part.divided(seed) if isinstance(part, custom.Table) else part for part in parts]
    names = [part.name for part in parts]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{name}: given twice, or two files of that name; give it once, or rename one")
    rows = [row for part in parts if isinstance(part, custom.Table) for row in part.rows.values()]
    custom.check_once(rows)
    owned = {digest: f"{part.name}'s {name}" for part in parts if isinstance(part, published.Dataset)
             for name, digest in published.published_checksums(part).items()}
    for row in rows:
        if row.digests["image"] in owned:
            raise UserError(f"{row.place}: {row.files['image']} is {owned[row.digests['image']]}; remove one of "
                            "the two")
    return dataclasses.replace(mixture, parts=tuple(parts))


def load(mixture, split, data_dir=None):
    """Reads a split of all parts, in their order, into memory: list of `Example`, as `load` of each.

    A table may lack training or validation photographs if another part has some.

    Raises:
        UserError: As `published.load` and `custom.load`; or there are too few photographs to train on.
    """
    examples = []
    for part in mixture.parts:
        if isinstance(part, published.Dataset):
            examples += published.load(part, split, data_dir)
        elif part.part("train+validation"):
            examples += custom.load(part, split) if part.part(split) else []
        else:
            custom.load(part, "train")  # raises a UserError that says what is missing
    least = 1 if split == "validation" else 2
    if len(examples) < least:
        tables = ", ".join(mixture.sources)
        more = ", and another that validates" * (split == "train")
        raise UserError(f"{tables}: photographs to {'validate' if least == 1 else 'learn from'}: {len(examples)}, at "
                        f"least {least} needed{more}; add some, or give DRIVE or CHASEDB1 with them")
    return examples


def photographs(part, split, data_dir=None):
    """`{name: SHA-256}` of the photographs of a `Dataset` or `Table`, without their labels and masks."""
    if isinstance(part, published.Dataset):
        return {name: sha256(paths["image"]) for name, paths in published.files(part, split, data_dir).items()}
    return {name: row.digests["image"] for name, row in part.part(split).items()}


def checksums(mixture, split, data_dir=None):
    """`{"DRIVE/training/images/21_training.tif": SHA-256}` of what `load` reads."""
    return {f"{part.name}/{path}": digest for part in mixture.parts
            for path, digest in (published.checksums(part, split, data_dir) if isinstance(part, published.Dataset)
                                 else custom.checksums(part, split)).items()}
