"""Files in a folder of the local file system, written whole and made to last.

Files being written lie apart, in `INCOMING` on the same file system, so that a rename is atomic and what a
crash left is found in one folder.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from homeward.errors import StoreUnavailable
from homeward.telemetry import store_failed

INCOMING = ".incoming"

_FILE_MODE = 0o600
_FOLDER_MODE = 0o700


class Folder:
    """A store's folder. Methods raise `OSError`; callers hold them in `mapped`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._incoming = root / INCOMING
        with mapped(root):
            make_folder(self._incoming)

    def write(self, target: Path, data: bytes) -> None:
        """Write `target` whole or not at all, in place of what it was; it lasts when this returns."""
        make_folder(target.parent)
        temporary = self._incoming / f"{target.name}.{secrets.token_hex(8)}"
        try:
            _write_synced(temporary, data)
            temporary.replace(target)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        sync_folder(target.parent)

    def sweep(self, older_than_s: float) -> int:
        """Remove files that were begun so long ago and never finished; how many."""
        removed = 0
        border = time.time() - older_than_s
        with mapped(self._incoming):
            for name in names(self._incoming):
                path = self._incoming / name
                with suppress(FileNotFoundError):  # its writer finished meanwhile
                    if path.stat().st_mtime <= border:
                        path.unlink()
                        removed += 1
        return removed


def make_folder(folder: Path) -> None:
    """Create a folder with its parents so that they survive a crash."""
    if folder.is_dir():
        return
    if folder.parent != folder:
        make_folder(folder.parent)
    with suppress(FileExistsError):
        folder.mkdir(mode=_FOLDER_MODE)
    sync_folder(folder.parent)


def remove(path: Path) -> bool:
    """Remove a file so that it stays removed; whether there was one."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    sync_folder(path.parent)
    return True


def names(folder: Path) -> list[str]:
    """What lies in a folder, sorted; nothing if it is no folder."""
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208 - names are all we need
    except (FileNotFoundError, NotADirectoryError):
        return []


def sync_folder(folder: Path) -> None:
    """Make what was created, renamed or removed in a folder last."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except PermissionError:
        return  # a parent that is not ours to read was there before us
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def mapped(path: Path) -> Iterator[None]:
    """Turns the system's errors into `StoreUnavailable`."""
    try:
        yield
    except OSError as error:
        store_failed("photos", type(error).__name__)
        raise StoreUnavailable(
            f"a folder of photos or documents cannot be used ({error.strerror or type(error).__name__}): "
            "check that its disk has space and that this user may read and write it",
            store="photos",
            path=str(path),
        ) from error


def _write_synced(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _FILE_MODE)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
