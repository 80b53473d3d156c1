"""Small objects, which a client of their own writes."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from homeward.errors import StoreUnavailable
from photos.open import open_photo_store
from photos.s3_bucket import open_bucket
from photos.s3_put import SMALL_BYTES
from photos.store import PhotoStore
from tests.photos.answering import answering
from tests.photos.contract import AGENCY
from tests.servers.process import free_port
from tests.servers.seaweed import Seaweed


@pytest.fixture(scope="module")
def bucket() -> str:
    return f"puts-{secrets.token_hex(4)}"


def open_store(seaweed_server: Seaweed, bucket: str, prefix: str) -> PhotoStore:
    return open_photo_store(seaweed_server.settings(bucket, prefix), Path("/nonexistent"))


def test_a_small_put_goes_straight_to_the_server_that_the_settings_name(
    seaweed_server: Seaweed, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.setenv(name, nobody)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SKIP_SIGNATURE"):
        monkeypatch.setenv(name, "true")
    monkeypatch.setenv("AWS_REGION", "nowhere-1")
    store = open_store(seaweed_server, bucket, "straight")
    assert store.exists(AGENCY, store.put(AGENCY, b"one"))


def test_keys_that_one_client_cannot_name_are_written_by_the_other(
    seaweed_server: Seaweed, bucket: str
) -> None:
    opened = open_bucket(
        seaweed_server.settings(bucket), f"127.0.0.1:{seaweed_server.port}", bucket, "odd//prefix"
    )
    opened.put("c%20d=", b"one", "text/plain")
    assert opened.get("c%20d=") == b"one"


@pytest.mark.parametrize("size", [3, SMALL_BYTES, SMALL_BYTES + 1])
def test_a_put_comes_back_whatever_its_size(seaweed_server: Seaweed, bucket: str, size: int) -> None:
    store = open_store(seaweed_server, bucket, "sizes")
    data = b"\xff\xd8\xff" + bytes(size - 3)
    assert store.get(AGENCY, store.put(AGENCY, data)) == data


def refusal(status: str, code: str) -> bytes:
    body = f"<Error><Code>{code}</Code></Error>"
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (refusal("503 Slow Down", "SlowDown"), "SlowDown"),
        (refusal("403 Forbidden", "AccessDenied"), "AccessDenied"),
        (refusal("404 Not Found", "NoSuchBucket"), "NoSuchBucket"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", None),
        (b"HTTP/1.1 200 OK\r\nETag: ", None),
        (b"", None),
    ],
)
def test_a_small_put_that_failed_says_why_and_names_no_photo(answer: bytes, code: str | None) -> None:
    with answering(small=True) as (bucket, answers):
        answers[:] = [answer]
        with pytest.raises(StoreUnavailable) as caught:
            bucket.put("agency/photo", b"one", "image/jpeg")
    assert caught.value.details.get("answer") == code
    assert "agency" not in str(caught.value)
