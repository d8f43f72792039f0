"""Reads files, with a clear error if that fails, and writes files completely or not at all."""

import contextlib
import errno
import hashlib
import json
import os
import time
import zlib
from pathlib import Path

from vessels import UserError

ROOT = Path(__file__).resolve().parent.parent
PARTIAL = ".partial"  # suffix of half-written files


def write_atomically(path, content):
    """Writes str or bytes to a temporary file, then renames it to `path`, so that no half-written file is ever read.

    Raises:
        UserError: The disk is full, or the folder may not be written to.
    """
    path = Path(path)
    short = zlib.crc32(os.fsencode(path.name))  # the whole name and more may be too long for a file system
    temporary = path.with_name(f".{short:x}.{os.getpid()}{PARTIAL}")
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
        raise cannot_write(path, error) from None


def cannot_write(path, error):
    """The `UserError` for an `OSError` in writing a file."""
    remedies = {errno.ENOSPC: "make room", errno.EEXIST: "a file has the name of its folder: rename it",
                errno.ENOTDIR: "a file has the name of its folder: rename it"}
    remedy = remedies.get(error.errno, "close the program that has it open, allow writing there")
    return UserError(f"{path}: cannot be written ({error.strerror}); {remedy}, or choose another folder")


def replace(temporary, path):
    """Renames, with retries: Windows refuses while a program, such as a virus scanner, has `path` open."""
    for _ in range(20):
        with contextlib.suppress(PermissionError):
            return temporary.replace(path)
        time.sleep(0.1)
    return temporary.replace(path)


def read_bytes(path):
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; correct the path or make it readable") from None
    if not content:
        raise UserError(f"{path}: the file is empty; restore the original")
    return content


def read_json(path):
    """The content of a JSON file: dict. Raises `UserError` when it cannot be read."""
    try:
        return dict(json.loads(read_bytes(path)))
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); restore or remove it") from None


def write_json(path, content):
    """Writes a dict as `write_atomically` does."""
    write_atomically(path, json.dumps(content, indent=1) + "\n")


def sha256(path):
    """SHA-256 of a file, in hexadecimal. Raises `UserError` when it cannot be read."""
    return hashlib.sha256(read_bytes(path)).hexdigest()
