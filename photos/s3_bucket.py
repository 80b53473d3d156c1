"""A bucket of any S3 endpoint, through MinIO's SDK and, for small objects, a quicker client: what lies below
one prefix, and its errors as ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO

from minio import Minio
from minio.commonconfig import ENABLED
from minio.error import S3Error
from minio.helpers import check_bucket_name
from minio.versioningconfig import SUSPENDED

from homeward.config import PhotoStoreSettings
from homeward.errors import HomewardError, InvalidInput, StoreUnavailable
from homeward.telemetry import store_failed
from photos.s3_client import Called, find_keys, open_client
from photos.s3_errors import FAILURES, advice, answer_of
from photos.s3_put import SMALL_BYTES, SmallPuts, speaks

_ABSENT = frozenset({"NoSuchKey", "NoSuchObject", "NoSuchVersion", "ResourceNotFound"})
_PART_MIN = 5 * 1024 * 1024  # what S3 asks of a part
_PAGE = 1000  # entries of a listing
_PHOTOS = Called()


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a listing."""

    key: str  # below the bucket's prefix
    folder: bool
    size: int = 0
    etag: str = ""  # without its quotes


@dataclass(frozen=True, slots=True)
class Start:
    """The first bytes of an object, and what its server says of the whole."""

    data: bytes
    size: int
    etag: str


def open_bucket(
    settings: PhotoStoreSettings, endpoint: str, name: str, prefix: str, called: Called | None = None
) -> S3Bucket:
    """Connect to `endpoint` (host[:port]) and make sure of the bucket, creating it if it is missing.

    Raises what `connect` raises, and `StoreUnavailable` if the endpoint does not answer or refuses us.
    """
    bucket = connect(settings, endpoint, name, prefix, called or _PHOTOS)
    bucket.ensure(settings.region)
    return bucket


def connect(
    settings: PhotoStoreSettings, endpoint: str, name: str, prefix: str, called: Called = _PHOTOS
) -> S3Bucket:
    """The bucket at `endpoint`, which is not asked anything yet. Keys: see `find_keys`.

    Raises `InvalidInput` (CONFIG_INVALID) for names that S3 cannot have, and without keys.
    """
    keys = find_keys(settings, called)
    client = open_client(settings, endpoint, called, keys)
    try:
        check_bucket_name(name)
    except ValueError as error:
        raise InvalidInput(
            f"the bucket of {called.uri} has no valid name: {error}",
            code="CONFIG_INVALID",
            field=called.field,
        ) from error
    puts = SmallPuts(settings, endpoint, name, keys) if speaks(endpoint) else None
    return S3Bucket(client, name, prefix, called, puts)


class S3Bucket:
    """The objects of one bucket below one prefix. Keys are given without it."""

    def __init__(
        self,
        client: Minio,
        name: str,
        prefix: str = "",
        called: Called = _PHOTOS,
        puts: SmallPuts | None = None,
    ) -> None:
        """`puts`: for small objects, where it is at hand."""
        self._client = client
        self._puts = puts
        self._name = name
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._called = called
        self._versioned = False

    def ensure(self, region: str) -> None:
        """Create the bucket if it is missing, and note whether it keeps versions."""
        with self.mapped():
            try:
                if not self._client.bucket_exists(self._name):
                    self._client.make_bucket(self._name, region)
            except ValueError as error:
                raise InvalidInput(
                    f"the bucket of photos.uri has no valid name: {error}",
                    code="CONFIG_INVALID",
                    field="photos.uri",
                ) from error
            except S3Error as error:
                if error.code not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                    raise
            try:
                status = self._client.get_bucket_versioning(self._name).status
                self._versioned = status in (ENABLED, SUSPENDED)
            except S3Error as error:
                if error.code not in ("NotImplemented", "MethodNotAllowed"):
                    raise

    def put(self, key: str, data: bytes, media_type: str) -> None:
        """Write an object. The server makes it visible when it is whole."""
        with self.mapped():
            etag: str | None = None
            if self._puts is not None and len(data) <= SMALL_BYTES:
                etag = self._puts.put(self._prefix + key, data, media_type)
            if etag is None:
                written = self._client.put_object(
                    self._name,
                    self._prefix + key,
                    BytesIO(data),
                    len(data),
                    content_type=media_type,
                    # One request whatever the size: parts of an upload that died would stay unseen.
                    part_size=max(len(data), _PART_MIN),
                )
                etag = written.etag
            if not etag:  # see `_promised`
                raise _cut_off()

    def get(self, key: str, limit: int | None = None) -> bytes | None:
        """The object's bytes, or the first `limit` of them; None if there is no object."""
        with self.mapped():
            try:
                response = self._client.get_object(self._name, self._prefix + key, length=limit or 0)
            except S3Error as error:
                if error.code in _ABSENT:
                    return None
                if error.code == "InvalidRange":  # an empty object has no first bytes
                    return b""
                raise
            try:
                data: bytes = response.read()
            finally:
                response.close()
                response.release_conn()
            if len(data) < _promised(response.headers, data):
                raise _cut_off()
        return data if limit is None else data[:limit]

    def start(self, key: str, most: int) -> Start | None:
        """The object's first `most` bytes as they are stored; None if there is no object."""
        with self.mapped():
            try:
                response = self._client.get_object(self._name, self._prefix + key)
            except S3Error as error:
                if error.code in _ABSENT:
                    return None
                raise
            try:
                data: bytes = response.read(most, decode_content=False)
            finally:
                response.close()
                response.release_conn()
            size = _promised(response.headers, data)
            if len(data) < min(size, most):
                raise _cut_off()
        return Start(data, size, _bare(response.headers.get("ETag")))

    def exists(self, key: str) -> bool:
        """Whether there is such an object."""
        with self.mapped():
            try:
                found = self._client.stat_object(self._name, self._prefix + key)
            except S3Error as error:
                if error.code in _ABSENT:
                    return False
                raise
            if not found.etag:  # see `_promised`
                raise _cut_off()
        return True

    def delete(self, key: str) -> bool:
        """Remove an object, where the bucket keeps versions all of them; whether there was one."""
        there = self.exists(key)
        if self._versioned:
            self._remove_versions(key, folder=False, superseded=False)
        elif there:
            with self.mapped():
                self._client.remove_object(self._name, self._prefix + key)
        return there

    def drop_superseded(self, key: str, *, folder: bool = False) -> int:
        """Remove the versions of an object, or of all below a folder, that newer ones replaced; how many."""
        return self._remove_versions(key, folder=folder, superseded=True) if self._versioned else 0

    def entries(
        self, prefix: str, *, deep: bool = False, after: str | None = None, page: int = _PAGE
    ) -> Iterator[Entry]:
        """What has this prefix, in order of keys, beyond `after`; folders as such unless `deep`."""
        with self.mapped():
            for item in self._client.list_objects(
                self._name,
                prefix=self._prefix + prefix or None,
                recursive=deep,
                start_after=None if after is None else self._prefix + after,
                extra_query_params={"max-keys": str(min(page, _PAGE))},
            ):
                key = str(item.object_name)[len(self._prefix) :]
                yield Entry(key, item.is_dir, item.size or 0, _bare(item.etag))

    @contextmanager
    def mapped(self) -> Iterator[None]:
        """Turns the SDK's errors into `StoreUnavailable`; `answer` of its details is the server's code."""
        try:
            yield
        except HomewardError:
            raise
        except FAILURES as error:
            code = answer_of(error)
            store_failed(self._called.store, type(error).__name__)
            raise StoreUnavailable(
                f"the {self._called.bucket} {self._name!r} cannot be used: "
                f"{advice(error, code, self._called)}",
                store=self._called.store,
                **({"answer": code} if code else {}),
            ) from error

    def _remove_versions(self, key: str, *, folder: bool, superseded: bool) -> int:
        full = self._prefix + key
        with self.mapped():
            found = [
                item
                for item in self._client.list_objects(
                    self._name, prefix=full, recursive=True, include_version=True
                )
                if (folder or item.object_name == full) and not (superseded and item.is_latest == "true")
            ]
            # Newest last: if this ends half-way, what was replaced does not come back.
            for item in reversed(found):
                self._client.remove_object(self._name, str(item.object_name), version_id=item.version_id)
        return len(found)


def _promised(headers: Mapping[str, str], data: bytes) -> int:
    """The length that an answer says it has; of one in chunks, which say where they end, that of its `data`.

    One that says nothing was cut off in its headers: to Python's HTTP client the end of a connection ends
    them too, and an empty answer comes out as if it were whole. Without an ETag it is no object's either:
    SeaweedFS answers 200 and no bytes to a request that it takes for abandoned."""
    if not headers.get("ETag"):
        raise _cut_off()
    length = headers.get("Content-Length")
    if length is not None:
        return int(length)
    if "chunked" in headers.get("Transfer-Encoding", "").lower():
        return len(data)
    raise _cut_off()


def _cut_off() -> ConnectionError:
    return ConnectionError("the answer is not a whole one")


def _bare(etag: str | None) -> str:
    return (etag or "").removeprefix("W/").strip('"')
