"""Documents in a bucket, beside its photos: <prefix>/.documents/<name>=; without photos <prefix>/<name>=."""

from __future__ import annotations

from collections.abc import Sequence

from homeward.errors import NotFound
from photos.documents import AREA, check_beginning, check_first, document_name, document_path
from photos.s3_bucket import S3Bucket

_MEDIA_TYPE = "application/octet-stream"


class S3Documents:
    """`DocumentStore` in the bucket of an `S3PhotoStore`."""

    def __init__(self, bucket: S3Bucket, area: str = AREA) -> None:
        self._bucket = bucket
        self._area = f"{area}/" if area else ""

    def put_document(self, name: str, data: bytes) -> None:
        """See `DocumentStore.put_document`. Where the bucket keeps versions, replaced ones go."""
        key = self._key(name)
        self._bucket.put(key, data, _MEDIA_TYPE)
        self._bucket.drop_superseded(key)

    def get_document(self, name: str, limit: int | None = None) -> bytes:
        """See `DocumentStore.get_document`."""
        data = self._bucket.get(self._key(name), check_first(limit))
        if data is None:
            raise NotFound("there is no such document", document=name)
        return data

    def list_documents(self, prefix: str = "") -> Sequence[str]:
        """See `DocumentStore.list_documents`."""
        entries = self._bucket.entries(self._area + check_beginning(prefix), deep=True)
        found = (document_name(entry.key.removeprefix(self._area)) for entry in entries)
        return sorted(name for name in found if name is not None)

    def delete_document(self, name: str) -> bool:
        """See `DocumentStore.delete_document`. Where the bucket keeps versions, all of them go."""
        return self._bucket.delete(self._key(name))

    def sweep(self, older_than_s: float = 3600.0) -> int:  # noqa: ARG002 - what was replaced needs no grace
        """See `DocumentStore.sweep`. Versions whose writer died before it had removed them."""
        return self._bucket.drop_superseded(self._area, folder=True)

    def _key(self, name: str) -> str:
        return self._area + document_path(name)
