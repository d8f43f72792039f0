"""Support for large folders: which files are photographs, a table that grows by rows, protection of files, threads."""

import collections
import csv
import errno
import hashlib
import io
import re
import shutil
import struct
import sys
import time
import unicodedata
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2

from vessels import UserError
from vessels.data.images import EXAMPLE, SUFFIXES, checksum
from vessels.files import write_atomically

WORKERS = 3  # while the network sees one photograph, the next is read and the previous one measured and written
TABLE = re.compile(r"vessels(-\d+-of-\d+)?\.csv")
MADE = ("weights", "threshold", "settings")  # columns that say how a row's results were made
# Pictures of predict.py hold this mark: in PNG a comment before the last chunk, in JPEG behind the end. It names the
# photograph, and the digest of what made them. Older versions wrote the first words alone.
MARK = re.compile(rb"rsan predict\.py(?: (sha256:\w{16}) (\w{12}))?")


def printable(name):
    """str of a file name; bytes that are not valid text become `\\udce9` and the like."""
    return str(name).encode("utf-8", "backslashreplace").decode()


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
    with path.open("rb") as file:
        file.seek(max(file.seek(0, io.SEEK_END) - 100, 0))
        found = MARK.search(file.read())
    return found and tuple(text and text.decode() for text in found.groups())


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
        marked = read_mark(path)
    except FileNotFoundError:
        if not path.is_symlink():
            return None
        marked = None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise UserError(f"{path}: this name is too long; rename the photograph") from None
        marked = None
    if not marked:
        raise UserError(f"{path}: exists and was not written by predict.py; rename it, or choose another --output-dir")
    if marked[0] != photograph:
        other = "another photograph" if marked[0] else "an older version, which does not say of which photograph"
        raise UserError(f"{path}: exists and was made from {other}; move it, or choose another --output-dir")
    return marked[1]


def stem(photograph):
    return Path(photograph.name.removesuffix(".gz")).stem


def place(folder, photograph, ending):
    """Path of a picture that is made of a photograph."""
    return folder / f"{stem(photograph)}_{ending}"


def no_photograph(path):
    """Why a file is not tried, in words that can be counted: str, or None if it is tried."""
    if path.name.startswith("._"):
        return "companion file of macOS"
    if path.is_dir():
        return "subfolder"
    if path.exists() and not path.is_file():
        return "special file"
    if TABLE.fullmatch(path.name) or (path.is_file() and read_mark(path)):
        return "predict.py result"
    return None


def in_folder(folder):
    """Photographs in a folder, sorted: list of `Path`. Prints what it skips, by kind."""
    photographs, skipped = [], collections.Counter()
    for path in sorted(folder.iterdir()):
        suffix = Path(path.name.lower().removesuffix(".gz")).suffix
        reason = no_photograph(path) or (None if suffix in SUFFIXES else path.suffix.lower() or "without suffix")
        if reason and not path.name.startswith("."):
            skipped[reason] += 1
        elif not path.name.startswith("."):
            photographs.append(path)
    if skipped:
        listed = ", ".join(f"{count} {reason}{'s' if count > 1 and reason[0].isalpha() else ''}"
                           for reason, count in sorted(skipped.items()))
        print(f"{printable(folder)}: skipped {listed}; to try one, name it", file=sys.stderr)
    return photographs


def collect(paths):
    """The photographs in `paths`, files or folders (without their subfolders): list of `Path`.

    Raises `UserError` if there are none, or if the results of two would have the same name.
    """
    photographs = {}
    for path in paths or [EXAMPLE]:
        try:
            reason = None if path.is_dir() else no_photograph(path)
            inside = in_folder(path) if path.is_dir() else [path] if path.exists() else []
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}); name others") from None
        if reason:
            print(f"{printable(path)}: skipped, a {reason}", file=sys.stderr)
        elif not inside:
            raise UserError(f"{path}: no photograph there; name files, or folders of {', '.join(sorted(SUFFIXES))}")
        for photograph in [] if reason else inside:
            other = photographs.setdefault(unicodedata.normalize("NFC", stem(photograph)).casefold(), photograph)
            if other.resolve() != photograph.resolve():
                raise UserError(f"{other} and {photograph}: the results of one would overwrite the other's; "
                                "rename one, or predict them into different folders with --output-dir")
    if not photographs:
        raise UserError("no photograph is left; name some")
    return list(photographs.values())


class Table:
    """vessels.csv, or one shard's part of it. Rows are appended; a crash loses at most the last one.

    Only the first shard's table has a header, so that `cat vessels-*-of-16.csv` is the whole table.

    Args:
        folder: Folder of the table, a `Path`.
        header: Names of the columns; the last is "photograph", an `identity`.
        made: The columns `MADE` of all new rows, a dict.
        shard: `(number, count)`, such as (3, 16) for the third of 16.

    Raises:
        UserError: A table in the folder has other columns or weights, or cannot be read or written.
    """

    def __init__(self, folder, header, made, shard=(1, 1)):
        number, shards = shard
        name = "vessels.csv" if shards == 1 else f"vessels-{number:0{len(str(shards))}}-of-{shards}.csv"
        self.folder, self.header, self.made, self.path = folder, list(header), made, folder / name
        tables = {path: self.read(path) for path in folder.glob("vessels*.csv") if TABLE.fullmatch(path.name)}
        rows, rest = tables.get(self.path, ([], ""))
        last = next(csv.reader([rest]), [])
        if last == self.header or (len(last) == len(header) and re.fullmatch(r"sha256:\w{16}", last[-1])):
            self.write("\n")  # an editor took the line end away
            rows.append(last)
        elif rest:
            write_atomically(self.path, self.path.read_bytes().removesuffix(rest.encode()))
            print(f"{printable(self.path)}: removed the last row, which is cut off: {rest}", file=sys.stderr)
        if number == 1 and not rows:
            self.write(",".join(header) + "\n")
        rows = (dict(zip(header, row, strict=True)) for rows, _ in tables.values() for row in rows)
        self.done = {(Path(row["file"]).name, row["photograph"], digest(row)) for row in rows}

    def read(self, path):
        """`(rows, rest)` of a table: lists of str, and the text after the last line end; checks each row."""
        try:
            lines = list(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline=""))
            rest = lines.pop() if lines and not lines[-1].endswith("\n") else ""
            rows = [row for row in csv.reader(lines) if row]
        except (OSError, ValueError, csv.Error) as error:
            raise UserError(f"{path}: cannot be read ({error}); move it, or choose another --output-dir") from None
        known = not rest or ",".join(self.header).startswith(rest)
        reasons = filter(None, map(self.foreign, rows or ([] if known else csv.reader([rest]))))
        if reason := next(reasons, None):
            raise UserError(f"{path}: {reason}; move it, or choose another --output-dir")
        return rows, rest

    def foreign(self, row):
        """Why a table with such a row is not continued: str, or None."""
        if row[0].startswith(("file;", "file\t")):
            return "a spreadsheet saved it with other separators than commas"
        if row[:4] == self.header[:4] != row[:5] and row != self.header:
            return "another version of predict.py began it"
        if len(row) != len(self.header):
            return "has other columns than predict.py writes"
        weights = row[self.header.index("weights")]
        if weights not in ("weights", self.made["weights"]):
            return f"was begun with the weights {weights}, not {self.made['weights']}"
        return None

    def append(self, row):
        """Adds a dict as a row; columns that it lacks stay empty."""
        file = str(row["file"])
        if not (file[0].isalnum() or file[0] in "./\\~_"):
            file = f"./{file}"  # a spreadsheet would take =, +, -, @ or a tab for the begin of a formula
        line = io.StringIO()
        row = {**row, **self.made, "file": file}
        csv.writer(line, lineterminator="\n").writerow([row.get(name, "") for name in self.header])
        self.write(line.getvalue())

    def write(self, text):
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8", newline="") as file:
                file.write(printable(text))
        except (FileExistsError, NotADirectoryError):
            file = next((path for path in (self.folder, *self.folder.parents) if path.is_file()), self.folder)
            raise UserError(f"{file}: a file, not a folder; choose another --output-dir") from None
        except PermissionError:
            raise UserError(f"{self.path}: may not be written; close the program that has it open, or choose another "
                            "--output-dir") from None
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written ({error.strerror}); make room or choose "
                            "--output-dir") from None


def in_order(function, items):
    """Yields `function(item)` for each of `items`, in order, computed in `WORKERS` threads."""
    with ThreadPoolExecutor(WORKERS) as pool:
        waiting = collections.deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > 2 * WORKERS:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


class Progress:
    """Shows progress on stderr: on a terminal one line that changes, else a line for each photograph."""

    def __init__(self, total):
        self.total, self.done, self.began, self.live = total, 0, time.time(), sys.stderr.isatty()

    def photograph(self, name, found):
        """Reports a finished photograph: its name, shortened to fit the line, and `found`, the result in words."""
        self.done += 1
        if self.live and self.done < self.total:
            left = (time.time() - self.began) / self.done * (self.total - self.done)
            found += f"  {left / 60:.0f} min left" if left > 90 else f"  {left:.0f} s left"
        name = printable(name)
        room = max(shutil.get_terminal_size().columns - len(self.counter() + found) - 2, 20) if self.live else len(name)
        self.line(self.counter() + (name if len(name) <= room else "..." + name[3 - room:]) + found, self.live)

    def failed(self, error):
        self.done += 1
        self.say(f"error: {error}")

    def say(self, text):
        """Prints a line that progress does not overwrite."""
        self.line(self.counter() + text, False)

    def close(self):
        if self.live:
            print(file=sys.stderr)

    def counter(self):
        return f"[{self.done}/{self.total}] "

    def line(self, text, passing):
        print("\r\x1b[K" * self.live + printable(text), end="" if passing else "\n", file=sys.stderr, flush=True)
