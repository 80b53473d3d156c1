"""Small objects written to S3 without Python's lock: what a bulk load does for every photo, beside the model.

The Rust client behind `obstore` signs and sends in threads of its own. MinIO's SDK, which does everything
else, takes the interpreter's lock for most of a small put, and with it from the model's threads.
"""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import obstore
from minio.credentials.providers import Provider
from obstore.store import S3Store

from homeward.config import PhotoStoreSettings

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig, S3Credential

SMALL_BYTES = 5 << 20  # sent within `_SEND_S` even at 200 kB/s
_CONNECT_S, _SEND_S = 5, 30
_RETRY: RetryConfig = {
    "max_retries": 3,
    "backoff": {
        "init_backoff": timedelta(seconds=0.2),
        "max_backoff": timedelta(seconds=2),
        "base": 2,
    },
    "retry_timeout": timedelta(seconds=60),
}
# It would name others, "a//b" foremost, in a way of its own.
_PART = re.compile(r"(?!\.{1,2}$)[\w.%=-]+", re.ASCII)
_NOWHERE = "http://127.0.0.1:9"
# The client asks for keys anew some minutes before they end: those of a file may have been exchanged.
_KEYS_FOR = timedelta(minutes=15)


class SmallPuts:
    """Writes objects of up to `SMALL_BYTES` to one bucket. Thread-safe; connects with the first one."""

    def __init__(self, settings: PhotoStoreSettings, endpoint: str, bucket: str, keys: Provider) -> None:
        """`endpoint`: host[:port], of a server that has its buckets in the path."""
        self._host = endpoint
        self._url = f"{'https' if settings.secure else 'http'}://{endpoint}"
        self._region = settings.region
        self._bucket = bucket
        self._keys = keys

    def put(self, key: str, data: bytes, media_type: str) -> str | None:
        """Write an object, visible when it is whole; its ETag, empty if the server gave none. None for a key
        that this client cannot name, and then nothing was written.

        Raises what `photos.s3_errors.FAILURES` names."""
        if not all(_PART.fullmatch(part) for part in key.split("/")):
            return None
        written = obstore.put(
            self._store, key, data, attributes={"Content-Type": media_type}, use_multipart=False
        )
        return written["e_tag"] or ""

    @cached_property
    def _store(self) -> S3Store:
        client: ClientConfig = {
            "allow_http": self._url.startswith("http:"),
            "connect_timeout": timedelta(seconds=_CONNECT_S),
            "timeout": timedelta(seconds=_SEND_S),
            # Straight to the server, as the SDK goes, whatever proxy the environment names for others.
            "proxy_url": _NOWHERE,
            "proxy_excludes": self._host.rpartition(":")[0] or self._host,
        }
        trusted = os.environ.get("SSL_CERT_FILE")
        if trusted and self._url.startswith("https:"):
            client["root_certificate"] = Path(trusted).read_bytes()
        # All that the environment could say otherwise, AWS_ENDPOINT_URL_S3 foremost, is said here.
        return S3Store(
            self._bucket,
            config={
                "endpoint": self._url,
                "aws_endpoint_url_s3": self._url,
                "region": self._region,
                "virtual_hosted_style_request": False,
                "skip_signature": False,
                "unsigned_payload": False,
                "s3_express": False,
            },
            client_options=client,
            retry_config=_RETRY,
            credential_provider=self._credential,
        )

    def _credential(self) -> S3Credential:
        keys = self._keys.retrieve()
        return {
            "access_key_id": keys.access_key,
            "secret_access_key": keys.secret_key,
            "token": keys.session_token,
            "expires_at": datetime.now(UTC) + _KEYS_FOR,
        }


def speaks(endpoint: str) -> bool:
    """Whether `SmallPuts` is for this server: Amazon's own names a bucket's region in its host, which the SDK
    sees to."""
    host = endpoint.partition(":")[0].lower()
    return not host.endswith((".amazonaws.com", ".amazonaws.com.cn"))
