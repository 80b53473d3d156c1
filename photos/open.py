"""Chooses the photo store by the URI of the settings."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from homeward.config import PhotoStoreSettings
from homeward.errors import InvalidInput
from photos.folder import FolderPhotoStore
from photos.store import PhotoStore


def open_photo_store(settings: PhotoStoreSettings, data_dir: Path) -> PhotoStore:
    """Open the store that `settings.uri` names.

    "" is `data_dir`/photos, file:///folder that folder, s3://host[:port]/bucket[/prefix] a bucket.
    Raises `InvalidInput` (CONFIG_INVALID) for another URI, `StoreUnavailable` if the store does not
    answer.
    """
    if not settings.uri:
        return FolderPhotoStore(data_dir / "photos")
    parts = urlsplit(settings.uri)
    if parts.query or parts.fragment or parts.username or parts.password:
        raise _wrong("has no user, password, query or fragment; keys come from access_key and secret_key")
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise _wrong("of a folder is file:///absolute/path")
        return FolderPhotoStore(Path(unquote(parts.path)))
    if parts.scheme == "s3":
        bucket, _, prefix = parts.path.lstrip("/").partition("/")
        if not parts.hostname or not bucket:
            raise _wrong("of a bucket is s3://host:port/bucket/prefix")
        from photos.s3 import open_s3

        return open_s3(settings, parts.netloc, bucket, prefix)
    raise _wrong("begins with file:// or s3://, or is empty")


def _wrong(what: str) -> InvalidInput:
    return InvalidInput(f"a photo store's URI {what}", code="CONFIG_INVALID", field="photos.uri")
