"""What every source of photographs offers: a published set, a CSV, procedural photographs, or several of them."""

import contextlib
import dataclasses
import functools
import os
from pathlib import Path

import cv2
import numpy as np

from vessels import UserError
from vessels.data.images import checksum, read_mask, read_photograph
from vessels.files import sha256


@dataclasses.dataclass(frozen=True)
class Example:
    """One photograph in memory, with its label, field of view and second observer.

    `image`: uint8 `(height, width, 3)`, RGB. `label`, `fov` (field of view) and `second` (the second observer's label,
    or None): bool `(height, width)`. `diameter`: diameter in pixels of the field of view's whole circle, or None if
    it is unknown. `vessel_weight`: as in `Source`.
    """

    name: str
    image: np.ndarray
    label: np.ndarray
    fov: np.ndarray
    second: np.ndarray | None = None
    diameter: float | None = None
    vessel_weight: float = 1.0


@dataclasses.dataclass(frozen=True)
class Photograph:
    """One photograph of a source, not yet in memory.

    `files`: paths by role, "image", "label", "fov" or "second"; empty for a procedural photograph.
    """

    name: str
    files: dict[str, Path]

    @functools.cached_property
    def digests(self):
        """SHA-256 of the files, by role."""
        return {role: sha256(path) for role, path in self.files.items()}

    @functools.cached_property
    def pixels(self):
        """SHA-256 of the files' decoded pixels, by role: the same in every lossless format."""
        return {role: checksum(read_photograph(path) if role == "image" else read_mask(path))
                for role, path in self.files.items()}

    def read(self, size=None):
        """Reads and checks the files.

        Returns:
            `(image, masks)`: uint8 `(height, width, 3)`, and a dict of bool `(height, width)` by role.

        Raises:
            UserError: A file is unreadable or wrong, or the photograph is not of `size`, (height, width).
        """
        image = read_photograph(self.files["image"], size)
        masks = {role: read_mask(path, image.shape[:2]) for role, path in self.files.items() if role != "image"}
        if "fov" in masks:
            # A field of view contains the middle of its bounding box; an inverted mask does not.
            fov = masks["fov"]
            left, top, width, height = cv2.boundingRect(fov.astype("uint8"))
            if fov.mean() < 0.05 or not fov[top + height // 2, left + width // 2]:
                raise UserError(f"{self.files['fov']}: covers {fov.mean():.0%} of the photograph, and not its middle; "
                                "is it empty or inverted? Restore the original, or do without it")
        heights = relief(image)
        for role in sorted(masks.keys() - {"fov"}):
            path, mask = self.files[role], masks[role]
            if not 0 < mask.mean() <= 0.5:
                raise UserError(f"{path}: {mask.mean():.0%} of the pixels are vessel; is it empty or inverted? Restore "
                                "the original")
            # Vessels are darker than their surroundings: by .44 to 2.1 standard deviations for the labels of all 105
            # images of DRIVE, CHASE DB1, HRF (training) and LES-AV, but by at most .16 for another image's, or a
            # mirrored, label.
            if heights[mask].mean() >= -0.2 * heights.std():
                raise UserError(f"{path}: does not follow the vessels of {self.files['image'].name}; is it of another "
                                "image? Restore both")
        return image, masks

    def load(self):
        """Reads and checks the files: an `Example`. Raises `UserError` if one is unreadable or wrong."""


class Source:
    """Photographs with labels. A split is "train", "validation", "test" or "train+validation".

    Attributes:
        name: In results and records.
        title: In texts.
        key: In names of weights and runs.
        folder: Path to which those in records are relative.
        parts: The sources of which this one consists: only itself, unless it is `sources.Several`.
        general: Whether it is for the general network, which sees photographs of any camera at `widths`.
        own: Whether these are someone's own photographs.
        padded: Side of the square to which photographs are padded; None if the network sees them only scaled.
        widths: `Widths` at which networks trained on this source see a field of view.
        vessel_weight: Loss weight of vessel pixels in training the general network. The observers of different sets do
            not label the faintest vessels alike; this weight brings the best threshold on the training images near 0.5.
        other_labels: Names of photographs whose labels are not the set's own.
    """

    own = False
    vessel_weight = 1.0
    other_labels = ()

    @property
    def parts(self):
        return (self,)

    def at(self, data_dir):
        """This source with its folder in `data_dir`, if it is searched for: a `Source`."""
        return self

    def for_training(self, seed):
        """This source with photographs for validation, drawn by `seed` if it has none: a `Source`."""
        return self

    def published(self):
        """`{stem of a file's name in lower case: SHA-256 of the published file and of its pixels}`: dict of sets."""
        return {}

    def names(self, split):
        """Names of the photographs of a split: tuple of str. Reads no file."""

    def photographs(self, split):
        """The photographs of a split: list of `Photograph`. Raises `UserError` if a file is missing."""

    def check(self, split):
        """Warns on stderr (one line) of files that are not the published ones."""

    def eval_command(self, weights):
        """What scores `weights` on the test photographs: "eval_drive.py runs/drive-rsan-0/final.weights.h5"."""
        return f"eval_any.py {self.name} --weights {weights}"

    def load(self, split):
        """Reads a split into memory: list of `Example`. Raises as `photographs` and `Photograph.load` do."""
        return [photograph.load() for photograph in self.photographs(split)]

    def checksums(self, split):
        """`{"test/images/01_test.tif": SHA-256}` of the files of a split; absolute paths if on another drive."""
        def relative(path):
            with contextlib.suppress(ValueError):
                path = Path(os.path.relpath(path, self.folder))
            return path.as_posix()

        return {relative(path): photograph.digests[role] for photograph in self.photographs(split)
                for role, path in photograph.files.items()}

    def pixels(self, split):
        """`{"01_test": SHA-256, "01_test label": SHA-256}` of the pixels of photographs and labels."""
        return {photograph.name + end: photograph.pixels[role] for photograph in self.photographs(split)
                for role, end in (("image", ""), ("label", " label")) if role in photograph.pixels}


def relief(image):
    """float32 `(height, width)`: green channel minus its mean over the surroundings of each pixel."""
    green = image[..., 1].astype("float32")
    return green - cv2.blur(green, (image.shape[1] // 20,) * 2)
