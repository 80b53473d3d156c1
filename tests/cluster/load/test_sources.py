"""Folders, tar and zip files list and give what they hold, and never anything else."""

from __future__ import annotations

import os
import socket
import stat
import tarfile
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.load.members import Member, MemberRefused, Refusal, Source
from cluster.load.open_source import open_source
from homeward.errors import HomewardError, InvalidInput
from tests.cluster.load.archives import KINDS, Tree, add, as_tar, as_zip

_MOST = 1 << 16
_TREE = {
    "anna/1.jpg": b"\xff\xd8 one",
    "anna/2.jpg": b"",
    "bo/deep/3.jpg": b"\xff\xd8" + bytes(5_000),
    "bo/\u00e5 \u4eba.png": b"name",
    "loose.jpg": b"no record",
}

kinds = pytest.mark.parametrize("kind", KINDS)
trees = st.dictionaries(
    st.lists(
        st.text("ab.\u00e5 ", min_size=1, max_size=4).filter(lambda part: part.strip(". ")),
        min_size=2,
        max_size=3,
    ).map("/".join),
    st.binary(max_size=1_500),
    max_size=8,
).filter(lambda tree: not any(other.startswith(f"{name}/") for name in tree for other in tree))


def listed(path: Path) -> list[Member]:
    with open_source(path) as source:
        return list(source.members())


def contents(path: Path, most: int = _MOST) -> dict[str, bytes | Refusal]:
    """What every member gives."""
    with open_source(path) as source:
        return {member.shown: read(source, member, most) for member in list(source.members())}


def read(source: Source, member: Member, most: int = _MOST) -> bytes | Refusal:
    if member.refusal is not None:
        return member.refusal
    try:
        return source.read(member, most)
    except MemberRefused as error:
        return error.reason


@kinds
def test_every_file_is_listed_once_and_read_as_it_was(kind: str, tmp_path: Path) -> None:
    path = KINDS[kind](_TREE, tmp_path)
    names = [member.name for member in listed(path)]
    assert sorted(names) == sorted(_TREE)
    assert names == [member.name for member in listed(path)]
    assert contents(path) == _TREE


@given(trees)
@settings(max_examples=40, deadline=None)
def test_all_three_kinds_hold_the_same(tree: Tree) -> None:
    with TemporaryDirectory() as folder:
        for make in KINDS.values():
            path = make(tree, Path(folder))
            assert contents(path) == tree
            assert {member.name: member.size for member in listed(path)} == {
                name: len(content) for name, content in tree.items()
            }


@kinds
def test_members_are_read_in_any_order_and_by_several_readers(kind: str, tmp_path: Path) -> None:
    path = KINDS[kind](_TREE, tmp_path)
    members = listed(path)
    with open_source(path) as one, open_source(path) as other:
        for first, second in zip(members[::-1], members, strict=True):
            assert one.read(first, _MOST) == _TREE[first.name]
            assert other.read(second, _MOST) == _TREE[second.name]


@kinds
def test_reading_while_listing_disturbs_neither(kind: str, tmp_path: Path) -> None:
    with open_source(KINDS[kind](_TREE, tmp_path)) as source:
        assert {member.name: source.read(member, _MOST) for member in source.members()} == _TREE


@kinds
def test_of_a_file_that_is_too_large_no_more_is_read_than_shows_it(kind: str, tmp_path: Path) -> None:
    path = KINDS[kind]({"a/zeros": bytes(100_000), "a/noise": os.urandom(100_000)}, tmp_path)
    assert [len(found) for found in contents(path, 10).values()] == [11, 11]


@kinds
def test_an_empty_source_has_no_members(kind: str, tmp_path: Path) -> None:
    assert listed(KINDS[kind]({}, tmp_path)) == []


@kinds
def test_a_source_that_changed_says_so(kind: str, tmp_path: Path) -> None:
    path = KINDS[kind](_TREE, tmp_path)
    with open_source(path) as source:
        before = source.state()
    with open_source(path) as source:
        assert source.state() == before
    if kind != "folder":  # whose files are held to their sizes one by one
        os.utime(path, ns=(0, 0))
        with open_source(path) as source:
            assert source.state() != before


def test_links_and_devices_of_a_tar_file_are_listed_and_refused(tmp_path: Path) -> None:
    path = tmp_path / "hostile.tar"
    with tarfile.open(path, "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE):
            add(archive, f"a/{kind!r}", kind=kind)
        add(archive, "../../etc/cron.d/x", b"climbs")
        add(archive, "/etc/passwd", b"absolute")
    found = contents(path)
    assert list(found.values())[:5] == [Refusal.LINK, Refusal.LINK, *[Refusal.SPECIAL] * 3]
    assert list(found)[5:] == ["../../etc/cron.d/x", "/etc/passwd"]
    assert list(found.values())[5:] == [Refusal.NAME, Refusal.NAME]
    assert [one.name for one in tmp_path.iterdir()] == ["hostile.tar"]


def test_a_tar_file_that_is_cut_off_gives_what_is_whole(tmp_path: Path) -> None:
    path = as_tar({"a/1": b"one", "a/2": bytes(2_000)}, tmp_path)
    second = listed(path)[1]
    os.truncate(path, second.offset + 1_000)
    assert contents(path) == {"a/1": b"one", "a/2": Refusal.TRUNCATED}


@pytest.mark.parametrize("damage", [b"\xff" * 512, b"x"])
def test_a_tar_file_with_a_broken_header_says_that_the_rest_is_lost(damage: bytes, tmp_path: Path) -> None:
    path = as_tar({"a/1": b"one", "a/2": b"two", "a/3": b"three"}, tmp_path)
    header = listed(path)[1].offset - 512
    data = bytearray(path.read_bytes())
    data[header : header + len(damage)] = damage
    path.write_bytes(data)
    assert list(contents(path).values()) == [b"one", Refusal.REST_LOST]


def test_two_tar_files_joined_are_not_taken_for_the_first(tmp_path: Path) -> None:
    path = as_tar({"a/1": b"one"}, tmp_path)
    path.write_bytes(path.read_bytes() * 2)
    assert list(contents(path).values()) == [b"one", Refusal.REST_LOST]


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_a_compressed_tar_file_is_refused_with_what_to_do(mode: str, tmp_path: Path) -> None:
    path = tmp_path / "photos.tar"
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        add(archive, "a/1", b"one")
    with pytest.raises(HomewardError, match=r"compressed.*; (gunzip|bunzip2|unxz) it"):
        listed(path)


def test_links_devices_and_pipes_of_a_folder_are_listed_and_never_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"not handed over")
    root = tmp_path / "folder"
    (root / "a").mkdir(parents=True)
    (root / "a" / "link").symlink_to(secret)
    (root / "a" / "up").symlink_to(tmp_path, target_is_directory=True)
    os.mkfifo(root / "a" / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(root / "a" / "socket"))
        assert contents(root) == {
            "a/link": Refusal.LINK,
            "a/pipe": Refusal.SPECIAL,
            "a/socket": Refusal.SPECIAL,
            "a/up": Refusal.LINK,
        }


def test_what_takes_a_files_place_after_the_listing_is_not_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "1").write_bytes(b"one")
    root = tmp_path / "folder"
    for name in "abcde":
        (root / name).mkdir(parents=True)
        (root / name / "1").write_bytes(b"one")
    with open_source(root) as source:
        members = list(source.members())
        (root / "a" / "1").unlink()
        (root / "b" / "1").unlink()
        (root / "b" / "1").symlink_to(secret / "1")
        (root / "c" / "1").unlink()
        (root / "c").rmdir()
        (root / "c").symlink_to(secret, target_is_directory=True)
        (root / "d" / "1").unlink()
        os.mkfifo(root / "d" / "1")
        (root / "e" / "1").write_bytes(b"longer")
        assert [read(source, member) for member in members] == [
            Refusal.MISSING,
            Refusal.LINK,
            Refusal.LINK,
            Refusal.CHANGED,
            Refusal.CHANGED,
        ]


@pytest.mark.parametrize("name", ["../secret", "a/../../secret", "/secret", "a//1", "."])
def test_no_name_leads_out_of_the_folder(name: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"no")
    root = tmp_path / "folder"
    (root / "a").mkdir(parents=True)
    with open_source(root) as source:
        assert isinstance(read(source, Member(name, 2)), Refusal)


def test_links_encrypted_and_oddly_packed_files_of_a_zip_are_listed_and_refused(tmp_path: Path) -> None:
    path = tmp_path / "hostile.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, mode in (("link", stat.S_IFLNK), ("device", stat.S_IFCHR)):
            info = zipfile.ZipInfo(name)
            info.create_system, info.external_attr = 3, (mode | 0o777) << 16
            archive.writestr(info, "/etc/passwd")
        archive.writestr("packed", b"x" * 100, compress_type=zipfile.ZIP_BZIP2)
        archive.writestr("locked", b"secret")
        archive.getinfo("locked").flag_bits |= 1
        archive.writestr("../../climbs", b"climbs")
        archive.writestr("a\\back.jpg", b"backslash")
    assert contents(path) == {
        "link": Refusal.LINK,
        "device": Refusal.SPECIAL,
        "packed": Refusal.COMPRESSION,
        "locked": Refusal.ENCRYPTED,
        "../../climbs": Refusal.NAME,
        "a/back.jpg": b"backslash",
    }


def test_a_zip_member_that_swells_is_cut_at_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/bomb", bytes(1 << 26))
    assert path.stat().st_size < 1 << 17
    assert contents(path, 1_000) == {"a/bomb": bytes(1_001)}


def test_a_tar_file_that_ends_with_a_zip_file_is_a_tar_file(tmp_path: Path) -> None:
    inner = as_zip({"x": b"inner"}, tmp_path).read_bytes()
    path = as_tar({"a/1": b"one", "a/inner.zip": inner}, tmp_path)
    assert contents(path) == {"a/1": b"one", "a/inner.zip": inner}


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG" + bytes(2_000)])
def test_what_is_no_source_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(HomewardError) as refused:
        listed(path)
    assert refused.value.code == "SOURCE_UNREADABLE"
    with pytest.raises(HomewardError, match="no such folder or file"):
        listed(tmp_path / "nothing")


@pytest.mark.parametrize("kind", ["tar", "zip"])
@given(
    damage=st.lists(st.tuples(st.integers(0, 2**32), st.integers(0, 255)), min_size=1, max_size=6),
    cut=st.integers(0, 4_000),
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_archives_give_reasons_and_never_a_crash(
    kind: str, damage: Sequence[tuple[int, int]], cut: int
) -> None:
    with TemporaryDirectory() as folder:
        path = KINDS[kind](_TREE, Path(folder))
        data = bytearray(path.read_bytes())
        for at, value in damage:
            data[at % len(data)] = value
        path.write_bytes(data[: len(data) - cut] if cut < 500 else data)
        found: dict[str, bytes | Refusal] = {}
        with suppress(InvalidInput):  # as a whole
            found = contents(path)
        if kind == "zip":  # with checksums: right, or refused with a reason
            assert all(isinstance(one, Refusal) or one in _TREE.values() for one in found.values())


def test_names_that_are_no_text_are_shown_and_read(tmp_path: Path) -> None:
    root = tmp_path / "folder"
    root.mkdir()
    (root / os.fsdecode(b"\xff\n.jpg")).write_bytes(b"one")
    [member] = listed(root)
    assert member.shown == "\\xff\\n.jpg"
    assert list(contents(root).values()) == [b"one"]
