"""Milvus Lite: one folder, owned by one process.

The engine runs in this process behind a gRPC port of its own. Here that port is a Unix socket in a
folder that nobody else may enter, because Lite knows no password and templates are biometric data.

Two habits of Lite are worked around. A flush hides the rows it moves from readers for a moment, so
`guard` lets one call in at a time. Deleted rows stay in its files even after compaction, so a gallery
is erased by copying it to a new collection; which collection is in use stands in one small file that is
replaced atomically, so a crash leaves either the old one or the new one whole.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import shutil
import tempfile
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pymilvus import MilvusClient

from homeward.errors import Corrupt, StoreUnavailable

_POINTER = "in-use.json"

# The engine logs a traceback for each failed call; the caller's error says it once.
logging.getLogger("milvus_lite").setLevel(logging.CRITICAL)

_opened: dict[Path, LiteFolder] = {}
_opening = threading.Lock()


class LiteFolder:
    """An opened folder, shared by the galleries of all models in it. Use `open_folder`."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        # A second to import, for whoever has no embedded gallery.
        from milvus_lite.adapter.grpc.server import start_server_in_thread
        from milvus_lite.exceptions import DataDirLockedError

        self.path = path
        self.users = 0
        self._calls = threading.RLock()
        self._turns: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
        self._known: dict[str, str] | None = None  # what the pointers' file says: nobody else writes it
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.chmod(0o700)
        self._socket = Path(tempfile.mkdtemp(prefix="homeward-"))  # mode 0700; short, as sockets need
        try:
            # The engine joins host and port by a colon, which is part of the socket's name then.
            address = f"unix:{self._socket}/gallery"
            self._server, self._engine, _ = start_server_in_thread(str(path), host=address, port=0)
        except DataDirLockedError as error:
            shutil.rmtree(self._socket, ignore_errors=True)
            raise StoreUnavailable(
                f"{path} is open in another process; stop it, or call its server instead", store="gallery"
            ) from error
        except BaseException:
            shutil.rmtree(self._socket, ignore_errors=True)
            raise
        self.client = MilvusClient(uri=f"{address}:0", timeout=timeout_s)

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Hold every other call off."""
        with self._calls:
            yield

    def turn_of(self, base: str) -> threading.Lock:
        """Held by whoever writes to the gallery `base` or rewrites it."""
        return self._turns[base]

    def in_use(self, base: str) -> str:
        """The collection that holds the gallery `base` now."""
        return self._pointers().get(base, base)

    def use(self, base: str, collection: str) -> None:
        """Make `collection`, which must be whole, the gallery `base`, now and after any crash."""
        self._sync_tree(self._folder(collection))
        self._point({**self._pointers(), base: collection})

    def drop(self, base: str) -> None:
        """Remove every collection that is or was the gallery `base`. A crash in between leaves what the next
        call removes, and a gallery that cannot be opened meanwhile."""
        for folder in sorted((self.path / "collections").iterdir()):
            if folder.name == base or folder.name.startswith(f"{base}_"):
                self.remove(folder.name)
        self._point({other: name for other, name in self._pointers().items() if other != base})

    def _point(self, pointers: dict[str, str]) -> None:
        new = self.path / f"{_POINTER}.new"
        with new.open("w", encoding="utf-8") as file:
            json.dump(pointers, file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.path / _POINTER)
        self._known = pointers
        _sync(self.path)

    def next_name(self, base: str) -> str:
        """A name for the collection that is to follow the one in use."""
        tail = self.in_use(base).removeprefix(base).removeprefix("_")
        return f"{base}_{int(tail or 0) + 1}"

    def recover(self, base: str) -> str:
        """The collection that holds the gallery `base`; files of other rewrites of it are removed.

        Raises `Corrupt` when the one in use is missing while another is there: nothing is removed then.
        """
        kept = self.in_use(base)
        with self.guard():
            others = [
                folder
                for folder in sorted((self.path / "collections").iterdir())
                if folder.name != kept and (folder.name == base or folder.name.startswith(f"{base}_"))
            ]
            if not self.client.has_collection(kept):
                if base in self._pointers() or any(self.client.has_collection(one.name) for one in others):
                    raise Corrupt(f"{self._folder(kept)} is missing; restore {self.path} from a backup")
                if self._folder(kept).is_dir():
                    self._folder(kept).rmdir()  # its creation was cut short before the first file
            for folder in others:
                self.remove(folder.name)
        return kept

    def remove(self, collection: str) -> None:
        """Remove the collection and every file of it, whole or not."""
        folder = self._folder(collection)
        if self.client.has_collection(collection):
            self.client.drop_collection(collection)
        shutil.rmtree(folder, ignore_errors=True)  # a crash may have left a part of it
        if folder.exists():
            raise StoreUnavailable(f"{folder} could not be removed; remove it", store="gallery")

    def sync_writes(self, collection: str) -> None:
        """Bring the collection's write-ahead log to the disk: Lite leaves it to the operating system,
        which survives kill -9 but no power cut."""
        log = self._folder(collection) / "wal"
        for file in log.iterdir() if log.is_dir() else ():
            _sync(file)

    def sync_files(self, collection: str) -> None:
        """Bring all of the collection's files to the disk, as after a flush."""
        self._sync_tree(self._folder(collection))

    def close(self) -> None:
        """Let go of the folder when its last user does."""
        with _opening:
            self.users -= 1
            if self.users > 0 or _opened.get(self.path) is not self:
                return
            del _opened[self.path]
            with self.guard():
                self.client.close()
                self._server.stop(grace=2).wait()
                self._engine.close()
                shutil.rmtree(self._socket, ignore_errors=True)

    def _pointers(self) -> dict[str, str]:
        if self._known is None:
            self._known = self._read_pointers()
        return self._known

    def _read_pointers(self) -> dict[str, str]:
        try:
            found: dict[str, Any] = json.loads((self.path / _POINTER).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise Corrupt(f"{self.path / _POINTER} cannot be read; restore it from a backup") from error
        return {str(base): str(collection) for base, collection in found.items()}

    def _folder(self, collection: str) -> Path:
        return self.path / "collections" / collection

    @staticmethod
    def _sync_tree(folder: Path) -> None:
        for parent, _, names in os.walk(folder):
            for name in names:
                _sync(Path(parent) / name)
            _sync(Path(parent))


def open_folder(path: Path, timeout_s: float) -> LiteFolder:
    """The folder, opened now or shared with whoever has it open in this process; `close` it once.

    Raises `StoreUnavailable` when another process has it.
    """
    key = path.absolute()
    with _opening:
        folder = _opened.get(key)
        if folder is None:
            folder = _opened[key] = LiteFolder(key, timeout_s)
        folder.users += 1
        return folder


@atexit.register
def _close_all() -> None:
    for folder in list(_opened.values()):
        folder.users = 1
        folder.close()


def _sync(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:  # compacted away, or flushed, meanwhile
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
