"""Support for large folders: a table that grows by rows, protection of the user's files, threads, progress."""

import collections
import csv
import io
import shutil
import struct
import sys
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import cv2

from vessels import UserError
from vessels.files import write_atomically

WORKERS = 3  # while the network sees one photograph, the next is read and the previous one measured and written

# Our pictures end with a mark, so that the user's are not overwritten: in PNG a comment before the last chunk, IEND.
MARK = b"rsan predict.py"
_TEXT = b"tEXtSoftware\0" + MARK
_END = (struct.pack(">I", len(_TEXT) - 4) + _TEXT + struct.pack(">I", zlib.crc32(_TEXT))
         + struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND")))


def printable(name):
    """str of a file name; bytes that are not valid text become `\\udce9` and the like."""
    return str(name).encode("utf-8", "backslashreplace").decode()


def write_png(path, array):
    """Writes uint8 or uint16, grey or RGB, with our mark. Raises `UserError` if it cannot be written."""
    png = cv2.imencode(".png", array if array.ndim == 2 else array[..., ::-1])[1].tobytes()
    write_atomically(path, png[:-12] + _END)


def refuse_foreign(path):
    """Raises `UserError` if `path` exists and is not a picture with our mark."""
    try:
        if path.read_bytes().endswith((MARK, _END)):
            return
    except FileNotFoundError:
        if not path.is_symlink():
            return
    except OSError:
        pass
    raise UserError(f"{path}: exists and was not written by predict.py; rename it, or choose another --output-dir")


class Table:
    """vessels.csv, or one shard's part of it. Rows are appended; a crash loses at most the last one.

    Only the first shard's table has a header, so that `cat vessels-*-of-16.csv` is the whole table.

    Args:
        folder: Folder of the table, a `Path`.
        header: Names of the columns.
        shard: `(number, count)`, such as (3, 16) for the third of 16.

    Raises:
        UserError: The file exists with other columns, or cannot be read or written.
    """

    def __init__(self, folder, header, shard=(1, 1)):
        number, shards = shard
        name = "vessels.csv" if shards == 1 else f"vessels-{number:0{len(str(shards))}}-of-{shards}.csv"
        self.folder, self.header, self.path = folder, header, folder / name
        content = self.read(self.path) if self.path.exists() else ""
        whole = content[: content.rfind("\n") + 1]  # a crash may leave half a row
        if whole:
            first = next(csv.reader(whole.splitlines()))
            ours = first == list(header) if number == 1 else len(first) == len(header)
        else:
            ours = number > 1 or ",".join(header).startswith(content)
        if not ours:
            raise UserError(f"{self.path}: has other columns than predict.py writes; move it, or choose another "
                            "--output-dir")
        if whole != content:
            write_atomically(self.path, whole)
        if number == 1 and not whole:
            self.append(dict(zip(header, header, strict=True)))

    @staticmethod
    def read(path):
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: cannot be read ({error}); choose another --output-dir") from None

    def append(self, row):
        """Adds a dict as a row; columns that it lacks stay empty."""
        line = io.StringIO()
        csv.writer(line, lineterminator="\n").writerow([row.get(name, "") for name in self.header])
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8", newline="") as file:
                file.write(printable(line.getvalue()))
        except (FileExistsError, NotADirectoryError):
            file = next((one for one in (self.folder, *self.folder.parents) if one.is_file()), self.folder)
            raise UserError(f"{file}: a file, not a folder; choose another --output-dir") from None
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written ({error.strerror}); make room or choose "
                            "--output-dir") from None

    def files(self):
        """Names of the photographs in all tables of the folder, of every shard: a set of str."""
        tables = [csv.reader(io.StringIO(self.read(path))) for path in sorted(self.folder.glob("vessels*.csv"))]
        return {row[0] for table in tables for row in table if row}


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
