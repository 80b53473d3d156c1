"""A client of any S3 endpoint, MinIO's SDK, made from settings; and what errors call these settings."""

from __future__ import annotations

import os
from dataclasses import dataclass

import certifi
import urllib3
from minio import Minio
from minio.credentials.providers import (
    AWSConfigProvider,
    ChainedProvider,
    EnvAWSProvider,
    EnvMinioProvider,
    Provider,
    StaticProvider,
)
from minio.error import MinioException

from homeward.config import PhotoStoreSettings
from homeward.errors import InvalidInput

_CONNECT_S, _READ_S = 5.0, 30.0
_RETRIES = 3
_CONNECTIONS = 32


@dataclass(frozen=True, slots=True)
class Called:
    """What errors call a bucket and the settings that lead to it: the photo store's, unless said."""

    store: str = "photos"  # of `StoreUnavailable`
    bucket: str = "photo bucket"
    uri: str = "photos.uri"
    field: str = "photos.uri"
    settings: str = "photos."  # what the names of the others begin with
    rights: str = "list, read, write and delete"

    def setting(self, name: str) -> str:
        """A setting's name."""
        return self.settings + name

    def variable(self, name: str) -> str:
        """A setting's environment variable."""
        return f"HOMEWARD_{self.setting(name).replace('.', '__').upper()}"


def open_client(settings: PhotoStoreSettings, endpoint: str, called: Called, keys: Provider) -> Minio:
    """A client of `endpoint` (host[:port]). It is not asked anything yet.

    Raises `InvalidInput` (CONFIG_INVALID) for what is no endpoint.
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
        return Minio(
            endpoint,
            secure=settings.secure,
            region=settings.region,
            credentials=keys,
            http_client=http,
        )
    except ValueError as error:
        raise InvalidInput(
            f"the S3 endpoint of {called.uri} is wrong: {error}", code="CONFIG_INVALID", field=called.field
        ) from error


def find_keys(settings: PhotoStoreSettings, called: Called) -> Provider:
    """The keys of the settings; without them those of AWS_* or MINIO_* in the environment or of the AWS
    credentials file, read anew when they are asked for.

    Raises `InvalidInput` (CONFIG_INVALID) where there are none."""
    if (settings.access_key is None) != (settings.secret_key is None):
        raise InvalidInput(
            f"{called.setting('access_key')} and {called.setting('secret_key')} come together",
            code="CONFIG_INVALID",
            field=called.setting("access_key"),
        )
    if settings.access_key is not None and settings.secret_key is not None:
        return StaticProvider(settings.access_key.get_secret_value(), settings.secret_key.get_secret_value())
    chain = ChainedProvider([EnvAWSProvider(), EnvMinioProvider(), AWSConfigProvider()])
    try:
        chain.retrieve()
    except (MinioException, ValueError, OSError) as error:
        raise InvalidInput(
            f"there are no S3 keys: set {called.variable('access_key')} and {called.variable('secret_key')}",
            code="CONFIG_INVALID",
            field=called.setting("access_key"),
        ) from error
    return chain
