"""Photos in a folder: one file per photo, for one machine, a demo or a test.

    root/<agency>/<first 2 hex digits>/<next 2>/<sha256>
    root/.incoming/...      files being written; on the same file system, so that a rename is atomic

Being written apart, half-done files are found by `sweep` in one folder instead of in 65,536 per
agency. No agency's folder can be called `.incoming`: a dot is encoded.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from homeward.errors import NotFound, StoreUnavailable
from homeward.ids import check_sha256, photo_sha256
from photos.store import check_bytes, check_limit, decode_agency, encode_agency

_INCOMING = ".incoming"
_FILE_MODE = 0o600
_FOLDER_MODE = 0o700


class FolderPhotoStore:
    """`PhotoStore` in a folder of the local file system."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._incoming = root / _INCOMING
        with _mapped(root):
            self._make(self._incoming)

    def put(self, agency: str, data: bytes) -> str:
        """See `PhotoStore.put`. A file that is there with other bytes is mended."""
        sha256 = photo_sha256(data)
        target = self._path(agency, sha256)
        with _mapped(target):
            if _holds(target, data):
                # Another writer may have renamed it a moment ago and not yet have made that last.
                _sync_folder(target.parent)
                return sha256
            self._make(target.parent)
            temporary = self._incoming / f"{sha256}.{secrets.token_hex(8)}"
            try:
                _write_synced(temporary, data)
                temporary.replace(target)
            except BaseException:
                with suppress(OSError):
                    temporary.unlink()
                raise
            _sync_folder(target.parent)
        return sha256

    def get(self, agency: str, sha256: str) -> bytes:
        """See `PhotoStore.get`."""
        path = self._path(agency, sha256)
        with _mapped(path):
            try:
                data = path.read_bytes()
            except FileNotFoundError as error:
                raise NotFound("there is no such photo", agency=agency, sha256=sha256) from error
        return check_bytes(agency, sha256, data)

    def exists(self, agency: str, sha256: str) -> bool:
        """See `PhotoStore.exists`."""
        path = self._path(agency, sha256)
        with _mapped(path):
            return path.is_file()

    def delete(self, agency: str, sha256: str) -> bool:
        """See `PhotoStore.delete`."""
        path = self._path(agency, sha256)
        with _mapped(path):
            try:
                path.unlink()
            except FileNotFoundError:
                return False
            _sync_folder(path.parent)
            return True

    def list(self, agency: str, after: str | None = None, limit: int = 1000) -> Sequence[str]:
        """See `PhotoStore.list`."""
        check_limit(limit)
        if after is not None:
            check_sha256(after, "after")
        folder = self._root / encode_agency(agency)
        page: list[str] = []
        with _mapped(folder):
            for sha256 in _walk(folder, after or ""):
                page.append(sha256)
                if len(page) == limit:
                    break
        return page

    def agencies(self) -> Sequence[str]:
        """See `PhotoStore.agencies`."""
        found = []
        with _mapped(self._root):
            for name in _names(self._root):
                agency = decode_agency(name)
                if agency is not None and next(_walk(self._root / name, ""), None) is not None:
                    found.append(agency)
        return sorted(found)

    def sweep(self, older_than_s: float = 3600.0) -> int:
        """See `PhotoStore.sweep`."""
        removed = 0
        border = time.time() - older_than_s
        with _mapped(self._incoming):
            for name in _names(self._incoming):
                path = self._incoming / name
                with suppress(FileNotFoundError):  # its writer finished meanwhile
                    if path.stat().st_mtime <= border:
                        path.unlink()
                        removed += 1
        return removed

    def _path(self, agency: str, sha256: str) -> Path:
        check_sha256(sha256, "sha256")
        return self._root / encode_agency(agency) / sha256[:2] / sha256[2:4] / sha256

    def _make(self, folder: Path) -> None:
        """Create a folder with its parents so that they survive a crash."""
        if folder.is_dir():
            return
        if folder.parent != folder:
            self._make(folder.parent)
        with suppress(FileExistsError):
            folder.mkdir(mode=_FOLDER_MODE)
        _sync_folder(folder.parent)


def _walk(folder: Path, after: str) -> Iterator[str]:
    """Photos below one agency's folder, ascending, beyond `after`."""
    for first in _names(folder):
        if first < after[:2]:
            continue
        for second in _names(folder / first):
            if first + second < after[:4]:
                continue
            for name in _names(folder / first / second):
                if name > after and len(name) == 64:
                    yield name


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))  # noqa: PTH208 - names are all we need
    except (FileNotFoundError, NotADirectoryError):
        return []


def _holds(path: Path, data: bytes) -> bool:
    try:
        return path.stat().st_size == len(data) and path.read_bytes() == data
    except FileNotFoundError:
        return False


def _write_synced(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _FILE_MODE)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except PermissionError:
        return  # a parent that is not ours to read was there before us
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _mapped(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreUnavailable(
            f"the photo folder cannot be used ({error.strerror or type(error).__name__}): check that its "
            "disk has space and that this user may read and write it",
            store="photos",
            path=str(path),
        ) from error
