"""The published data sets, DRIVE, CHASE DB1 and HRF: splits, sizes, layouts of their files, and checks."""

import dataclasses
import os
import re
import sys
from pathlib import Path

from vessels import UserError
from vessels.data.examples import Example, Photograph, Source
from vessels.data.fov import Widths, field_of_view
from vessels.files import ROOT

SUMS = (ROOT / "data" / "SHA256SUMS", ROOT / "data" / "PIXELS_SHA256")
SUFFIX = r"\.(tiff?|png|jpe?g|gif|bmp|ppm)"


@dataclasses.dataclass(frozen=True)
class Published(Photograph):
    """One photograph of a published set, all of which have one size."""

    dataset: "Dataset"

    def load(self):
        image, masks = self.read(self.dataset.size)
        fov = masks["fov"] if "fov" in masks else field_of_view(image)[0]
        return Example(self.name, image, masks["label"], fov, masks.get("second"),
                       vessel_weight=self.dataset.vessel_weight)


@dataclasses.dataclass(frozen=True)
class Dataset(Source):
    """A data set as the paper, or the field, uses it. To add a set, add an instance to `DATASETS`.

    `places`: paths of "image", "label", "second" and "fov" inside the set's folder, without suffix, as regular
    expressions that ignore case; the image's `{name}` and its `{number}` are replaced. They cover the official layout
    and that of RSAN's authors. The second observer and the masks may be missing for all images; without masks, the
    field of view is estimated.
    """

    name: str  # also of its folder
    title: str
    key: str
    size: tuple[int, int]  # height, width
    diameter: int  # width in pixels of the fields of view: median of the training images, by `field_of_view`
    splits: dict[str, tuple[str, ...]]
    places: dict[str, str]
    source: str
    padded: int | None = None  # with it, the set has scripts of its own: train_<key>.py and eval_<key>.py
    vessel_weight: float = 1.0
    other_labels: tuple[str, ...] = ()
    no_test_label: str = ""  # hint in the error message if test labels are missing
    data_dir: Path | None = None  # folder of the set, or its parent folder; None: $RSAN_DATA_ROOT or data/

    general = False

    @property
    def widths(self):
        return Widths((self.diameter,))

    def at(self, data_dir):
        return dataclasses.replace(self, data_dir=data_dir)

    def eval_command(self, weights):
        return f"eval_{self.key}.py {weights}" if self.padded else super().eval_command(weights)

    @property
    def folder(self):
        """It is `data_dir` or a folder in it, else a folder in `$RSAN_DATA_ROOT`, else in `data/`.

        Raises:
            UserError: There is no such folder.
        """
        root = Path(self.data_dir or os.environ.get("RSAN_DATA_ROOT") or ROOT / "data").expanduser()
        inside = [child for child in root.glob("*/") if child.name.lower() in (self.name.lower(), self.key)]
        if inside:
            return min(inside, key=lambda child: child.name != self.name)
        if self.data_dir and root.is_dir():
            return root
        raise UserError(f"{root / self.name}: no such folder; get {self.title} from {self.source} (see data/README.md) "
                        "or name its folder with --data-dir")

    def names(self, split):
        return tuple(name for subset in split.split("+") for name in self.splits[subset])

    def photographs(self, split):
        """As `Source.photographs`, with the files that there are.

        Raises:
            UserError: A file is missing, or exists twice; the message names the first one.
        """
        folder = self.folder
        names = [path.relative_to(folder).as_posix() for depth in ("*", "*/*", "*/*/*") for path in folder.glob(depth)]
        files_of = {name: {} for name in self.names(split)}
        for name, files in files_of.items():
            for role, place in self.places.items():
                pattern = place.format(name=name, number=name.split("_")[0]) + SUFFIX
                same = sorted(file for file in names if re.fullmatch(pattern, file, re.IGNORECASE))
                if len(same) > 1:
                    raise UserError(f"{folder}: {', '.join(same)} all claim to be the {role} of {name}; keep one")
                if same:
                    files[role] = folder / same[0]
        # A role may be missing for all images, but not for some: scores of some alone would mislead.
        roles = {"image", "label"}.union(*files_of.values())
        for name, files in files_of.items():
            for role in sorted(roles - files.keys()):
                hint = self.no_test_label if role == "label" and name in self.splits["test"] else ""
                raise UserError(f"{folder}: the {role} of {name} is missing{hint}; complete the folder from "
                                f"{self.source} (data/README.md lists layouts), or name another with --data-dir")
        return [Published(name, files, self) for name, files in files_of.items()]

    def check(self, split):
        published, differing = self.published(), []
        for photograph in self.photographs(split) if published else ():
            for role, path in photograph.files.items():
                own = published.get(path.stem.lower(), ())
                if photograph.digests[role] not in own and photograph.pixels[role] not in own:
                    differing.append(path.relative_to(self.folder).as_posix())
        if differing:
            print(f"warning: {len(differing)} files in {self.folder} differ from the published ones by SHA-256 "
                  f"({differing[0]}, ...): scores may not be comparable", file=sys.stderr)

    def published(self):
        """As `Source.published`, without folders, so that files are also recognised in other layouts."""
        stems = {}
        for line in [line for path in SUMS if path.is_file() for line in path.read_text(encoding="utf-8").splitlines()]:
            digest, path = line.split(maxsplit=1)
            if path.startswith(f"{self.name}/"):
                stems.setdefault(Path(path).stem.lower(), set()).add(digest)
        return stems


DRIVE = Dataset(
    name="DRIVE",
    title="DRIVE",
    key="drive",
    size=(584, 565),
    padded=592,
    diameter=537,  # range: 535 to 538
    splits={
        "train": tuple(f"{i}_training" for i in range(21, 41) if i not in (23, 40)),
        "validation": ("23_training", "40_training"),
        "test": tuple(f"{i:02d}_test" for i in range(1, 21)),
    },
    places={
        "image": r"\w+/images?/{name}",
        "label": r"\w+/(1st_manual|labels?)/{number}_manual1",
        "second": r"\w+/2nd_manual/{number}_manual2",
        "fov": r"\w+/mask/{name}_mask",
    },
    source="https://drive.grand-challenge.org",
    vessel_weight=1.4,
    no_test_label="; the challenge site's copy has no test labels, but the original archive has them",
)

_CHASE = [f"Image_{i:02d}{side}" for i in range(1, 15) for side in "LR"]

CHASEDB1 = Dataset(
    name="CHASEDB1",
    title="CHASE DB1",
    key="chase",
    size=(960, 999),
    padded=1008,
    diameter=919,  # range: 891 to 919
    splits={
        "train": tuple(name for name in _CHASE[:20] if name not in ("Image_09R", "Image_10L")),
        "validation": ("Image_09R", "Image_10L"),
        "test": tuple(_CHASE[20:]),
    },
    places={
        "image": r"(\w+/images?/)?{name}",
        "label": r"(\w+/labels?/)?{name}_1stHO",
        "second": "{name}_2ndHO",
    },
    source="https://researchinnovation.kingston.ac.uk/en/datasets/chasedb1-retinal-vessel-reference-dataset-4/",
    vessel_weight=0.85,
)

_HRF = [f"{i:02d}_{group}" for i in range(1, 16) for group in ("dr", "g", "h")]

HRF = Dataset(
    name="HRF",
    title="HRF",
    key="hrf",
    size=(2336, 3504),
    diameter=3259,  # range: 3258 to 3262
    splits={
        "train": tuple(_HRF[:12]),
        "validation": tuple(_HRF[12:15]),
        "test": tuple(_HRF[15:]),
    },
    places={"image": "images/{name}", "label": "manual1/{name}", "fov": "mask/{name}_mask"},
    source="https://www5.cs.fau.de/research/data/fundus-images",
    other_labels=("11_h", "12_h", "13_h"),  # see data/README.md
)

DATASETS = (DRIVE, CHASEDB1, HRF)
