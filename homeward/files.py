"""Files that hold anything about a child: written whole, readable by their owner alone."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from homeward.errors import StoreUnavailable


def write_private(path: Path, data: bytes) -> None:
    """Write `data` to `path` with mode 0600, atomically: old content or new, never a part.

    Raises `StoreUnavailable` with the system's reason when the folder cannot be written.
    """
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise StoreUnavailable(f"cannot write {path}: {error.strerror}", store=str(path)) from error
