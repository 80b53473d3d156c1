"""Documents in a folder, beside its photos: root/.documents/<folder of the name>/<last part>=.

Without photos beside them they can lie in the folder itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from homeward.errors import NotFound
from photos.documents import AREA, check_beginning, check_first, document_name, document_path
from photos.folder_files import Folder, mapped, names, remove


class FolderDocuments:
    """`DocumentStore` in the folder of a `FolderPhotoStore`."""

    def __init__(self, root: Path, area: str = AREA) -> None:
        self._folder = Folder(root)
        self._area = root / area

    def put_document(self, name: str, data: bytes) -> None:
        """See `DocumentStore.put_document`."""
        target = self._path(name)
        with mapped(target):
            self._folder.write(target, data)

    def get_document(self, name: str, limit: int | None = None) -> bytes:
        """See `DocumentStore.get_document`."""
        check_first(limit)
        path = self._path(name)
        with mapped(path):
            try:
                with path.open("rb") as file:
                    return file.read(limit)
            except FileNotFoundError as error:
                raise NotFound("there is no such document", document=name) from error

    def list_documents(self, prefix: str = "") -> Sequence[str]:
        """See `DocumentStore.list_documents`."""
        folder, _, _ = check_beginning(prefix).rpartition("/")
        with mapped(self._area):
            return sorted(name for name in _walk(self._area, folder) if name.startswith(prefix))

    def delete_document(self, name: str) -> bool:
        """See `DocumentStore.delete_document`."""
        path = self._path(name)
        with mapped(path):
            return remove(path)

    def sweep(self, older_than_s: float = 3600.0) -> int:
        """See `DocumentStore.sweep`. Half-written photos go with it: they lie in the same folder."""
        return self._folder.sweep(older_than_s)

    def _path(self, name: str) -> Path:
        return self._area / document_path(name)


def _walk(area: Path, folder: str) -> Iterator[str]:
    """Names of the documents below one folder of them."""
    for entry in names(area / folder):
        path = f"{folder}/{entry}" if folder else entry
        name = document_name(path)
        if name is not None:
            yield name
        elif (area / path).is_dir():
            yield from _walk(area, path)
