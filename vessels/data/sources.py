"""Sources of photographs by name, and several of them as one."""

import dataclasses
import itertools
from pathlib import Path

from vessels import UserError
from vessels.data import custom, published
from vessels.data.examples import Source
from vessels.data.fov import Widths

LEARNED = (published.DRIVE, published.CHASEDB1)  # by the general network, unless other sources are named
SOURCES = tuple(dataset.name for dataset in LEARNED)
WIDTHS = Widths((800, 1250), own_width=(0.5, 0.8), largest=2800)


@dataclasses.dataclass(frozen=True)
class Several(Source):
    """The data on which the general network is trained.

    `sources`: names of data sets and paths of CSVs. `parts`: what was read from them, see `for_training`. `widths`: the
    `Widths` at which the network sees a field of view; validation uses the first alone.
    """

    sources: tuple[str, ...] = SOURCES
    parts: tuple[Source, ...] = LEARNED
    widths: Widths = WIDTHS
    size: tuple[int, int] = published.DRIVE.size  # of procedural photographs

    title = "any camera"
    general, padded = True, None

    @property
    def name(self):
        return "+".join(dataset.name for dataset in self.parts)

    @property
    def key(self):
        """Start of a run's name: "any" for the data of the general network, else "any-" and the sources."""
        names = [Path(source).stem.lower() for source in self.sources]
        return "any" if self.sources == SOURCES else "any-" + "-".join(names)

    def at(self, data_dir):
        return dataclasses.replace(self, parts=tuple(dataset.at(data_dir) for dataset in self.parts))

    def for_training(self, seed):
        """With `parts` read from `sources`.

        Raises:
            UserError: As `find`; or a photograph is in two of the sources.
        """
        parts = tuple(find(source).for_training(seed) for source in self.sources)
        names = [dataset.name for dataset in parts]
        if len(set(names)) < len(names):
            raise UserError(f"{' '.join(names)}: one is given twice; give it once, or rename one of two files")
        owners = {digest: f"{dataset.name}'s {name}" for dataset in parts
                  for name, digests in dataset.published().items() for digest in digests}
        custom.check_once([row for dataset in parts if dataset.own for row in dataset.rows], owners)
        return dataclasses.replace(self, parts=parts)

    def names(self, split):
        return tuple(itertools.chain(*(dataset.names(split) for dataset in self.parts)))

    def photographs(self, split):
        """As `Source.photographs`; a part may lack training or validation photographs if another one has some.

        Raises:
            UserError: There are too few photographs to train on.
        """
        photographs = []
        for dataset in self.parts:
            if dataset.names(split):
                photographs += dataset.photographs(split)
            elif not dataset.names("train+validation"):
                dataset.photographs("train")  # raises a UserError that says what is missing
        if len(photographs) < (1 if split == "validation" else 2):
            raise UserError(f"{', '.join(self.sources)}: photographs for {split}: {len(photographs)}, but at least 2 "
                            "must train and 1 validate; add some, or give DRIVE, CHASEDB1 or HRF with them")
        return photographs

    def check(self, split):
        for dataset in self.parts:
            dataset.check(split)

    def checksums(self, split):
        return self.joined("checksums", split)

    def pixels(self, split):
        return self.joined("pixels", split)

    def joined(self, method, split):
        return {f"{dataset.name}/{path}": digest for dataset in self.parts if dataset.names(split)
                for path, digest in getattr(dataset, method)(split).items()}

    def eval_command(self, weights):
        # A table without test photographs is not scored: its network has learned from all of them.
        scored = [source for source, dataset in zip(self.sources, self.parts, strict=True) if dataset.names("test")]
        return f"eval_any.py {' '.join(scored) or 'others.csv'} --weights {weights}"


def find(source):
    """The `Dataset` of this name, or the `Table` at this path; UserError if there is neither."""
    for dataset in published.DATASETS:
        if source.lower() in (dataset.name.lower(), dataset.key):
            return dataset
    if not Path(source).suffix:
        named = ", ".join(dataset.name for dataset in published.DATASETS)
        raise UserError(f"{source}: no such data set; name {named} or a CSV of your own photographs")
    return custom.read(source)
