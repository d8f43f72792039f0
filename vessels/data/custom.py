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
import re
import unicodedata
from pathlib import Path

import cv2
import numpy as np

from vessels import UserError
from vessels.data.examples import Example, Photograph, Source
from vessels.data.fov import field_of_view
from vessels.data.images import say_once
from vessels.data.published import DATASETS
from vessels.files import read_bytes

REQUIRED, OPTIONAL = ("image", "label"), ("fov", "second", "split")
SPLITS = {"train": "train", "training": "train", "validation": "validation", "valid": "validation", "val": "validation",
          "test": "test", "": ""}


@dataclasses.dataclass(frozen=True)
class Row(Photograph):
    """One photograph of a CSV. `place`: such as "mine.csv, line 2". `split`: as the CSV has it, may be ""."""

    place: str
    split: str

    def load(self):
        with named(self.place):
            image, masks = self.read()
            estimated, diameter = field_of_view(image)
            fov = masks.get("fov", estimated)
            outside = (fov & ~estimated).sum() / fov.sum()
            if outside > 0.2:
                say_once(f"warning: {self.files['fov']}: {outside:.0%} of it lies where the photograph shows no "
                         "retina; is it of another photograph?")
            labelled = box(masks["label"] & fov) / box(fov)
            if labelled < 0.5:
                say_once(f"warning: {self.files['label']}: all vessels lie in {labelled:.0%} of the field of view; if "
                         "the rest was not labelled, make it black in fov")
            return Example(self.name, image, masks["label"], fov, masks.get("second"), diameter)


@dataclasses.dataclass(frozen=True)
class Table(Source):
    """The content of a CSV: its path, its photographs, and the split to which each belongs ("": to all)."""

    path: Path
    rows: tuple[Row, ...]
    splits: tuple[str, ...]

    key = "any"
    general, own, padded = False, True, None

    @property
    def name(self):
        return self.path.stem.replace("+", "_")  # "+" joins the names of sets

    title = name

    @property
    def folder(self):
        return self.path.parent

    def eval_command(self, weights):
        return f"eval_any.py {self.path} --weights {weights}"

    def names(self, split):
        return tuple(row.name for row in self.part(split))

    def part(self, split):
        """The rows of `split`; all, if the CSV has no splits."""
        wanted = ("", *split.split("+"))
        return [row for row, given in zip(self.rows, self.splits, strict=True) if given in wanted]

    def photographs(self, split):
        """As `Source.photographs`; UserError if there are none, or if only some have a second observer."""
        rows = self.part(split)
        if not rows:
            given = " and ".join(sorted(set(self.splits)))
            raise UserError(f"{self.path}: none of its {len(self.rows)} photographs has split "
                            f"{split.replace('+', ' or ')}, all have {given}; change the column split")
        if split == "test" and len({"second" in row.files for row in rows}) > 1:
            place = next(row.place for row in rows if "second" not in row.files)
            raise UserError(f"{place}: second is empty here but not in other lines; fill in all or none")
        return rows

    def for_training(self, seed=0):
        """The same with a tenth of its training photographs (at least one) for validation, if it has none yet."""
        splits = [split or "train" for split in self.splits]
        training = [i for i, split in enumerate(splits) if split == "train"]
        if training and "validation" not in splits:
            for i in np.random.default_rng(seed).permutation(len(training))[: max(len(training) // 10, 1)]:
                splits[training[i]] = "validation"
        return dataclasses.replace(self, splits=tuple(splits))


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
    columns = [column.lower() for column in header]
    if len(set(columns)) < len(columns) or not {*REQUIRED} <= {*columns} <= {*REQUIRED, *OPTIONAL}:
        raise UserError(f"{path}, line 1: the columns are {', '.join(columns)}; they must be image and label, and may "
                        "be fov, second and split, each once")
    rows = []
    for number, values in lines:
        place = f"{path}, line {number}"
        if len(values) > len(columns):
            raise UserError(f"{place}: {len(values)} cells where the first line has {len(columns)}; "
                            "correct the line (a name with a separator in it needs quotes)")
        rows.append(read_row(place, path.parent, dict(zip(columns, values, strict=False))))
    if not rows:
        raise UserError(f"{path}: lists no photograph; add a line for each")
    empty = [row.place for row in rows if not row.split]
    if 0 < len(empty) < len(rows):
        raise UserError(f"{empty[0]}: split is empty here but not in other lines; fill in all or none")
    unique = names([row.files["image"] for row in rows])
    rows = tuple(dataclasses.replace(row, name=name) for row, name in zip(rows, unique, strict=True))
    check_once(rows)
    return Table(path, rows, tuple(row.split for row in rows))


def cells(path):
    """`(line number, cells)` of each line that is not blank, up to its last cell that is not."""
    content = read_bytes(path)
    try:
        text = content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8").lstrip("\ufeff")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise UserError(f"{path}: is not text in UTF-8; save it as 'CSV UTF-8'")
    if first := re.match(r'"?sep=(.)[^\n]*', text):  # for a spreadsheet
        text = text[first.end():]
    delimiter = first[1] if first else max(",;\t", key=text.lstrip().partition("\n")[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True, skipinitialspace=True)
    try:
        for values in reader:
            values = [value.strip() for value in values]
            while values and not values[-1]:
                values.pop()
            if values:
                yield reader.line_num, values
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: {error}; correct the quotes") from None


def read_row(place, folder, values):
    """The `Row` of a line, still without a name; UserError if a cell is missing."""
    split = values.pop("split", "").lower()
    if split not in SPLITS:
        raise UserError(f"{place}: split is '{split}'; it must be train, validation or test")
    for role in REQUIRED:
        if not values.get(role):
            raise UserError(f"{place}: {role} is empty; fill it in or remove the line")
    files = {role: located(folder, value) for role, value in values.items() if value}
    return Row("", files, place, SPLITS[split])


def located(folder, value):
    """Path of a file; letters with accents may be composed in the CSV, and decomposed in the file's name."""
    value = value.replace("\\", "/")  # as Windows separates folders
    spellings = [folder / Path(spelling).expanduser() for spelling in (
        value, unicodedata.normalize("NFC", value), unicodedata.normalize("NFD", value))]
    return next((path for path in spellings if os.path.exists(path)), spellings[0])  # noqa: PTH110 (too long: False)


def names(paths):
    """Names of photographs in results: of their files, with folders and suffix only where needed to tell them apart."""
    # `resolve` would follow links. On Windows, the photographs may be on several drives, which become folders.
    paths = [Path(os.path.abspath(path).replace(":\\", "\\")) for path in paths]  # noqa: PTH100
    common = os.path.commonpath([path.parent for path in paths])
    whole = [path.relative_to(common) for path in paths]
    without_suffix = [path.with_suffix("").as_posix() for path in whole]
    for candidates in ([path.stem for path in whole], without_suffix):
        if len({name.lower() for name in candidates}) == len(candidates):  # some file systems ignore case
            return candidates
    return [path.as_posix() for path in whole]


def check_once(rows, published=()):
    """Raises UserError if a photograph or label occurs twice, in whatever format; masks may be shared.

    `published`: `{SHA-256: "DRIVE's 01_test"}` of those that no row may hold.
    """
    owners = dict(published)
    for row in rows:
        # Files first: a photograph that is given as its own label cannot be decoded as a label.
        for attribute in ("digests", "pixels"):
            with named(row.place):
                digests = getattr(row, attribute)
            for role in sorted(row.files.keys() - {"fov"}):
                own = f"the {role} of {row.place}"
                if (owner := owners.setdefault(digests[role], own)) != own:
                    raise UserError(f"{row.place}: {row.files[role]} is also {owner}; remove one of the two")


def box(mask):
    """Pixels of the box around the mask."""
    _, _, width, height = cv2.boundingRect(mask.astype("uint8"))
    return width * height


@contextlib.contextmanager
def named(place):
    """Puts `place` in front of the message of a UserError."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{place}: {error}") from None
