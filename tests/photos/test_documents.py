"""Documents in a folder and in a bucket of a real server: the contract, and what each alone can suffer."""

from __future__ import annotations

import errno
import os
import secrets
import subprocess
import sys
import time
from io import BytesIO
from pathlib import Path

import pytest
from minio.commonconfig import ENABLED
from minio.versioningconfig import SUSPENDED, VersioningConfig

from homeward.config import PhotoStoreSettings
from homeward.errors import StoreUnavailable
from photos.documents import DocumentStore
from photos.folder import FolderPhotoStore
from photos.folder_documents import FolderDocuments
from photos.open import open_document_store, open_photo_store
from photos.store import PhotoStore
from tests.photos.document_contract import NAME, DocumentStoreContract
from tests.photos.test_folder import files_of
from tests.photos.test_s3 import client, new_bucket
from tests.servers.seaweed import Seaweed

NOWHERE = Path("/nonexistent")


@pytest.fixture(scope="module")
def bucket() -> str:
    return new_bucket()


class TestFolderDocuments(DocumentStoreContract):
    """The contract in a folder."""

    @pytest.fixture
    def documents(self, tmp_path: Path) -> DocumentStore:
        return open_document_store(PhotoStoreSettings(), tmp_path)

    @pytest.fixture
    def store(self, tmp_path: Path) -> PhotoStore:
        return open_photo_store(PhotoStoreSettings(), tmp_path)


class TestS3Documents(DocumentStoreContract):
    """The contract in a bucket."""

    @pytest.fixture
    def settings(self, seaweed_server: Seaweed, bucket: str) -> PhotoStoreSettings:
        return seaweed_server.settings(bucket, f"pre/fix-{secrets.token_hex(4)}")

    @pytest.fixture
    def documents(self, settings: PhotoStoreSettings) -> DocumentStore:
        return open_document_store(settings, NOWHERE)

    @pytest.fixture
    def store(self, settings: PhotoStoreSettings) -> PhotoStore:
        return open_photo_store(settings, NOWHERE)


def test_files_lie_in_one_folder_for_their_owner_alone(tmp_path: Path) -> None:
    FolderDocuments(tmp_path / "photos").put_document(NAME, b"one")
    (path,) = files_of(tmp_path)
    assert path.relative_to(tmp_path).parts[:2] == ("photos", ".documents")
    for each in (tmp_path / "photos").rglob("*"):
        assert each.stat().st_mode & 0o777 == (0o700 if each.is_dir() else 0o600)


def test_strange_files_are_no_documents(tmp_path: Path) -> None:
    documents = FolderDocuments(tmp_path)
    documents.put_document("a/b", b"one")
    for name in (".DS_Store", "a/notes", "a/UPPER=", "a/b=.swp"):
        (tmp_path / ".documents" / name).write_bytes(b"")
    assert documents.list_documents() == ["a/b"]


def test_a_full_disk_keeps_the_old_one_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = FolderDocuments(tmp_path)
    documents.put_document(NAME, b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StoreUnavailable, match="space"):
            documents.put_document(NAME, b"new")
    assert documents.get_document(NAME) == b"old"
    assert len(files_of(tmp_path)) == 1


_WRITER = """
import sys
from pathlib import Path
from photos.folder_documents import FolderDocuments
documents = FolderDocuments(Path(sys.argv[1]))
number = 0
while True:
    documents.put_document("a/b", bytes([number % 256]) * 4_000_000)
    print(number, flush=True)
    number += 1
"""


def test_what_a_killed_writer_left_is_swept_by_either_store(tmp_path: Path) -> None:
    documents = FolderDocuments(tmp_path)
    left = 0
    for turn in range(6):
        command = [sys.executable, "-c", _WRITER, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            time.sleep(0.001 + 0.003 * turn)
            writer.kill()
        data = documents.get_document("a/b")
        assert len(data) == 4_000_000
        assert len(set(data)) == 1
        left = len(files_of(tmp_path)) - 1
        assert documents.sweep(3600.0) == 0
        sweeper = documents if turn % 2 else FolderPhotoStore(tmp_path)
        assert sweeper.sweep(0.0) == left
        assert len(files_of(tmp_path)) == 1
        assert documents.list_documents() == ["a/b"]


@pytest.mark.parametrize("status", [ENABLED, SUSPENDED])
def test_what_was_replaced_or_deleted_is_in_no_version(seaweed_server: Seaweed, status: str) -> None:
    name = new_bucket()
    admin = client(seaweed_server)
    admin.make_bucket(name)
    admin.set_bucket_versioning(name, VersioningConfig(ENABLED))
    key = f".documents/{NAME}="
    admin.put_object(name, key, BytesIO(b"left by a writer that died"), 26)
    admin.put_object(name, f"{key}2=", BytesIO(b"beside"), 6)
    if status == SUSPENDED:
        admin.set_bucket_versioning(name, VersioningConfig(SUSPENDED))
    documents = open_document_store(seaweed_server.settings(name), NOWHERE)

    def versions(of: str = key) -> list[str]:
        found = admin.list_objects(name, prefix=of, recursive=True, include_version=True)
        return [str(item.version_id) for item in found if item.object_name == of]

    for number in range(3):
        documents.put_document(NAME, b"version %d" % number)
        assert len(versions()) == 1
    assert documents.get_document(NAME) == b"version 2"
    assert len(versions(f"{key}2=")) == 1

    for _ in range(2):
        admin.put_object(name, key, BytesIO(b"written past the store"), 22)
    superseded = len(versions()) - 1
    assert superseded == (2 if status == ENABLED else 0)
    assert documents.sweep() == superseded
    assert documents.get_document(NAME) == b"written past the store"
    assert documents.delete_document(NAME)
    assert versions() == []


def test_nothing_of_an_upload_stays_unseen(seaweed_server: Seaweed) -> None:
    name = new_bucket()
    settings = seaweed_server.settings(name)
    data = os.urandom(16_000_000)
    open_document_store(settings, NOWHERE).put_document(NAME, data)
    sha256 = open_photo_store(settings, NOWHERE).put("a", data)
    admin = client(seaweed_server)
    for key in (f".documents/{NAME}=", f"a/{sha256}"):  # an object of several parts has an ETag with a dash
        assert "-" not in str(admin.stat_object(name, key).etag)
