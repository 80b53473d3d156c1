"""Photos in a folder: one file per photo, for one machine, a demo or a test.

    root/<agency>/<first 2 hex digits>/<next 2>/<sha256>
    root/.incoming/...      files being written
    root/.documents/...     `photos.folder_documents`

Being written apart, half-done files are found by `sweep` in one folder instead of in 65,536 per
agency. No agency's folder can begin with a dot: a dot is encoded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from homeward.errors import NotFound
from homeward.ids import check_sha256, photo_sha256
from photos.folder_files import Folder, mapped, names, remove, sync_folder
from photos.store import check_bytes, check_limit, decode_agency, encode_agency


class FolderPhotoStore:
    """`PhotoStore` in a folder of the local file system."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folder = Folder(root)

    def put(self, agency: str, data: bytes) -> str:
        """See `PhotoStore.put`. A file that is there with other bytes is mended."""
        sha256 = photo_sha256(data)
        target = self._path(agency, sha256)
        with mapped(target):
            if _holds(target, data):
                # Another writer may have renamed it a moment ago and not yet have made that last.
                sync_folder(target.parent)
            else:
                self._folder.write(target, data)
        return sha256

    def get(self, agency: str, sha256: str) -> bytes:
        """See `PhotoStore.get`."""
        path = self._path(agency, sha256)
        with mapped(path):
            try:
                data = path.read_bytes()
            except FileNotFoundError as error:
                raise NotFound("there is no such photo", agency=agency, sha256=sha256) from error
        return check_bytes(agency, sha256, data)

    def exists(self, agency: str, sha256: str) -> bool:
        """See `PhotoStore.exists`."""
        path = self._path(agency, sha256)
        with mapped(path):
            return path.is_file()

    def delete(self, agency: str, sha256: str) -> bool:
        """See `PhotoStore.delete`."""
        path = self._path(agency, sha256)
        with mapped(path):
            return remove(path)

    def list(self, agency: str, after: str | None = None, limit: int = 1000) -> Sequence[str]:
        """See `PhotoStore.list`."""
        check_limit(limit)
        if after is not None:
            check_sha256(after, "after")
        folder = self._root / encode_agency(agency)
        page: list[str] = []
        with mapped(folder):
            for sha256 in _walk(folder, after or ""):
                page.append(sha256)
                if len(page) == limit:
                    break
        return page

    def agencies(self) -> Sequence[str]:
        """See `PhotoStore.agencies`."""
        found = []
        with mapped(self._root):
            for name in names(self._root):
                agency = decode_agency(name)
                if agency is not None and next(_walk(self._root / name, ""), None) is not None:
                    found.append(agency)
        return sorted(found)

    def sweep(self, older_than_s: float = 3600.0) -> int:
        """See `PhotoStore.sweep`."""
        return self._folder.sweep(older_than_s)

    def _path(self, agency: str, sha256: str) -> Path:
        check_sha256(sha256, "sha256")
        return self._root / encode_agency(agency) / sha256[:2] / sha256[2:4] / sha256


def _walk(folder: Path, after: str) -> Iterator[str]:
    """Photos below one agency's folder, ascending, beyond `after`."""
    for first in names(folder):
        if first < after[:2]:
            continue
        for second in names(folder / first):
            if first + second < after[:4]:
                continue
            for name in names(folder / first / second):
                if name > after and len(name) == 64:
                    yield name


def _holds(path: Path, data: bytes) -> bool:
    try:
        return path.stat().st_size == len(data) and path.read_bytes() == data
    except FileNotFoundError:
        return False
