"""Reads the published data sets, which `vessels/data/sets.py` describes, and checks their files."""

import dataclasses
import os
import re
import sys
from pathlib import Path

import cv2
import numpy as np

from vessels import UserError
from vessels.data.fov import estimate_fov
from vessels.data.images import read_image, read_mask
from vessels.data.sets import CHASEDB1, DATASETS, DRIVE, Dataset, Layout
from vessels.files import ROOT, sha256

__all__ = ["CHASEDB1", "DATASETS", "DRIVE", "Dataset", "Example", "Layout", "checksums", "files", "find", "load",
           "published_checksums"]

SUMS = ROOT / "data" / "SHA256SUMS"
SUFFIX = r"\.(tiff?|png|jpe?g|gif|bmp|ppm)"


@dataclasses.dataclass(frozen=True)
class Example:
    """One photograph with its label, field of view and second observer.

    `image`: uint8 `(height, width, 3)`, RGB. `label`, `fov` (field of view) and `second` (the second observer's label,
    or None): bool `(height, width)`. `diameter`: diameter in pixels of the field of view's whole circle, or None if
    it is unknown. `vessel_weight`: as in `Dataset`.
    """

    name: str
    image: np.ndarray
    label: np.ndarray
    fov: np.ndarray
    second: np.ndarray | None = None
    diameter: float | None = None
    vessel_weight: float = 1.0


def find(dataset, data_dir=None):
    """Folder of the data set: a `Path`.

    It is `data_dir` or a folder in it, else a folder in `$RSAN_DATA_ROOT`, else in `data/`.

    Raises:
        UserError: There is no such folder.
    """
    root = Path(data_dir or os.environ.get("RSAN_DATA_ROOT") or ROOT / "data").expanduser()
    names = {re.sub(r"\W", "", alias.lower()) for alias in (dataset.name, dataset.title, dataset.key)}
    inside = [child for child in _entries(root)
              if re.sub(r"[\W_]", "", child.name.lower()) in names and child.is_dir()]
    if inside:
        return min(inside, key=lambda child: child.name != dataset.name)
    if data_dir and root.is_dir():
        return root
    raise UserError(f"{root if data_dir else root / dataset.name}: no such folder; get {dataset.title} from "
                    f"{dataset.source} (see data/README.md) or name its folder with --data-dir")


def files(dataset, split, data_dir=None):
    """Paths of a split's files: `{name: {"image": Path, "label": Path, ...}}`.

    "fov" is included if the layout has masks, "second" if the folder has the second observer's labels.

    Raises:
        UserError: A file is missing, or exists twice; the message names the first one.
    """
    folder = find(dataset, data_dir)
    parts = {name: part for part in split.split("+") for name in dataset.splits[part]}
    layout, found = _best_layout(folder, dataset, parts)
    if not any(paths["image"] for paths in found.values()):
        others = [f" (it contains {other.title})" for other in DATASETS if other is not dataset and any(
            _locate(folder, layout, "image", name, part) for layout in other.layouts
            for part, members in other.splits.items() for name in members)]
        raise UserError(f"{folder}: no {split} image of {dataset.title} in any layout of data/README.md"
                        f"{''.join(others)}; get it from {dataset.source} or name its folder with --data-dir")
    # The second observer may be missing for all images, but not for some: scores of only some images would mislead.
    observers = any(paths.get("second") for paths in found.values())
    for name, paths in found.items():
        for kind, path in paths.items():
            if path is None and (kind != "second" or observers):
                place = folder / _place(layout, kind, name, parts[name]).replace("?", "")
                official = layout is dataset.layouts[0]
                hint = dataset.no_test_label if official and (kind, parts[name]) == ("label", "test") else ""
                raise UserError(f"{place}.*: missing, the {kind} of {name}{hint}; "
                                f"complete the folder from {dataset.source}")
    return {name: {kind: path for kind, path in paths.items() if path} for name, paths in found.items()}


def _best_layout(folder, dataset, parts):
    """`(layout, {name: {kind: path or None}})`: the first with all photographs and labels, else the one with most.

    Photographs alone do not identify a layout: both layouts of DRIVE have test/images/01_test.tif.
    """
    fullest, most = None, -1
    for layout in dataset.layouts:
        found = {name: {kind: _locate(folder, layout, kind, name, part) for kind in layout.places}
                 for name, part in parts.items()}
        count = sum(paths[kind] is not None for paths in found.values() for kind in ("image", "label"))
        if count > most:
            fullest, most = (layout, found), count
        if count == 2 * len(found):
            break
    return fullest


def _place(layout, kind, name, part):
    return layout.places[kind].format(folder=layout.folders.get(part), name=name, number=name.split("_")[0])


def _locate(folder, layout, kind, name, part):
    found = [folder]
    for pattern in (_place(layout, kind, name, part) + SUFFIX).split("/"):
        entries = [entry for parent in found for entry in _entries(parent)]
        found = [entry for entry in entries if re.fullmatch(pattern, entry.name, re.I)]
    if len(found) > 1:
        listed = ", ".join(sorted(str(path.relative_to(folder)) for path in found))
        raise UserError(f"{folder}: {listed} all claim to be the {kind} of {name}; keep one")
    return found[0] if found else None


def _entries(folder):
    try:
        return list(folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}; make the folder readable") from None


def load(dataset, split, data_dir=None, quiet=False):
    """Reads a split into memory, and checks its files.

    Args:
        dataset: `DRIVE`, `CHASEDB1` or another `Dataset`.
        split: "train", "validation", "test", or "train+validation".
        data_dir: The data set's folder or its parent folder; see `find`.
        quiet: Omit the warning on stderr (one line) that lists files which differ from the published ones.

    Returns:
        list of `Example`.

    Raises:
        UserError: A file is missing, unreadable or wrong.
    """
    folder, examples, differing, total = find(dataset, data_dir), [], [], 0
    digests = published_checksums(dataset)
    owners = {digest: name for name, digest in digests.items()}
    for name, paths in files(dataset, split, data_dir).items():
        image = read_image(paths["image"], dataset.size)
        masks = {kind: read_mask(path, dataset.size) for kind, path in paths.items() if kind != "image"}
        heights = relief(image)
        for kind in ("label", "second"):
            if kind in masks:
                check_label(paths[kind], masks[kind], paths["image"], heights, f" from {dataset.source}")
        fov = masks["fov"] if "fov" in masks else estimate_fov(image)
        if "fov" in masks and fov.mean() < 0.5:
            raise UserError(f"{paths['fov']}: the field of view covers {fov.mean():.0%} of the image; is it "
                            f"inverted? Restore it from {dataset.source}")
        for path in paths.values():
            digest = sha256(path)
            if owners.get(digest, path.name.lower()) != path.name.lower():
                raise UserError(f"{path}: has the content of the published {owners[digest]}; "
                                f"restore it from {dataset.source}")
            total += 1
            if digests and digests.get(path.name.lower()) != digest:
                differing.append(path.relative_to(folder).as_posix())
        examples.append(Example(name, image, masks["label"], fov, masks.get("second"),
                                vessel_weight=dataset.vessel_weight))
    if differing and not quiet:
        shown = ", ".join(differing[:3]) + ", ..." * (len(differing) > 3)
        print(f"warning: {len(differing)} of {total} files in {folder} differ from the published ones by SHA-256 "
              f"({shown}): scores may not be comparable", file=sys.stderr)
    return examples


def published_checksums(dataset):
    """`{"01_test.tif": SHA-256}` of the set's published files, names in lower case, from data/SHA256SUMS.

    Without folders, so that unchanged files are also recognised in other layouts.
    """
    lines = SUMS.read_text(encoding="utf-8").splitlines() if SUMS.is_file() else []
    entries = [line.split(maxsplit=1) for line in lines if f" {dataset.name}/" in line]
    return {Path(path).name.lower(): digest for digest, path in entries}


def checksums(dataset, split, data_dir=None):
    """`{"test/images/01_test.tif": SHA-256}` of the files that `load` reads. Raises `UserError` as `files` does."""
    folder = find(dataset, data_dir)
    return {path.relative_to(folder).as_posix(): sha256(path)
            for paths in files(dataset, split, data_dir).values() for path in paths.values()}


def relief(image):
    """float32 `(height, width)`: green channel minus its mean over the surroundings of each pixel."""
    green = image[..., 1].astype("float32")
    return green - cv2.blur(green, (image.shape[1] // 20,) * 2)


def check_label(path, label, photograph, heights, source=""):
    """Raises UserError if `label` cannot belong to `photograph`, a path; `heights` is that image's `relief`."""
    if not 0 < label.mean() <= 0.5:
        raise UserError(f"{path}: {label.mean():.0%} of the pixels are vessel; is it empty or inverted? "
                        f"Restore it{source}")
    # Vessels are darker than their surroundings: by .44 to 1.9 standard deviations for the labels of all 90 images of
    # DRIVE, CHASE DB1 and LES-AV, but by at most .16 for the label of another image, or a mirrored label.
    if heights[label].mean() >= -0.2 * heights.std():
        raise UserError(f"{path}: does not follow the vessels of {photograph.name}; is it of another image? "
                        f"Restore both{source}")
