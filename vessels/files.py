"""Files that are read with a reason if they cannot be, and that appear whole or not at all."""

import hashlib
import os
import time
from pathlib import Path

from vessels import UserError

ROOT = Path(__file__).resolve().parent.parent
PARTIAL = ".partial"  # how the names of half-written files end
WINDOWS = os.name == "nt"


def write_atomically(path, content):
    """Writes str or bytes beside `path`, then renames: a reader or a crash never meets half a file.

    Raises:
        UserError: The disk is full, or the folder may not be written to.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        remedy = "close what has it open" if WINDOWS and isinstance(error, PermissionError) else "make room"
        raise UserError(f"{path}: cannot be written ({error.strerror}); {remedy} or choose --output-dir") from None


def replace(temporary, path):
    """Renames. Windows refuses while any program, a virus scanner or a viewer, has `path` open: that may pass."""
    for _ in range(20):
        try:
            return temporary.replace(path)
        except PermissionError:
            if not WINDOWS:
                raise
            time.sleep(0.1)
    return temporary.replace(path)


def read_bytes(path):
    try:
        content = path.read_bytes()
    except OSError as error:
        reason = "the link leads to no file" if path.is_symlink() else error.strerror
        raise UserError(f"{path}: {reason}; make it readable or put the file there") from None
    if not content:
        raise UserError(f"{path}: the file is empty; restore the original")
    return content


def sha256(path):
    """SHA-256 of a file, in hexadecimal. Raises `UserError` when it cannot be read."""
    return hashlib.sha256(read_bytes(path)).hexdigest()
