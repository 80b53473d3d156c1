"""The photo store in a bucket: the contract on a real server, and the ways a server fails."""

from __future__ import annotations

import secrets
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

import obstore
import pytest
import urllib3
from minio import Minio
from minio import error as minio_error
from minio.commonconfig import ENABLED
from minio.versioningconfig import VersioningConfig
from pydantic import SecretStr

from homeward.config import PhotoStoreSettings
from homeward.errors import Corrupt, InvalidInput, NotFound, StoreUnavailable
from photos.open import open_photo_store
from photos.s3 import media_type
from photos.s3_bucket import S3Bucket
from photos.store import PhotoStore
from tests.photos.answering import answering
from tests.photos.contract import AGENCY, PhotoStoreContract
from tests.servers.process import free_port
from tests.servers.seaweed import ACCESS_KEY, SECRET_KEY, Seaweed


def new_bucket() -> str:
    return f"photos-{secrets.token_hex(4)}"


def client(server: Seaweed) -> Minio:
    return Minio(f"127.0.0.1:{server.port}", ACCESS_KEY, SECRET_KEY, secure=False)


def open_store(settings: PhotoStoreSettings) -> PhotoStore:
    return open_photo_store(settings, Path("/nonexistent"))


@pytest.fixture(scope="module")
def bucket() -> str:
    return new_bucket()


@pytest.fixture
def store(seaweed_server: Seaweed, bucket: str) -> PhotoStore:
    return open_store(seaweed_server.settings(bucket, f"pre/fix-{secrets.token_hex(4)}"))


class TestS3Contract(PhotoStoreContract):
    """The contract."""


def test_the_prefix_may_be_empty(seaweed_server: Seaweed) -> None:
    store = open_store(seaweed_server.settings(new_bucket()))
    sha256 = store.put(AGENCY, b"one")
    assert list(store.agencies()) == [AGENCY]
    assert store.get(AGENCY, sha256) == b"one"


def test_prefixes_do_not_see_each_other(seaweed_server: Seaweed, bucket: str) -> None:
    one = open_store(seaweed_server.settings(bucket, "tenant"))
    other = open_store(seaweed_server.settings(bucket, "tenant2"))
    sha256 = one.put(AGENCY, b"one")
    assert not other.exists(AGENCY, sha256)
    assert list(other.agencies()) == []


def test_objects_carry_their_media_type(seaweed_server: Seaweed) -> None:
    name = new_bucket()
    store = open_store(seaweed_server.settings(name))
    sha256 = store.put(AGENCY, b"\xff\xd8\xff\xe0 a photo")
    assert (
        client(seaweed_server).stat_object(name, f"missing%2eexample/{sha256}").content_type == "image/jpeg"
    )
    assert media_type(b"RIFF\x00\x00\x00\x00WEBPVP8 ") == "image/webp"
    assert media_type(b"") == "application/octet-stream"


def test_changed_bytes_are_corrupt(seaweed_server: Seaweed) -> None:
    name = new_bucket()
    store = open_store(seaweed_server.settings(name))
    sha256 = store.put("a", b"photo")
    client(seaweed_server).put_object(name, f"a/{sha256}", BytesIO(b"phot0"), 5)
    with pytest.raises(Corrupt):
        store.get("a", sha256)


def test_deleting_reaches_every_version(seaweed_server: Seaweed) -> None:
    name = new_bucket()
    admin = client(seaweed_server)
    admin.make_bucket(name)
    admin.set_bucket_versioning(name, VersioningConfig(ENABLED))
    store = open_store(seaweed_server.settings(name))
    sha256 = store.put("a", b"one")
    store.put("a", b"one")
    assert len(list(admin.list_objects(name, recursive=True, include_version=True))) == 2
    assert store.delete("a", sha256)
    assert list(admin.list_objects(name, recursive=True, include_version=True)) == []
    with pytest.raises(NotFound):
        store.get("a", sha256)


@pytest.mark.parametrize("secret", [True, False])
def test_wrong_keys_are_told(seaweed_server: Seaweed, secret: bool) -> None:
    settings = seaweed_server.settings(new_bucket())
    wrong = {"secret_key" if secret else "access_key": SecretStr("wrong")}
    with pytest.raises(StoreUnavailable, match="HOMEWARD_PHOTOS__ACCESS_KEY"):
        open_store(settings.model_copy(update=wrong))


def test_a_bucket_that_went_is_told(seaweed_server: Seaweed) -> None:
    name = new_bucket()
    store = open_store(seaweed_server.settings(name))
    client(seaweed_server).remove_bucket(name)
    with pytest.raises((StoreUnavailable, NotFound)):
        store.get(AGENCY, "0" * 64)


def test_https_against_a_plain_server_is_told(seaweed_server: Seaweed) -> None:
    settings = seaweed_server.settings(new_bucket()).model_copy(update={"secure": True})
    with pytest.raises(StoreUnavailable, match=r"photos\.secure"):
        open_store(settings)


def test_no_server_is_told() -> None:
    settings = PhotoStoreSettings(
        uri=f"s3://127.0.0.1:{free_port()}/bucket",
        secure=False,
        access_key=SecretStr("key"),
        secret_key=SecretStr("secret"),
    )
    with pytest.raises(StoreUnavailable, match="does not answer"):
        open_store(settings)


def test_keys_come_from_the_environment_too(
    seaweed_server: Seaweed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = seaweed_server.settings(new_bucket()).model_copy(
        update={"access_key": None, "secret_key": None}
    )
    for name in ("AWS_ACCESS_KEY_ID", "AWS_ACCESS_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_SECRET_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(InvalidInput, match="HOMEWARD_PHOTOS__ACCESS_KEY"):
        open_store(settings)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    store = open_store(settings)
    assert store.exists(AGENCY, store.put(AGENCY, b"one"))


@pytest.mark.parametrize(
    "uri",
    [
        "s3://host",
        "s3:///bucket",
        "s3://key:secret@host/bucket",
        "s3://host/bucket?x=1",
        "s3://host:port/bucket",
        "s3://127.0.0.1:1/x",
        "http://host/bucket",
        "file://host/x",
        "photos",
    ],
)
def test_other_uris_are_refused(uri: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        open_store(PhotoStoreSettings(uri=uri, access_key=SecretStr("k"), secret_key=SecretStr("s")))
    assert caught.value.code == "CONFIG_INVALID"


def test_a_folder_is_opened_by_its_uri(tmp_path: Path) -> None:
    folder = tmp_path / "with space"
    open_photo_store(PhotoStoreSettings(uri=folder.as_uri()), tmp_path).put("a", b"one")
    open_photo_store(PhotoStoreSettings(), tmp_path / "data").put("a", b"one")
    assert (folder / "a").is_dir()
    assert (tmp_path / "data" / "photos" / "a").is_dir()


def test_every_error_of_the_sdk_is_mapped() -> None:
    def subclasses(kind: Any) -> set[Any]:
        return {kind}.union(*(subclasses(each) for each in kind.__subclasses__()))

    bucket = S3Bucket(Minio("127.0.0.1:1", "k", "s"), "bucket")
    raised: set[Any] = {
        each
        for each in vars(minio_error).values()
        if isinstance(each, type) and issubclass(each, Exception) and "Admin" not in each.__name__
    }
    raised.discard(minio_error.S3Error)  # the refused keys above raise a real one
    raised |= subclasses(urllib3.exceptions.HTTPError) | subclasses(obstore.exceptions.BaseError)
    raised |= {ParseError, OSError, ValueError}
    for kind in raised:
        with pytest.raises(StoreUnavailable), bucket.mapped():
            raise kind.__new__(kind)


def test_an_answer_that_is_cut_off_anywhere_is_never_taken_for_the_object() -> None:
    head = b'HTTP/1.1 200 OK\r\nServer: S3\r\nETag: "abc"\r\nContent-Length: 5\r\n\r\n'
    cuts = [*range(head.index(b"\r\n") + 2, len(head), 9), len(head), len(head) + 1, len(head) + 4]
    with answering() as (bucket, answers):
        for cut in cuts:
            for read in (
                lambda: bucket.get("key"),
                lambda: bucket.get("key", 5),
                lambda: bucket.start("key", 9),
            ):
                answers[:] = [(head + b"photo")[:cut]]
                with pytest.raises(StoreUnavailable):
                    read()
        answers[:] = [head + b"photo"]
        assert bucket.get("key") == b"photo"
        answers[:] = [
            b'HTTP/1.1 200 OK\r\nETag: "abc"\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nphoto\r\n0\r\n\r\n'
        ]
        start = bucket.start("key", 9)
        assert start is not None
        assert (start.data, start.size) == (b"photo", 5)
