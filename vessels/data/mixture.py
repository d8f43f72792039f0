"""Several sets to learn from together: DRIVE, CHASE DB1 and anyone's tables, read as one."""

import dataclasses
from pathlib import Path

from vessels import UserError
from vessels.data import datasets, own
from vessels.files import sha256


@dataclasses.dataclass(frozen=True)
class Mixture:
    """What training asks of a data set, for the general network: `diameters` is how wide, in pixels, it wants fields
    of view to be (validation takes the first, prediction the one at which the network is most confident), `sources`
    are names of data sets and paths of CSVs, `parts` what was found there.
    """

    sources: tuple[str, ...] = tuple(dataset.name for dataset in datasets.DATASETS)
    parts: tuple[datasets.Dataset | own.Table, ...] = datasets.DATASETS
    title: str = "any camera"
    size: tuple[int, int] = datasets.DRIVE.size  # of synthetic images
    padded: None = None
    diameters: tuple[int, ...] = (800, 1100)

    @property
    def name(self):
        return "+".join(part.name for part in self.parts)

    @property
    def key(self):
        """As in names of runs: "any" for what the general network learns from."""
        names = [Path(source).stem.lower() for source in self.sources]
        return "any" if self.sources == Mixture.sources else "any-" + "-".join(names)


def find(source):
    """A `Dataset` by its name, else a `Table` by its path; UserError where there is neither."""
    for dataset in datasets.DATASETS:
        if source.lower() in (dataset.name.lower(), dataset.key):
            return dataset
    if not Path(source).suffix:
        named = ", ".join(dataset.name for dataset in datasets.DATASETS)
        raise UserError(f"{source}: no such data set; name {named} or a CSV of your own photographs")
    return own.read(source)


def read(mixture, seed=0):
    """`mixture` with the parts that its sources name; tables without validation photographs are divided by `seed`.

    Raises:
        UserError: As `own.read` does; a photograph is in two of the sources.
    """
    parts = [find(source) for source in mixture.sources]
    parts = [part.divided(seed) if isinstance(part, own.Table) else part for part in parts]
    names = [part.name for part in parts]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"{name}: given twice, or two files of that name; give it once, or rename one")
    rows = [row for part in parts if isinstance(part, own.Table) for row in part.rows.values()]
    own.check_once(rows)
    owned = {digest: f"{part.name}'s {name}" for part in parts if isinstance(part, datasets.Dataset)
             for name, digest in datasets.published(part).items()}
    for row in rows:
        if row.digests["image"] in owned:
            raise UserError(f"{row.place}: {row.files['image']} is {owned[row.digests['image']]}; take one of the two "
                            "out")
    return dataclasses.replace(mixture, parts=tuple(parts))


def load(mixture, split, data_dir=None):
    """Reads a split of all parts, in their order, into memory: list of `Example`, as `datasets.load` and `own.load`.

    A table may lack training or validation photographs, where another part has some.

    Raises:
        UserError: As they do; or too few to train on.
    """
    examples = []
    for part in mixture.parts:
        if isinstance(part, datasets.Dataset):
            examples += datasets.load(part, split, data_dir)
        elif part.part("train+validation"):
            examples += own.load(part, split) if part.part(split) else []
        else:
            own.load(part, "train")  # says that there is nothing to learn from
    least = 1 if split == "validation" else 2
    if len(examples) < least:
        tables = ", ".join(mixture.sources)
        raise UserError(f"{tables}: {len(examples)} photographs to {'validate' if least == 1 else 'learn from'}, "
                        f"{least} are the least; add some, or give DRIVE or CHASEDB1 with them")
    return examples


def photographs(part, split, data_dir=None):
    """`{name: SHA-256}` of the photographs of a `Dataset` or `Table`, without their labels and masks."""
    if isinstance(part, datasets.Dataset):
        return {name: sha256(paths["image"]) for name, paths in datasets.files(part, split, data_dir).items()}
    return {name: row.digests["image"] for name, row in part.part(split).items()}


def checksums(mixture, split, data_dir=None):
    """`{"DRIVE/training/images/21_training.tif": SHA-256}` of what `load` reads."""
    return {f"{part.name}/{path}": digest for part in mixture.parts
            for path, digest in (datasets.checksums(part, split, data_dir) if isinstance(part, datasets.Dataset)
                                 else own.checksums(part, split)).items()}
