"""Files that appear whole or not at all."""

import os
from pathlib import Path

from vessels import UserError


def write_atomically(path, content):
    """Writes str or bytes beside `path`, then renames: a reader or a crash never meets half a file.

    Raises:
        UserError: The disk is full, or the folder may not be written to.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); "
                        "make room or choose --output-dir") from None
