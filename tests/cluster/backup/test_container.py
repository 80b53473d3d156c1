"""A backup's files, changed in every way: what is not as it was written is refused with a reason."""

from __future__ import annotations

import base64
import stat
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from cluster.backup.create import create
from cluster.backup.key import BackupKey, make_key, read_key
from cluster.backup.manifest import HEAD, MANIFEST
from cluster.backup.place import open_place, remove
from cluster.backup.stores import open_stores
from cluster.backup.verify import Backup
from homeward.config import BackupSettings
from homeward.errors import Conflict, HomewardError, InvalidInput, NotFound
from tests.cluster.backup.world import KEY, embedded, fill

_MANY = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


class MemoryDocuments:
    """A copy of a backup, to be spoilt."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = dict(files)

    def put_document(self, name: str, data: bytes) -> None:
        """As `DocumentStore.put_document`."""
        self.files[name] = data

    def get_document(self, name: str, limit: int | None = None) -> bytes:
        """As `DocumentStore.get_document`."""
        if name not in self.files:
            raise NotFound("there is no such document")
        return self.files[name][:limit]

    def list_documents(self, prefix: str = "") -> Sequence[str]:
        """As `DocumentStore.list_documents`."""
        return sorted(name for name in self.files if name.startswith(prefix))

    def delete_document(self, name: str) -> bool:
        """As `DocumentStore.delete_document`."""
        return self.files.pop(name, None) is not None

    def sweep(self, older_than_s: float = 3600.0) -> int:
        """Nothing is left."""
        return 0


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], dict[str, bytes]]:
    """The files of two backups of one system under one key."""
    folder = tmp_path_factory.mktemp("container")
    found = []
    with open_stores(embedded(folder / "data")) as stores:
        fill(stores, 20)
        for name in ("one", "other"):
            place = open_place(str(folder / name), stores.settings, there=False)
            create(stores, place, KEY)
            found.append({file: place.get_document(file) for file in place.list_documents()})
    return found[0], found[1]


def refusal(files: dict[str, bytes], key: BackupKey = KEY) -> str:
    """The reason why these files are no backup; empty if they are."""
    try:
        Backup(MemoryDocuments(files), key).verify()
    except HomewardError as error:
        return error.code
    return ""


def test_as_it_was_written_it_verifies(two: tuple[dict[str, bytes], dict[str, bytes]]) -> None:
    assert refusal(two[0]) == ""
    assert refusal({**two[0], "pieces/stray": b"of somebody"}) == ""


@given(data=st.data())
@_MANY
def test_a_flipped_bit_anywhere_is_refused(
    two: tuple[dict[str, bytes], dict[str, bytes]], data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(sorted(two[0])))
    raw = bytearray(two[0][name])
    bit = data.draw(st.integers(0, 8 * len(raw) - 1))
    raw[bit // 8] ^= 1 << bit % 8
    expected = {"BACKUP_DAMAGED"}
    if name == HEAD:
        expected |= {"BACKUP_FORMAT", "BACKUP_KEY_WRONG"}
    assert refusal({**two[0], name: bytes(raw)}) in expected


@given(data=st.data())
@_MANY
def test_a_cut_lengthened_or_missing_file_is_refused(
    two: tuple[dict[str, bytes], dict[str, bytes]], data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(sorted(two[0])))
    raw = two[0][name]
    kept = data.draw(st.integers(0, len(raw) - 1))
    assert refusal({**two[0], name: raw[:kept]}) == "BACKUP_DAMAGED"
    assert refusal({**two[0], name: raw + b"\x00" * (kept + 1)}) == "BACKUP_DAMAGED"
    without = {other: content for other, content in two[0].items() if other != name}
    expected = {HEAD: "BACKUP_NOT_FOUND", MANIFEST: "BACKUP_INCOMPLETE"}
    assert refusal(without) == expected.get(name, "BACKUP_DAMAGED")


@given(data=st.data())
@_MANY
def test_exchanged_files_are_refused(
    two: tuple[dict[str, bytes], dict[str, bytes]], data: st.DataObject
) -> None:
    one, other = two
    names = sorted(one)
    first, second = data.draw(st.lists(st.sampled_from(names), min_size=2, max_size=2, unique=True))
    assert refusal({**one, first: one[second], second: one[first]})
    # The same file of another backup, whose pieces have other names and are sealed with the same key.
    at = data.draw(st.integers(0, len(names) - 1))
    assert refusal({**one, names[at]: other[sorted(other)[at]]})


def test_the_manifest_of_another_backup_is_refused(two: tuple[dict[str, bytes], dict[str, bytes]]) -> None:
    one, other = two
    assert refusal({**one, **other, HEAD: one[HEAD]}) == "BACKUP_DAMAGED"


def test_another_key_is_refused_by_name(two: tuple[dict[str, bytes], dict[str, bytes]]) -> None:
    assert refusal(two[0], BackupKey(b"x" * 32)) == "BACKUP_KEY_WRONG"


def test_two_that_are_made_in_one_place_do_not_mix(tmp_path: Path) -> None:
    place = MemoryDocuments({})
    with open_stores(embedded(tmp_path)) as stores:
        fill(stores, 3)

        def take_over(kind: str, _done: int, _of: int) -> None:
            if kind == "photos":
                create(stores, place, KEY)

        with pytest.raises(Conflict) as refused:
            create(stores, place, KEY, take_over)
    assert refused.value.code == "BACKUP_TAKEN_OVER"
    assert refusal(place.files) == ""


def test_what_is_removed_is_no_backup_at_any_moment(
    two: tuple[dict[str, bytes], dict[str, bytes]],
) -> None:
    place = MemoryDocuments(two[0])
    seen: list[str] = []

    class Watched(MemoryDocuments):
        def delete_document(self, name: str) -> bool:
            gone = place.delete_document(name)
            seen.append(refusal(place.files))
            return gone

    assert remove(Watched(two[0])) == len(two[0])
    assert not place.files
    assert set(seen) == {"BACKUP_INCOMPLETE", "BACKUP_NOT_FOUND"}


def test_a_new_key_is_private_is_not_overwritten_and_shows_itself_nowhere(tmp_path: Path) -> None:
    path = tmp_path / "key"
    made = make_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_key(BackupSettings(key_file=path)) == made
    text = path.read_text().strip()
    assert read_key(BackupSettings(key=SecretStr(text))) == made
    assert text not in repr(made)
    assert str(made.secret) not in repr(made)
    with pytest.raises(Conflict):
        make_key(path)
    assert read_key(BackupSettings(key_file=path)) == made


@pytest.mark.parametrize("text", ["", "short", "=" * 44, base64.b64encode(b"x" * 31).decode(), "ä" * 44])
def test_what_is_no_key_is_refused_without_being_shown(tmp_path: Path, text: str) -> None:
    path = tmp_path / "key"
    path.write_text(text)
    with pytest.raises(InvalidInput) as refused:
        read_key(BackupSettings(key_file=path))
    assert refused.value.code == "BACKUP_KEY_INVALID"
    assert not text or text not in refused.value.message
    with pytest.raises(InvalidInput) as missing:
        read_key(BackupSettings(key_file=tmp_path / "none"))
    assert missing.value.code == "BACKUP_KEY_MISSING"
