"""Photos in a bucket of any S3 endpoint, through MinIO's SDK.

Keys are `<prefix>/<agency>/<sha256>`, so that a listing comes sorted from the server.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from xml.etree.ElementTree import ParseError

import certifi
import urllib3
from minio import Minio
from minio.commonconfig import ENABLED
from minio.credentials.providers import (
    AWSConfigProvider,
    ChainedProvider,
    EnvAWSProvider,
    EnvMinioProvider,
    Provider,
    StaticProvider,
)
from minio.error import MinioException, S3Error
from minio.versioningconfig import SUSPENDED

from homeward.config import PhotoStoreSettings
from homeward.errors import HomewardError, InvalidInput, NotFound, StoreUnavailable
from homeward.ids import check_sha256, photo_sha256
from photos.store import check_bytes, check_limit, decode_agency, encode_agency

_ABSENT = frozenset({"NoSuchKey", "NoSuchObject", "NoSuchVersion", "ResourceNotFound"})
_REFUSED = frozenset({"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"})
_CONNECT_S, _READ_S = 5.0, 30.0
_RETRIES = 3
_CONNECTIONS = 32
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


def open_s3(settings: PhotoStoreSettings, endpoint: str, bucket: str, prefix: str) -> S3PhotoStore:
    """Connect to `endpoint` (host[:port]) and make sure of the bucket, creating it if it is missing.

    Keys come from the settings; without them from AWS_* or MINIO_* in the environment or from the
    AWS credentials file. Raises `InvalidInput` (CONFIG_INVALID) for names that S3 cannot have and
    `StoreUnavailable` if the endpoint does not answer or refuses us.
    """
    retry = urllib3.Retry(total=_RETRIES, backoff_factor=0.2, status_forcelist=[500, 502, 503, 504])
    http = urllib3.PoolManager(
        timeout=urllib3.Timeout(connect=_CONNECT_S, read=_READ_S),
        maxsize=_CONNECTIONS,
        retries=retry,
        cert_reqs="CERT_REQUIRED",
        ca_certs=os.environ.get("SSL_CERT_FILE") or certifi.where(),
    )
    try:
        client = Minio(
            endpoint,
            secure=settings.secure,
            region=settings.region,
            credentials=_credentials(settings),
            http_client=http,
        )
    except ValueError as error:
        raise InvalidInput(
            f"the S3 endpoint of photos.uri is wrong: {error}", code="CONFIG_INVALID", field="photos.uri"
        ) from error
    store = S3PhotoStore(client, bucket, prefix)
    store.ensure_bucket(settings.region)
    return store


class S3PhotoStore:
    """`PhotoStore` in one bucket, below one prefix."""

    def __init__(self, client: Minio, bucket: str, prefix: str = "") -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._versioned = False

    def ensure_bucket(self, region: str) -> None:
        """Create the bucket if it is missing, and note whether it keeps versions."""
        with self._mapped():
            try:
                if not self._client.bucket_exists(self._bucket):
                    self._client.make_bucket(self._bucket, region)
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
                status = self._client.get_bucket_versioning(self._bucket).status
                self._versioned = status in (ENABLED, SUSPENDED)
            except S3Error as error:
                if error.code not in ("NotImplemented", "MethodNotAllowed"):
                    raise

    def put(self, agency: str, data: bytes) -> str:
        """See `PhotoStore.put`. The server makes an object visible when it is whole."""
        sha256 = photo_sha256(data)
        key = self._key(agency, sha256)
        with self._mapped():
            self._client.put_object(
                self._bucket, key, BytesIO(data), len(data), content_type=media_type(data)
            )
        return sha256

    def get(self, agency: str, sha256: str) -> bytes:
        """See `PhotoStore.get`."""
        key = self._key(agency, sha256)
        with self._mapped():
            try:
                response = self._client.get_object(self._bucket, key)
            except S3Error as error:
                if error.code in _ABSENT:
                    raise NotFound("there is no such photo", agency=agency, sha256=sha256) from error
                raise
            try:
                data: bytes = response.read()
            finally:
                response.close()
                response.release_conn()
        return check_bytes(agency, sha256, data)

    def exists(self, agency: str, sha256: str) -> bool:
        """See `PhotoStore.exists`."""
        return self._exists(self._key(agency, sha256))

    def delete(self, agency: str, sha256: str) -> bool:
        """See `PhotoStore.delete`. Where the bucket keeps versions, all of them go."""
        key = self._key(agency, sha256)
        there = self._exists(key)
        with self._mapped():
            if self._versioned:
                found = self._client.list_objects(
                    self._bucket, prefix=key, recursive=True, include_version=True
                )
                for version in [item.version_id for item in found if item.object_name == key]:
                    self._client.remove_object(self._bucket, key, version_id=version)
            elif there:
                self._client.remove_object(self._bucket, key)
        return there

    def list(self, agency: str, after: str | None = None, limit: int = 1000) -> Sequence[str]:
        """See `PhotoStore.list`."""
        check_limit(limit)
        base = f"{self._prefix}{encode_agency(agency)}/"
        start = None if after is None else base + check_sha256(after, "after")
        page: list[str] = []
        with self._mapped():
            for item in self._client.list_objects(
                self._bucket,
                prefix=base,
                start_after=start,
                extra_query_params={"max-keys": str(min(limit, 1000))},
            ):
                name = str(item.object_name)[len(base) :]
                if len(name) == 64:
                    page.append(name)
                if len(page) == limit:
                    break
        return page

    def agencies(self) -> Sequence[str]:
        """See `PhotoStore.agencies`."""
        found = []
        with self._mapped():
            for item in self._client.list_objects(self._bucket, prefix=self._prefix or None):
                name = str(item.object_name)[len(self._prefix) :].rstrip("/")
                agency = decode_agency(name) if item.is_dir else None
                if agency is not None:
                    found.append(agency)
        # Some servers go on listing a prefix after its last object went.
        return sorted(agency for agency in found if self.list(agency, limit=1))

    def sweep(self, older_than_s: float = 3600.0) -> int:  # noqa: ARG002 - nothing is ever left
        """See `PhotoStore.sweep`. A photo is one request here: nothing is ever left behind."""
        return 0

    def _key(self, agency: str, sha256: str) -> str:
        return f"{self._prefix}{encode_agency(agency)}/{check_sha256(sha256, 'sha256')}"

    def _exists(self, key: str) -> bool:
        with self._mapped():
            try:
                self._client.stat_object(self._bucket, key)
            except S3Error as error:
                if error.code in _ABSENT:
                    return False
                raise
        return True

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except HomewardError:
            raise
        except (MinioException, urllib3.exceptions.HTTPError, OSError, ValueError, ParseError) as error:
            raise StoreUnavailable(
                f"the photo bucket {self._bucket!r} cannot be used: {_advice(error)}", store="photos"
            ) from error


def media_type(data: bytes) -> str:
    """The media type that the first bytes speak of, for the object's Content-Type."""
    for offset, magic, name in _MAGIC:
        if data[offset : offset + len(magic)] == magic:
            return name
    return "application/octet-stream"


def _advice(error: Exception) -> str:
    if isinstance(error, S3Error):
        if error.code in _REFUSED:
            return (
                f"the server refused us ({error.code}); check HOMEWARD_PHOTOS__ACCESS_KEY and "
                "HOMEWARD_PHOTOS__SECRET_KEY, and that the key may list, read, write and delete there"
            )
        if error.code == "NoSuchBucket":
            return "it is gone; create it again or restore it"
        return f"the server answered {error.code}; try again, and look at the server if it stays so"
    if isinstance(error, urllib3.exceptions.HTTPError | OSError):
        return (
            "the server does not answer; check photos.uri, photos.secure (https or not), its "
            "certificate and that it runs"
        )
    return f"{type(error).__name__} from the server's answer; check that photos.uri is an S3 endpoint"


def _credentials(settings: PhotoStoreSettings) -> Provider:
    if (settings.access_key is None) != (settings.secret_key is None):
        raise InvalidInput(
            "photos.access_key and photos.secret_key come together", code="CONFIG_INVALID", field="photos"
        )
    if settings.access_key is not None and settings.secret_key is not None:
        return StaticProvider(settings.access_key.get_secret_value(), settings.secret_key.get_secret_value())
    chain = ChainedProvider([EnvAWSProvider(), EnvMinioProvider(), AWSConfigProvider()])
    try:
        chain.retrieve()
    except (MinioException, ValueError, OSError) as error:
        raise InvalidInput(
            "there are no S3 keys: set HOMEWARD_PHOTOS__ACCESS_KEY and HOMEWARD_PHOTOS__SECRET_KEY",
            code="CONFIG_INVALID",
            field="photos.access_key",
        ) from error
    return chain
