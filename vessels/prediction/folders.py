"""Support for large folders: which files are photographs, a table that grows by rows, protection of files, threads."""

import collections
import csv
import hashlib
import io
import os
import re
import struct
import sys
import unicodedata
import zlib
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import cv2

from vessels import UserError
from vessels.data.images import EXAMPLE, SUFFIXES, checksum
from vessels.files import cannot_write, write_atomically

WORKERS = 3  # while the network sees one photograph, the next is read and the previous one measured and written
TABLE = "vessels.csv"
MADE = ("weights", "threshold", "settings")  # columns that say how a row's results were made
# Pictures of predict.py hold this mark: in PNG a comment before the last chunk, in JPEG behind the end. It names the
# photograph, and the digest of what made them. Older versions wrote the first words alone.
MARK = re.compile(r"rsan predict\.py(?: (sha256:\w{16}) (\w{12}))?")


def identity(image):
    """Short checksum of a photograph's pixels: str. A spreadsheet does not take it for a number."""
    return f"sha256:{checksum(image)[:16]}"


def digest(row):
    """Short checksum of how a row of the table was made: str."""
    return hashlib.sha256(repr([row[name] for name in MADE]).encode()).hexdigest()[:12]


def mark(photograph, made=12 * "0"):
    """bytes that `read_mark` finds: `photograph` is an `identity`, `made` a `digest`."""
    return f"rsan predict.py {photograph} {made}".encode()


def read_mark(path):
    """`(photograph, made)` of `mark` in a picture of predict.py, None where it holds none; None for other files."""
    try:
        with path.open("rb") as file:
            file.seek(max(file.seek(0, io.SEEK_END) - 100, 0))
            marked = MARK.search(file.read().decode("latin-1"))
    except OSError:  # a folder, or a file that may not be read
        return None
    return marked and marked.groups()


def write_png(path, array, marked):
    """Writes uint8 or uint16, grey or RGB, with the bytes of a `mark`. Raises `UserError` if it cannot be written."""
    png = cv2.imencode(".png", array if array.ndim == 2 else array[..., ::-1])[1].tobytes()
    text = b"tEXtSoftware\0" + marked
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    write_atomically(path, png[:-12] + chunk + png[-12:])


def made_from(path, photograph):
    """How our picture `path` was made, a `digest`; None if there is no such file.

    Raises:
        UserError: It was not made by predict.py or not of `photograph`, an `identity`; or its name is too long.
    """
    try:
        path.lstat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; rename the photograph") from None
    marked = read_mark(path)
    if not marked or marked[0] != photograph:
        raise UserError(f"{path}: exists, and predict.py did not make it from this photograph; move it, or choose "
                        "another --output-dir")
    return marked[1]


def stem(photograph):
    return Path(photograph.name.removesuffix(".gz")).stem


def suffix(photograph):
    return Path(photograph.name.lower().removesuffix(".gz")).suffix


def place(folder, photograph, ending):
    """Path of a picture that is made of a photograph."""
    return folder / f"{stem(photograph)}_{ending}"


def skip_reason(path, named):
    """Why a file, `named` or found in a folder, is not tried, in words to be counted: str; None if it is tried."""
    if path.name.startswith("._"):
        return "companion file of macOS"
    if path.exists() and not path.is_file():
        return "subfolder" if path.is_dir() else "special file"
    if path.name == TABLE or read_mark(path):
        return "predict.py result"
    return None if named or suffix(path) in SUFFIXES else suffix(path) or "without suffix"


def collect(paths):
    """The photographs in `paths`, files or folders (without their subfolders): list of `Path`.

    Prints what it skips, by kind. Raises `UserError` if a file or a folder's photographs are missing, or if the results
    of two photographs would have the same name.
    """
    photographs, skipped, equal = {}, collections.Counter(), []
    for path in paths or [EXAMPLE]:
        try:
            folder = path.is_dir()
            files = sorted(path.glob("[!.]*")) if folder else [path]
            reasons = {file: skip_reason(file, named=not folder) for file in files if file.exists() or folder}
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}); name others") from None
        tried = [file for file, reason in reasons.items() if not reason]
        if not tried and (folder or not reasons):
            raise UserError(f"{path}: no photograph there; name files, or folders of {', '.join(sorted(SUFFIXES))}")
        skipped.update(filter(None, reasons.values()))
        for file in tried:
            other = photographs.setdefault(unicodedata.normalize("NFC", stem(file)).casefold(), file)
            if os.path.realpath(other) != os.path.realpath(file):  # Path.resolve raises an error on links in a circle
                equal.append(f"{other} and {file}")
    if equal:
        raise UserError(f"{', '.join(equal[:5])}: the results of one would overwrite the other's; "
                        "rename one, or predict them into different folders with --output-dir")
    if skipped:
        listed = ", ".join(f"{reason} ({count})" for reason, count in sorted(skipped.items()))
        print(f"skipped {listed}; to try one of another suffix, name it", file=sys.stderr)
    if not photographs:
        raise UserError("no photograph is left; name some")
    return list(photographs.values())


class Table:
    """vessels.csv, whose rows are appended; a crash loses at most the last one.

    Args:
        folder: Folder of the table, a `Path`.
        header: Names of the columns; the last is "photograph", an `identity`.
        made: The columns `MADE` of all new rows, a dict.

    Raises:
        UserError: The table has other columns or weights, or cannot be read or written.
    """

    def __init__(self, folder, header, made):
        self.folder, self.header, self.made, self.path = folder, list(header), made, folder / TABLE
        try:
            text = self.path.read_bytes().decode("utf-8-sig") if self.path.exists() else ""
            reader = csv.DictReader(io.StringIO(text, newline=""))
            rows, first = list(reader), reader.fieldnames
        except (OSError, ValueError, csv.Error) as error:
            raise self.refused(f"cannot be read ({error})") from None
        if first not in (None, self.header):
            raise self.refused("has other columns or separators than this version of predict.py writes")
        if text and not text.endswith("\n"):
            if not rows or re.fullmatch(r"sha256:\w{16}", rows[-1]["photograph"] or ""):
                self.write("\n")  # an editor took the line end away
            else:
                kept = text[: text.rindex("\n") + 1]
                write_atomically(self.path, kept)
                print(f"{self.path}: removed the last row, which is cut off: {text[len(kept):]}", file=sys.stderr)
                rows.pop()
        if others := {row["weights"] for row in rows} - {made["weights"]}:
            raise self.refused(f"was begun with the weights {others.pop()}, not {made['weights']}")
        if not text:
            self.write(",".join(header) + "\n")
        self.done = {(Path(row["file"]).name, row["photograph"], digest(row)) for row in rows}

    def refused(self, reason):
        return UserError(f"{self.path}: {reason}; move it, or choose another --output-dir")

    def append(self, row):
        """Adds a dict as a row; columns that it lacks stay empty."""
        file = str(row["file"])
        if not (file[0].isalnum() or file[0] in "./\\~_"):
            file = f"./{file}"  # a spreadsheet would take =, +, -, @ or a tab for the begin of a formula
        line = io.StringIO()
        csv.DictWriter(line, self.header, lineterminator="\n").writerow({**row, **self.made, "file": file})
        self.write(line.getvalue())

    def write(self, text):
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8", errors="backslashreplace", newline="") as file:
                file.write(text)
        except OSError as error:
            raise cannot_write(self.path, error) from None


def as_finished(function, items):
    """Yields `(item, function(item))` for each of `items` as soon as it is known, computed in `WORKERS` threads."""
    pool = ThreadPoolExecutor(WORKERS)
    try:
        futures = {pool.submit(function, item): item for item in items}
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        pool.shutdown(cancel_futures=True)
