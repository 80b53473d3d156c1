"""Files that hold anything about a child: written whole, readable by their owner alone."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from homeward.errors import StoreUnavailable


def write_private(path: Path, data: bytes) -> None:
    """Write `data` to `path` as `private_file` does."""
    with private_file(path) as file:
        file.write(data)


@contextmanager
def private_file(path: Path) -> Iterator[BinaryIO]:
    """A file to be written that becomes `path`, with mode 0600, when the context ends without an error: old
    content or new, never a part.

    Raises `StoreUnavailable` with the system's reason when the folder cannot be written.
    """
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise StoreUnavailable(f"cannot write {path}: {error.strerror}", store=str(path)) from error
