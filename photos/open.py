"""Chooses where photos and documents live by the URI of the settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from homeward.config import PhotoStoreSettings
from homeward.errors import InvalidInput
from photos.documents import AREA, DocumentStore
from photos.folder import FolderPhotoStore
from photos.folder_documents import FolderDocuments
from photos.store import PhotoStore

if TYPE_CHECKING:
    from photos.s3_bucket import S3Bucket
    from photos.s3_client import Called


def open_photo_store(settings: PhotoStoreSettings, data_dir: Path) -> PhotoStore:
    """Open the store that `settings.uri` names.

    "" is `data_dir`/photos, file:///folder that folder, s3://host[:port]/bucket[/prefix] a bucket.
    Raises `InvalidInput` (CONFIG_INVALID) for another URI, `StoreUnavailable` if the store does not
    answer.
    """
    place = _place(settings, data_dir)
    if isinstance(place, Path):
        return FolderPhotoStore(place)
    from photos.s3 import S3PhotoStore

    return S3PhotoStore(place)


def open_document_store(settings: PhotoStoreSettings, data_dir: Path) -> DocumentStore:
    """Open the documents in the same place as `open_photo_store`, which see."""
    return _documents(_place(settings, data_dir), AREA)


def open_documents_alone(settings: PhotoStoreSettings, called: Called | None = None) -> DocumentStore:
    """Open documents that have the place of `settings.uri` to themselves. Raises as `open_photo_store`;
    errors call the bucket and its settings as `called` says."""
    return _documents(_place(settings, Path(), called), "")


def _documents(place: Path | S3Bucket, area: str) -> DocumentStore:
    if isinstance(place, Path):
        return FolderDocuments(place, area)
    from photos.s3_documents import S3Documents

    return S3Documents(place, area)


def _place(settings: PhotoStoreSettings, data_dir: Path, called: Called | None = None) -> Path | S3Bucket:
    if not settings.uri:
        return data_dir / "photos"
    parts = urlsplit(settings.uri)
    if parts.query or parts.fragment or parts.username or parts.password:
        raise _wrong("has no user, password, query or fragment; keys come from access_key and secret_key")
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise _wrong("of a folder is file:///absolute/path")
        return Path(unquote(parts.path))
    if parts.scheme == "s3":
        bucket, _, prefix = parts.path.lstrip("/").partition("/")
        if not parts.hostname or not bucket:
            raise _wrong("of a bucket is s3://host:port/bucket/prefix")
        from photos.s3_bucket import open_bucket

        return open_bucket(settings, parts.netloc, bucket, prefix, called)
    raise _wrong("begins with file:// or s3://, or is empty")


def _wrong(what: str) -> InvalidInput:
    return InvalidInput(f"a photo store's URI {what}", code="CONFIG_INVALID", field="photos.uri")
