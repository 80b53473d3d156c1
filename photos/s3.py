"""Photos in a bucket of any S3 endpoint.

Keys are `<prefix>/<agency>/<sha256>`, so that a listing comes sorted from the server.
"""

from __future__ import annotations

from collections.abc import Sequence

from homeward.errors import NotFound
from homeward.ids import check_sha256, photo_sha256
from photos.s3_bucket import S3Bucket
from photos.store import check_bytes, check_limit, decode_agency, encode_agency

_MAGIC = (
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (8, b"WEBP", "image/webp"),
    (4, b"ftypavif", "image/avif"),
    (4, b"ftyphei", "image/heic"),
    (4, b"ftypmif1", "image/heif"),
    (0, b"GIF8", "image/gif"),
    (0, b"BM", "image/bmp"),
    (0, b"II*\x00", "image/tiff"),
    (0, b"MM\x00*", "image/tiff"),
)


class S3PhotoStore:
    """`PhotoStore` in one bucket, below one prefix."""

    def __init__(self, bucket: S3Bucket) -> None:
        self._bucket = bucket

    def put(self, agency: str, data: bytes) -> str:
        """See `PhotoStore.put`."""
        sha256 = photo_sha256(data)
        self._bucket.put(_key(agency, sha256), data, media_type(data))
        return sha256

    def get(self, agency: str, sha256: str) -> bytes:
        """See `PhotoStore.get`."""
        data = self._bucket.get(_key(agency, sha256))
        if data is None:
            raise NotFound("there is no such photo", agency=agency, sha256=sha256)
        return check_bytes(agency, sha256, data)

    def exists(self, agency: str, sha256: str) -> bool:
        """See `PhotoStore.exists`."""
        return self._bucket.exists(_key(agency, sha256))

    def delete(self, agency: str, sha256: str) -> bool:
        """See `PhotoStore.delete`. Where the bucket keeps versions, all of them go."""
        return self._bucket.delete(_key(agency, sha256))

    def list(self, agency: str, after: str | None = None, limit: int = 1000) -> Sequence[str]:
        """See `PhotoStore.list`."""
        check_limit(limit)
        base = f"{encode_agency(agency)}/"
        start = None if after is None else base + check_sha256(after, "after")
        page: list[str] = []
        for entry in self._bucket.entries(base, after=start, page=limit):
            name = entry.key[len(base) :]
            if len(name) == 64:
                page.append(name)
            if len(page) == limit:
                break
        return page

    def agencies(self) -> Sequence[str]:
        """See `PhotoStore.agencies`."""
        named = [decode_agency(entry.key.rstrip("/")) for entry in self._bucket.entries("") if entry.folder]
        # Some servers go on listing a prefix after its last object went.
        return sorted(agency for agency in named if agency is not None and self.list(agency, limit=1))

    def sweep(self, older_than_s: float = 3600.0) -> int:  # noqa: ARG002 - nothing is ever left
        """See `PhotoStore.sweep`. A photo is one request here: nothing is ever left behind."""
        return 0


def media_type(data: bytes) -> str:
    """The media type that the first bytes speak of, for the object's Content-Type."""
    for offset, magic, name in _MAGIC:
        if data[offset : offset + len(magic)] == magic:
            return name
    return "application/octet-stream"


def _key(agency: str, sha256: str) -> str:
    return f"{encode_agency(agency)}/{check_sha256(sha256, 'sha256')}"
