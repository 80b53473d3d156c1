"""Where backups lie: a folder or a prefix of an S3 bucket, one backup in each."""

from __future__ import annotations

from pathlib import Path

from cluster.backup.manifest import HEAD, MANIFEST, PIECES, Head
from homeward.config import BackupSettings, PhotoStoreSettings, Settings
from homeward.errors import Conflict, NotFound
from photos.documents import DocumentStore
from photos.open import open_documents_alone
from photos.s3_client import Called

_CALLED = Called(
    store="backup",
    bucket="backup's bucket",
    uri="the backup's place",
    field="place",
    settings="backup.s3_",
)


def open_place(place: str, settings: Settings, *, there: bool) -> DocumentStore:
    """The documents of a backup in a folder, or below s3://host:port/bucket/prefix.

    `there`: a folder that is missing is not made. Raises `NotFound` (BACKUP_NOT_FOUND), `InvalidInput` for a
    place that can be none, `StoreUnavailable`."""
    if "://" in place:
        store = _store_settings(settings.backup, settings.photos, place)
        return open_documents_alone(store, _CALLED)
    folder = Path(place).absolute()
    if there and not folder.is_dir():
        raise NotFound(f"there is no backup at {folder}", code="BACKUP_NOT_FOUND")
    return open_documents_alone(PhotoStoreSettings(uri=folder.as_uri()))


def clear(place: DocumentStore) -> None:
    """Remove what a backup that was never finished has left. Raises `Conflict` (BACKUP_EXISTS) if there is a
    whole one, or something else, which stays."""
    names = set(place.list_documents())
    if MANIFEST in names:
        raise Conflict("there is a backup in this place already: name another", code="BACKUP_EXISTS")
    if names and HEAD not in names:
        raise Conflict("this place holds something else than a backup: name another", code="BACKUP_EXISTS")
    remove(place)


def remove(place: DocumentStore) -> int:
    """Remove a backup, so that half of one is none at any moment; how many files went."""
    removed = int(place.delete_document(MANIFEST))
    for name in place.list_documents(PIECES):
        removed += place.delete_document(name)
    return removed + place.delete_document(HEAD)


def pieces_of(head: Head) -> str:
    """What the names of its pieces begin with: of another backup in the same place, given up, none is taken
    for one of this."""
    return f"{PIECES}{head.backup}/"


def _store_settings(settings: BackupSettings, photos: PhotoStoreSettings, uri: str) -> PhotoStoreSettings:
    own = settings.s3_access_key or settings.s3_secret_key
    return PhotoStoreSettings(
        uri=uri,
        region=settings.s3_region,
        secure=settings.s3_secure,
        access_key=settings.s3_access_key if own else photos.access_key,
        secret_key=settings.s3_secret_key if own else photos.secret_key,
    )
