"""Reads anyone's own photographs and labels, listed in a CSV, as the same `Example`s as the data sets.

    image,label,fov,second,split
    images/01.png,labels/01.png,masks/01.gif,,train

`image` and `label` are required. Without `fov`, the field of view is estimated; `second` is a second observer's label;
`split` is train, validation or test. Paths are relative to the CSV.
"""

import contextlib
import csv
import dataclasses
import io
import os
from pathlib import Path

import cv2
import numpy as np

from vessels import UserError
from vessels.data.fov import field_of_view
from vessels.data.images import read_mask, read_photograph
from vessels.data.published import DATASETS, Example, check_label, relief
from vessels.files import read_bytes, sha256

REQUIRED, OPTIONAL = ("image", "label"), ("fov", "second", "split")
SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class Row:
    """One photograph of a CSV. `place`: such as "mine.csv, line 2", for messages. `split`: may be "". `files` and
    `digests` (their SHA-256): by kind, "image", "label", "fov" or "second".
    """

    place: str
    split: str
    files: dict[str, Path]
    digests: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Table:
    """The content of a CSV: its path, and its photographs by name."""

    path: Path
    rows: dict[str, Row]

    key = "any"  # in the name of the script that scores it
    vessel_weight = 1.0  # as `published.Dataset` has it

    @property
    def name(self):
        return self.path.stem.replace("+", "_")  # "+" joins the names of sets

    title = name

    def part(self, split):
        """The rows of `split` ("train", "validation", "test", "train+validation"); all, if the CSV has no splits."""
        return {name: row for name, row in self.rows.items() if row.split in ("", *split.split("+"))}

    def divided(self, seed=0):
        """The same with a tenth of its training photographs (at least one) for validation, if it has none yet."""
        rows = {name: dataclasses.replace(row, split=row.split or "train") for name, row in self.rows.items()}
        training = [name for name, row in rows.items() if row.split == "train"]
        if training and not any(row.split == "validation" for row in rows.values()):
            chosen = np.random.default_rng(seed).permutation(len(training))[: max(len(training) // 10, 1)]
            for i in chosen:
                rows[training[i]] = dataclasses.replace(rows[training[i]], split="validation")
        return dataclasses.replace(self, rows=rows)


def read(path):
    """Reads a CSV: a `Table`.

    It is separated by commas, semicolons or tabs, in UTF-8 with or without a byte order mark; blank lines are skipped.

    Raises:
        UserError: The table is malformed, or a file is missing or listed twice. The message names the line.
    """
    path = Path(path).expanduser()
    if path.stem.lower() in ("synthetic", *(dataset.name.lower() for dataset in DATASETS)):
        raise UserError(f"{path}: the name {path.stem} is taken; rename the file")
    lines = cells(path)
    _, header = next(lines, (1, []))
    columns = [column.strip().lower() for column in header]
    for column in (*columns, *REQUIRED):
        if column not in (*REQUIRED, *OPTIONAL) or columns.count(column) != 1:
            problem = "more than one" if columns.count(column) > 1 else "no" if column in REQUIRED else "an unknown"
            raise UserError(f"{path}, line 1: {problem} column '{column}'; the first line must have the columns image "
                            "and label, and may have fov, second and split")
    rows = []
    for number, values in lines:
        place = f"{path}, line {number}"
        if len(values) != len(columns):
            raise UserError(f"{place}: {len(values)} cells where the first line has {len(columns)}; "
                            "correct the line (a name with a separator in it needs quotes)")
        rows.append(read_row(place, path.parent, dict(zip(columns, map(str.strip, values), strict=True))))
    if not rows:
        raise UserError(f"{path}: lists no photograph; add a line for each")
    if len({row.split == "" for row in rows}) > 1:
        place = next(row.place for row in rows if not row.split)
        raise UserError(f"{place}: split is empty here but not in other lines; fill in all or none")
    check_once(rows)
    return Table(path, dict(zip(names([row.files["image"] for row in rows]), rows, strict=True)))


def cells(path):
    """`(line number, cells)` of each line that is not blank."""
    content = read_bytes(path)
    try:
        text = content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8").lstrip("\ufeff")
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not text in UTF-8; save it as 'CSV UTF-8'") from None
    delimiter = max(",;\t", key=text.lstrip().partition("\n")[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True)
    try:
        for values in reader:
            if any(value.strip() for value in values):
                yield reader.line_num, values
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: {error}; correct the quotes") from None


def read_row(place, folder, values):
    split = values.pop("split", "").lower()
    if split not in ("", *SPLITS):
        raise UserError(f"{place}: split is '{split}'; it must be one of {', '.join(SPLITS)}")
    for kind in REQUIRED:
        if not values[kind]:
            raise UserError(f"{place}: {kind} is empty; fill it in or remove the line")
    # Windows separates folders by backslashes.
    files = {kind: folder / Path(value.replace("\\", "/")).expanduser() for kind, value in values.items() if value}
    with named(place):
        return Row(place, split, files, {kind: sha256(path) for kind, path in files.items()})


def names(paths):
    """Names of photographs in results: of their files, with folders and suffix only where needed to tell them apart."""
    paths = [Path(os.path.abspath(path)) for path in paths]  # noqa: PTH100 (`resolve` would follow links)
    whole = [Path(path.as_posix().replace(":", "").lstrip("/")) for path in paths]
    with contextlib.suppress(ValueError):  # on Windows, they may be on several drives
        common = os.path.commonpath([path.parent for path in paths])
        whole = [path.relative_to(common) for path in paths]
    without_suffix = [path.with_suffix("").as_posix() for path in whole]
    for found in ([path.stem for path in whole], without_suffix):
        if len({name.lower() for name in found}) == len(found):  # some file systems ignore case
            return found
    return [path.as_posix() for path in whole]


def check_once(rows):
    """Raises UserError if two rows have a photograph or label of the same content; masks may be shared."""
    seen = {}
    for row in rows:
        for kind in sorted(set(row.digests) - {"fov"}):
            other_kind, other = seen.setdefault(row.digests[kind], (kind, row))
            if (other_kind, other) != (kind, row):
                apart = f"; it must not be both {other.split} and {row.split}" if row.split != other.split else ""
                raise UserError(f"{row.place}: {row.files[kind]} is the same file as the {other_kind} of "
                                f"{other.place}{apart}; remove one")


def load(table, split):
    """Reads a part of a `Table` into memory, checked as published data sets are.

    Args:
        table: As `read` or `Table.divided` returns it.
        split: "train", "validation", "test", or "train+validation".

    Returns:
        list of `Example`, each of its photograph's own size.

    Raises:
        UserError: A file is unreadable or fails a check. The message names the CSV and its line.
    """
    rows = table.part(split)
    if not rows:
        given = " and ".join(sorted({row.split for row in table.rows.values()}))
        raise UserError(f"{table.path}: none of its {len(table.rows)} photographs has split "
                        f"{split.replace('+', ' or ')}, all have {given}; change the column split")
    if split == "test" and len({"second" in row.files for row in rows.values()}) > 1:
        place = next(row.place for row in rows.values() if "second" not in row.files)
        raise UserError(f"{place}: second is empty here but not in other lines; fill in all or none")
    return [example(name, row) for name, row in rows.items()]


def example(name, row):
    with named(row.place):
        image = read_photograph(row.files["image"])
        masks = {kind: read_mask(path, image.shape[:2]) for kind, path in row.files.items() if kind != "image"}
        heights = relief(image)
        for kind in {"label", "second"} & set(masks):
            check_label(row.files[kind], masks[kind], row.files["image"], heights)
        found, diameter = field_of_view(image)
        fov = masks.get("fov", found)
        if "fov" in masks:
            # A field of view contains the middle of its bounding box; an inverted mask does not.
            left, top, width, height = cv2.boundingRect(fov.astype("uint8"))
            if fov.mean() < 0.05 or not fov[top + height // 2, left + width // 2]:
                raise UserError(f"{row.files['fov']}: covers {fov.mean():.0%} of the photograph and not its middle; "
                                "is it empty or inverted? Correct it, or leave fov empty to have it estimated")
        return Example(name, image, masks["label"], fov, masks.get("second"), diameter)


def checksums(table, split):
    """`{"images/01.png": SHA-256}` of what `load` reads, paths relative to the CSV (or, on another drive, absolute)."""
    def relative(path):
        with contextlib.suppress(ValueError):
            path = Path(os.path.relpath(path, table.path.parent))
        return path.as_posix()

    return {relative(path): row.digests[kind] for row in table.part(split).values() for kind, path in row.files.items()}


@contextlib.contextmanager
def named(place):
    """Puts `place` in front of the message of a UserError."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{place}: {error}") from None
