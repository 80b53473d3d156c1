"""One process serves a data folder: Milvus Lite's file, SQLite's writer and the search log are its."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from homeward.errors import Conflict, StoreUnavailable


@contextmanager
def own_data_dir(folder: Path) -> Iterator[None]:
    """Hold the folder's lock while the context lasts; the kernel frees it when the process dies.

    Creates the folder, readable by its owner alone. Raises `Conflict` (DATA_DIR_OWNED) with the
    owner's process id when another process holds it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(folder / "owner.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreUnavailable(
            f"cannot use {folder} as data folder ({error.strerror}); choose another with --data-dir"
        ) from error
    try:
        try:
            _lock(handle)
        except BlockingIOError as error:
            owner = os.pread(handle, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise Conflict(
                f"{folder} is served by process {owner}; talk to that server, or stop it first",
                code="DATA_DIR_OWNED",
                process=owner,
            ) from error
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode("ascii"), 0)
        yield
    finally:
        os.close(handle)


def _lock(handle: int) -> None:
    """Take the lock; the short retries outlast somebody who only looks (`is_owned`)."""
    for _ in range(4):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.05)
        else:
            return
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_owned(folder: Path) -> bool:
    """Whether a living process serves the folder."""
    try:
        handle = os.open(folder / "owner.lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
