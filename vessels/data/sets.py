"""The published data sets, DRIVE and CHASE DB1: files, splits, sizes, fields of view."""

import dataclasses

from vessels.data.fov import Widths


@dataclasses.dataclass(frozen=True)
class Layout:
    """One common arrangement of a data set's files.

    `folders`: the folder of each split. `places`: paths of "image", "label", "second" and "fov" inside the
    data folder, as regular expressions without suffix that ignore case; `{folder}`, the image's `{name}` and
    its `{number}` are replaced. Without "fov", the field of view is estimated.
    """

    folders: dict[str, str]
    places: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set as the paper uses it. To add a set, add an instance."""

    name: str  # name of its folder, also used in results
    title: str
    key: str  # used in names of scripts and weights
    size: tuple[int, int]  # height, width
    padded: int  # side of the square that images are padded to
    diameter: int  # width in pixels of the fields of view: median of the training images, by `estimate_fov`
    splits: dict[str, tuple[str, ...]]
    layouts: tuple[Layout, ...]
    source: str
    # Loss weight of vessel pixels in training the general network. The observers of different sets do not label the
    # faintest vessels alike; this weight brings the best threshold on the set's training images near 0.5.
    vessel_weight: float = 1.0
    no_test_label: str = ""  # hint in the error message if test labels are missing

    @property
    def widths(self):
        """`Widths` to which fields of view are scaled for networks trained on this set: only one."""
        return Widths((self.diameter,))


AUTHORS = {"train": "train", "validation": "validate", "test": "test"}

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
    layouts=(
        Layout(
            {"train": "training", "validation": "training", "test": "test"},
            {
                "image": "{folder}/images/{name}",
                "label": "{folder}/1st_manual/{number}_manual1",
                "second": "{folder}/2nd_manual/{number}_manual2",
                "fov": "{folder}/mask/{name}_mask",
            },
        ),
        Layout(AUTHORS, {"image": "{folder}/images?/{name}", "label": "{folder}/labels?/{number}_manual1"}),
    ),
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
    layouts=(
        Layout({}, {"image": "{name}", "label": "{name}_1stHO", "second": "{name}_2ndHO"}),
        Layout(AUTHORS, {"image": "{folder}/images?/{name}", "label": "{folder}/labels?/{name}_1stHO"}),
    ),
    source="https://researchinnovation.kingston.ac.uk/en/datasets/chasedb1-retinal-vessel-reference-dataset-4/",
    vessel_weight=0.85,
)

DATASETS = (DRIVE, CHASEDB1)
