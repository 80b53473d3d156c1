"""The photo store in a folder: the contract, and what only a folder can suffer."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from homeward.errors import Corrupt, NotFound, StoreUnavailable
from photos.folder import FolderPhotoStore
from photos.store import PhotoStore
from tests.photos.contract import AGENCY, PhotoStoreContract


@pytest.fixture
def store(tmp_path: Path) -> FolderPhotoStore:
    return FolderPhotoStore(tmp_path / "photos")


class TestFolderContract(PhotoStoreContract):
    """The contract."""


def files_of(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())


def test_files_are_for_their_owner_alone(store: PhotoStore, tmp_path: Path) -> None:
    store.put(AGENCY, b"one")
    for path in (tmp_path / "photos").rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600)
    assert (tmp_path / "photos").stat().st_mode & 0o777 == 0o700


def test_nothing_is_written_outside_of_the_folder(store: PhotoStore, tmp_path: Path) -> None:
    for agency in ("../../up", "/", "..", "a/../../../b"):
        store.put(agency, b"one")
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]
    assert all(len(path.relative_to(tmp_path / "photos").parts) == 4 for path in files_of(tmp_path))


def test_changed_bytes_are_corrupt_and_putting_again_mends_them(store: PhotoStore, tmp_path: Path) -> None:
    sha256 = store.put(AGENCY, b"photo")
    (path,) = files_of(tmp_path)
    path.write_bytes(b"phot0")
    with pytest.raises(Corrupt) as caught:
        store.get(AGENCY, sha256)
    assert caught.value.details["sha256"] == sha256
    store.put(AGENCY, b"photo")
    assert store.get(AGENCY, sha256) == b"photo"


def test_a_full_disk_leaves_nothing_behind(
    store: PhotoStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(StoreUnavailable, match="space"):
            store.put(AGENCY, b"photo")
    assert files_of(tmp_path) == []


def test_a_folder_that_is_a_file_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "photos").write_bytes(b"")
    with pytest.raises(StoreUnavailable):
        FolderPhotoStore(tmp_path / "photos")


def test_sweeping_removes_only_old_leftovers(store: PhotoStore, tmp_path: Path) -> None:
    sha256 = store.put(AGENCY, b"photo")
    incoming = tmp_path / "photos" / ".incoming"
    (incoming / "half").write_bytes(b"ha")
    (incoming / "old").write_bytes(b"ol")
    hour_ago = time.time() - 3700
    os.utime(incoming / "old", (hour_ago, hour_ago))
    assert store.sweep() == 1
    assert [path.name for path in incoming.iterdir()] == ["half"]
    assert store.sweep(0.0) == 1
    assert store.get(AGENCY, sha256) == b"photo"


_WRITER = """
import sys
from pathlib import Path
from photos.folder import FolderPhotoStore
store = FolderPhotoStore(Path(sys.argv[1]))
number = int(sys.argv[2])
while True:
    name = store.put("agency", f"{number} ".encode() * 40_000)
    print(number, name, flush=True)
    number += 1
"""


def test_a_killed_writer_leaves_no_half_photo(tmp_path: Path) -> None:
    store = FolderPhotoStore(tmp_path / "photos")
    number = 0
    for turn in range(5):
        command = [sys.executable, "-c", _WRITER, str(tmp_path / "photos"), str(number)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            acknowledged = [writer.stdout.readline()]
            time.sleep(0.01 + 0.017 * turn)
            writer.kill()
            acknowledged += writer.stdout.read().splitlines(keepends=True)
        for line in acknowledged:
            if not line.endswith(b"\n"):
                continue  # killed while it said so
            words = line.decode().split()
            number = int(words[0]) + 1
            assert store.get("agency", words[1]) == f"{words[0]} ".encode() * 40_000
        for sha256 in store.list("agency"):
            store.get("agency", sha256)  # raises Corrupt for half a photo
    store.sweep(0.0)
    assert len(files_of(tmp_path)) == len(store.list("agency", limit=10**6))


class FolderMachine(RuleBasedStateMachine):
    """Any sequence of calls agrees with a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.store = FolderPhotoStore(Path(self.folder.name))
        self.model: dict[tuple[str, str], bytes] = {}

    agencies = st.sampled_from(["a", "A", "a/b", "ü", ".incoming"])
    bytes_ = st.binary(max_size=3)

    @rule(agency=agencies, data=bytes_)
    def put(self, agency: str, data: bytes) -> None:
        self.model[agency, self.store.put(agency, data)] = data

    @rule(agency=agencies, data=bytes_)
    def delete(self, agency: str, data: bytes) -> None:
        sha256 = hashlib.sha256(data).hexdigest()
        there = self.model.pop((agency, sha256), None) is not None
        assert self.store.delete(agency, sha256) is there

    @rule(agency=agencies, data=bytes_)
    def get(self, agency: str, data: bytes) -> None:
        sha256 = hashlib.sha256(data).hexdigest()
        expected = self.model.get((agency, sha256))
        assert self.store.exists(agency, sha256) is (expected is not None)
        try:
            assert self.store.get(agency, sha256) == expected
        except NotFound:
            assert expected is None

    @rule(agency=agencies, data=bytes_, limit=st.integers(1, 5))
    def list(self, agency: str, data: bytes, limit: int) -> None:
        after = hashlib.sha256(data).hexdigest()
        expected = sorted(sha256 for owner, sha256 in self.model if owner == agency and sha256 > after)
        assert self.store.list(agency, after=after, limit=limit) == expected[:limit]

    @rule()
    def open_again(self) -> None:
        self.store = FolderPhotoStore(Path(self.folder.name))
        self.store.sweep(0.0)

    @invariant()
    def agencies_agree(self) -> None:
        assert self.store.agencies() == sorted({agency for agency, _ in self.model})

    def teardown(self) -> None:
        self.folder.cleanup()


FolderMachine.TestCase.settings = settings(max_examples=20, stateful_step_count=20, deadline=None)
TestFolderMachine: Any = FolderMachine.TestCase
