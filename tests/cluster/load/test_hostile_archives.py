"""Archives whose headers lie cost what they spoil, and neither time nor memory nor the rest of the load."""

from __future__ import annotations

import io
import os
import struct
import tarfile
import time
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.load.members import MemberRefused, Refusal, normal_name
from cluster.load.open_source import open_source
from cluster.load.plan import Plan
from homeward.errors import InvalidInput
from tests.cluster.load.archives import KINDS, add, as_tar, as_zip

_MOST = 1 << 16
_SIZE, _CHECKSUM = slice(124, 136), slice(148, 156)
_GOOD = {"A/1.png": b"one", "B/2.png": b"two"}


def found_in(path: Path) -> list[tuple[str, bytes | Refusal]]:
    """What every member gives, and what is planned of them."""
    found: list[tuple[str, bytes | Refusal]] = []
    with open_source(path) as source:
        for member in source.members():
            assert 0 <= member.size < 1 << 63
            assert 0 <= member.offset < 1 << 63
            try:
                found.append((member.name, member.refusal or source.read(member, _MOST)))
            except MemberRefused as error:
                found.append((member.name, error.reason))
        with TemporaryDirectory() as folder, Plan(Path(folder) / "plan") as plan:
            plan.make([source], None)
            plan.totals()
    return found


@contextmanager
def little(seconds: float = 5.0, most_bytes: int = 8 << 20) -> Iterator[None]:
    """What is done inside takes little time and memory."""
    tracemalloc.start()
    before = time.monotonic()
    try:
        yield
        assert time.monotonic() - before < seconds
        assert tracemalloc.get_traced_memory()[1] < most_bytes
    finally:
        tracemalloc.stop()


def header(name: str, kind: bytes, size: int | bytes) -> bytes:
    """A block of a tar file with a right checksum, whatever the size."""
    info = tarfile.TarInfo(name)
    info.type = kind
    if isinstance(size, int):
        info.size = size
        return info.tobuf(tarfile.GNU_FORMAT)
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[_SIZE] = size
    block[_CHECKSUM] = b" " * 8
    block[_CHECKSUM] = b"%06o\0 " % sum(block)
    return bytes(block)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def pax(records: bytes) -> bytes:
    return header("pax", tarfile.XHDTYPE, len(records)) + padded(records)


def record(key: bytes, value: bytes) -> bytes:
    rest = b" %b=%b\n" % (key, value)
    size = len(rest) + 1
    while len(str(size)) + len(rest) != size:
        size += 1
    return b"%d%b" % (size, rest)


def hostile_tar(folder: Path, headers: bytes) -> Path:
    """A good member, these headers, and a good member."""
    path = folder / "hostile.tar"
    one, two = (header(name, tarfile.REGTYPE, 3) + padded(content) for name, content in _GOOD.items())
    path.write_bytes(one + headers + two + bytes(1024))
    return path


_FIRST, _SECOND = _GOOD.items()


@pytest.mark.parametrize(
    "headers",
    [
        header("x", tarfile.REGTYPE, b"\xff" * 10 + b"\xfe\x00"),
        header("x", tarfile.REGTYPE, b"-1000000000\0"),
        header("x", tarfile.REGTYPE, b"\x80\0\0\x7f" + b"\xff" * 8),
        header("x", tarfile.XHDTYPE, b"\xff" * 12),
        header("x", tarfile.GNUTYPE_LONGNAME, b"\xff" * 12),
        header("x", tarfile.XGLTYPE, b"\xff" * 12),
        pax(record(b"size", b"1" + b"0" * 30)),
        pax(record(b"size", b"-512")),
        pax(record(b"size", b"1e3")),
    ],
)
def test_after_a_size_that_no_file_has_the_rest_of_a_tar_file_is_lost(headers: bytes, tmp_path: Path) -> None:
    path = hostile_tar(tmp_path, headers)
    with little():
        assert found_in(path) == [_FIRST, ("(byte 1024)", Refusal.REST_LOST)]


@pytest.mark.parametrize(
    "records",
    [
        b"1" * 100_000,
        b"1" * 5_000 + b" a=b\n",
        b"999 path=x\n",
        b"4 a\n",
        b"0 path=x\n",
        b"11 path=abcd",
        b"9 path-x\n\n",
    ],
)
def test_a_damaged_extended_header_of_a_tar_file_costs_its_member(records: bytes, tmp_path: Path) -> None:
    path = hostile_tar(tmp_path, pax(records))
    with little():
        found = found_in(path)
    assert found == [_FIRST, ("B/2.png", Refusal.DAMAGED)]


@pytest.mark.parametrize("key", [b"GNU.sparse.map", b"GNU.sparse.realsize", b"GNU.sparse.major"])
def test_a_file_with_holes_is_refused_whatever_is_said_of_them(key: bytes, tmp_path: Path) -> None:
    assert found_in(hostile_tar(tmp_path, pax(record(key, b"x")))) == [_FIRST, ("B/2.png", Refusal.SPECIAL)]


def test_thousands_of_headers_in_a_row_are_followed_to_their_member(tmp_path: Path) -> None:
    long = header("././@LongLink", tarfile.GNUTYPE_LONGNAME, 8) + padded(b"A/x.png\0")
    path = hostile_tar(tmp_path, long * 3_000)
    with little():
        found = found_in(path)
    assert found == [_FIRST, ("A/x.png", b"two")]


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGLINK, b"g"])
def test_headers_of_gigabytes_are_not_read(kind: bytes, tmp_path: Path) -> None:
    path = tmp_path / "sparse.tar"
    one, two = (header(name, tarfile.REGTYPE, 3) + padded(content) for name, content in _GOOD.items())
    with path.open("wb") as file:
        file.write(one + header("x", kind, 3 << 30))
        file.write(b"x" * 8_192)
        file.seek((3 << 30) - 8_192, os.SEEK_CUR)
        file.write(two)
        file.truncate(file.tell() + (1 << 40))  # a terabyte of zeros that are not there
    with little():
        first, (name, second) = found_in(path)
    assert first == _FIRST
    expected = {tarfile.GNUTYPE_LONGNAME: Refusal.NAME, tarfile.XHDTYPE: Refusal.DAMAGED}
    assert second == expected.get(kind, b"two")
    assert name == ("x" * 255 if second is Refusal.NAME else "B/2.png")


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_name_longer_than_a_path_is_refused_and_its_beginning_told(form: int, tmp_path: Path) -> None:
    path = tmp_path / "long.tar"
    with tarfile.open(path, "w", format=form) as archive:
        add(archive, "a/" + "y" * 4_094, b"one")
        add(archive, "a/" + "x" * 4_095, b"two")
    (_, one), (name, two) = found_in(path)
    assert (one, two) == (b"one", Refusal.NAME)
    assert name == "a/" + "x" * 253
    path = tmp_path / "long.zip"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("a/" + "y" * 4_094, b"one")
        packed.writestr("a/" + "x" * 60_000, b"two")
    assert [given for _, given in found_in(path)] == [b"one", Refusal.NAME]


def test_names_of_megabytes_take_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "names.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for number in range(4):
            add(archive, f"A{number}/" + "x" * 4_000_000, b"one")
            add(archive, f"A{number}/short", b"two")
    with little(most_bytes=6 << 20):
        found = found_in(path)
    assert [given for _, given in found] == [Refusal.DAMAGED, b"two"] * 4


names = st.lists(st.text("ab\u00e5", min_size=1, max_size=60), min_size=1, max_size=4).map("/".join)


@given(
    st.lists(st.tuples(names, st.binary(max_size=1_100)), max_size=6),
    st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
@settings(max_examples=60, deadline=None)
def test_tar_files_hold_what_the_library_says(files: list[tuple[str, bytes]], form: int) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "photos.tar"
        with tarfile.open(path, "w", format=form) as archive:
            for name, content in files:
                with suppress(ValueError):  # a name that the format cannot hold
                    add(archive, name, content)
        with tarfile.open(path, errors="surrogateescape") as archive:
            held = [(one.name, archive.extractfile(one).read()) for one in archive]  # type: ignore[union-attr]
        assert found_in(path) == held


def test_archives_made_of_the_folder_they_are_in_give_normal_names(tmp_path: Path) -> None:
    path = tmp_path / "dot.tar"
    with tarfile.open(path, "w") as archive:
        for name in ("./A/1.png", "A//2.png", "A/./3.png", ".//A/././4.png"):
            add(archive, name, name.encode())
    assert found_in(path) == [
        ("A/1.png", b"./A/1.png"),
        ("A/2.png", b"A//2.png"),
        ("A/3.png", b"A/./3.png"),
        ("A/4.png", b".//A/././4.png"),
    ]
    path = tmp_path / "dot.zip"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("./A/1.png", b"one")
        packed.writestr(".\\B\\2.png", b"two")
    assert found_in(path) == [("A/1.png", b"one"), ("B/2.png", b"two")]


def test_members_whose_names_become_one_stay_apart(tmp_path: Path) -> None:
    path = tmp_path / "same.tar"
    with tarfile.open(path, "w") as archive:
        add(archive, "A/1.png", b"one")
        add(archive, "./A/1.png", b"two")
    assert found_in(path) == [("A/1.png", b"one"), ("A/1.png", b"two")]


@pytest.mark.parametrize("kind", ["tar", "zip"])
@pytest.mark.parametrize("name", ["../A/1.png", "A/../B/1.png", "/A/1.png", "A/..", "./."])
def test_names_that_are_no_path_below_the_archive_are_refused_and_shown(
    kind: str, name: str, tmp_path: Path
) -> None:
    path = KINDS[kind]({name: b"one", "A/2.png": b"two"}, tmp_path)
    assert found_in(path) == [(name, Refusal.NAME), ("A/2.png", b"two")]


@given(st.text("ab./\udcff\u00e5"))
def test_a_normal_name_has_no_step_that_leads_nowhere_and_stays_as_it_is(name: str) -> None:
    normal = normal_name(name)
    assert normal_name(normal) == normal
    assert normal == "" or not {"", "."} & set(normal.split("/"))
    assert normal.split("/").count("..") == name.split("/").count("..")


def test_of_a_tar_file_that_was_exchanged_no_photo_is_taken_for_another(tmp_path: Path) -> None:
    path = as_tar({"A/1.png": b"aaa", "B/1.png": b"bbb"}, tmp_path)
    with open_source(path) as source:
        members = list(source.members())
    path.unlink()
    as_tar({"B/1.png": b"bbb", "A/1.png": b"aaa"}, tmp_path)
    with open_source(path) as source:
        for member in members:
            with pytest.raises(MemberRefused) as caught:
                source.read(member, _MOST)
            assert caught.value.reason is Refusal.CHANGED


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@given(st.integers(0, 40), st.integers(0, 1 << 20))
@settings(max_examples=40, deadline=None)
def test_a_tar_member_is_held_to_all_of_its_headers(form: int, block: int, at: int) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "photos.tar"
        with tarfile.open(path, "w", format=form) as archive:
            add(archive, "a" * 150 + "/1", b"one")
        with open_source(path) as source:
            [member] = source.members()
        assert member.packed - member.size == member.offset  # which follows the headers of the first member
        data = bytearray(path.read_bytes())
        place = (block * 512 + at) % member.offset
        data[place] ^= 1
        path.write_bytes(data)
        with open_source(path) as source, suppress(MemberRefused):
            # What is not read of them, behind a name or at an end, may be anything.
            assert source.read(member, _MOST) == b"one"
            [again] = source.members()
            assert again == member


def directory(path: Path, change: Callable[[bytearray, int], None]) -> Path:
    """The zip file with the directory's first entry, which begins at the number, changed."""
    data = bytearray(path.read_bytes())
    change(data, data.index(b"PK\1\2"))
    path.write_bytes(data)
    return path


def long_numbers(*values: int, extra: bytes | None = None) -> Callable[[bytearray, int], None]:
    """Moves size and, with two values, offset of an entry into its extra field, as these values."""

    def change(data: bytearray, at: int) -> None:
        end = data.index(b"PK\5\6")
        name_size = struct.unpack_from("<H", data, at + 28)[0]
        numbers = struct.pack(f"<{len(values)}Q", *values)
        field = struct.pack("<HH", 1, len(numbers)) + numbers if extra is None else extra
        struct.pack_into("<L", data, at + 24, 0xFFFFFFFF)
        struct.pack_into("<H", data, at + 30, len(field))
        if len(values) > 1:
            struct.pack_into("<L", data, at + 42, 0xFFFFFFFF)
        size = struct.unpack_from("<L", data, end + 12)[0]
        struct.pack_into("<L", data, end + 12, size + len(field))
        place = at + 46 + name_size
        data[place:place] = field

    return change


@pytest.mark.parametrize(
    "change",
    [
        long_numbers((1 << 64) - 1),
        long_numbers(1 << 63),
        long_numbers(1 << 62),
        long_numbers(3, (1 << 63) + 5),
        long_numbers(3, (1 << 63) - 1),
        long_numbers(3, (1 << 64) - 1),
        long_numbers(extra=b"\1\0\4\0aaaa"),
        long_numbers(extra=b"\1\0\xff\xffaaaa"),
        long_numbers(extra=b"\x99\x99\xff\xff"),
    ],
)
def test_an_entry_of_a_zip_file_with_impossible_numbers_costs_its_member(
    change: Callable[[bytearray, int], None], tmp_path: Path
) -> None:
    path = directory(as_zip(_GOOD, tmp_path), change)
    assert found_in(path) == [("A/1.png", Refusal.DAMAGED), _SECOND]


def test_long_numbers_of_a_zip_file_are_read(tmp_path: Path) -> None:
    path = directory(as_zip(_GOOD, tmp_path), long_numbers(3, 0))
    assert found_in(path) == list(_GOOD.items())
    path = tmp_path / "long.zip"
    with zipfile.ZipFile(path, "w") as archive, archive.open("A/1.png", "w", force_zip64=True) as file:
        file.write(b"one")
    with path.open("r+b") as raw:  # what stands before an archive moves it
        data = raw.read()
        raw.seek(0)
        raw.write(b"#!/bin/unpack\n" + data)
    assert found_in(path) == [("A/1.png", b"one")]


def test_an_entry_of_a_later_version_of_the_zip_format_costs_its_member(tmp_path: Path) -> None:
    def change(data: bytearray, at: int) -> None:
        struct.pack_into("<H", data, at + 6, 99)

    path = directory(as_zip(_GOOD, tmp_path), change)
    assert found_in(path) == [("A/1.png", Refusal.COMPRESSION), _SECOND]
    with open_source(path) as source:
        assert "version 9.9" in next(source.members()).why


def test_a_zip_file_whose_directory_breaks_off_gives_what_it_names_before(tmp_path: Path) -> None:
    path = as_zip(_GOOD, tmp_path)
    data = bytearray(path.read_bytes())
    place = data.rindex(b"PK\1\2")
    data[place] = 0
    path.write_bytes(data)
    assert found_in(path) == [_FIRST, (f"(byte {place})", Refusal.REST_LOST)]


@pytest.mark.parametrize("cut", [1, 30, 100])
def test_a_zip_file_that_was_cut_off_says_so(cut: int, tmp_path: Path) -> None:
    path = as_zip(_GOOD, tmp_path)
    os.truncate(path, path.stat().st_size - cut)
    with pytest.raises(InvalidInput, match="zip file: it was cut off"):
        found_in(path)


def test_a_zip_entry_that_names_the_place_of_another_file_is_refused(tmp_path: Path) -> None:
    path = as_zip({"A/1.png": b"one", "B/2.png": b"one"}, tmp_path)  # of one checksum
    data = path.read_bytes()
    path.write_bytes(data.replace(b"A/1.png", b"C/3.png", 1))
    assert found_in(path) == [("A/1.png", Refusal.DAMAGED), ("B/2.png", b"one")]


def test_a_zip_directory_is_not_held_in_memory(tmp_path: Path) -> None:
    entry = struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 0, 0, 0, 0, 0, 0, 60_000, 0, 0, 0, 0, 0, 0)
    count = 400
    body = (entry + b"n" * 60_000) * count
    path = tmp_path / "names.zip"
    path.write_bytes(body + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, len(body), 0, 0))
    del body
    with little(most_bytes=4 << 20):
        found = found_in(path)
    assert [given for _, given in found] == [Refusal.NAME] * count


def seeds() -> dict[str, bytes]:
    """Small archives that have of everything."""
    tree = {"a/1": b"one", "a/" + "long" * 40: b"two" * 300, "b/3": b"", "b/4": b"four"}
    made = {}
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        held = io.BytesIO()
        with tarfile.open(fileobj=held, mode="w", format=form, pax_headers={"comment": "all"}) as archive:
            for name, content in tree.items():
                add(archive, name, content)
            add(archive, "b/link", kind=tarfile.SYMTYPE)
        made[f"tar{form}"] = held.getvalue()
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as packed:
        for number, (name, content) in enumerate(tree.items()):
            packed.writestr(name, content, compress_type=zipfile.ZIP_DEFLATED if number % 2 else None)
        with packed.open("b/64", "w", force_zip64=True) as file:
            file.write(b"zip64")
    made["zip"] = held.getvalue()
    return made


_SEEDS = seeds()


@pytest.mark.parametrize("seed", _SEEDS)
@given(
    changes=st.lists(st.tuples(st.integers(0, 1 << 20), st.binary(min_size=1, max_size=12)), max_size=5),
    taken=st.tuples(st.integers(0, 1 << 20), st.integers(0, 1_200)),
    fix=st.booleans(),
)
@settings(max_examples=120, deadline=None)
def test_of_any_bytes_the_listing_ends_and_gives_reasons(
    seed: str, changes: Sequence[tuple[int, bytes]], taken: tuple[int, int], fix: bool
) -> None:
    data = bytearray(_SEEDS[seed])
    for at, value in changes:
        place = at % len(data)
        data[place : place + len(value)] = value
        if fix and seed != "zip":  # so that the damage is believed
            block = data[place // 512 * 512 :][:512]
            block[_CHECKSUM] = b" " * 8
            data[place // 512 * 512 + 148 : place // 512 * 512 + 156] = b"%06o\0 " % sum(block)
    start = taken[0] % len(data)
    if taken[1] % 3 == 0:
        del data[start : start + taken[1]]
    with TemporaryDirectory() as folder:
        path = Path(folder) / "any"
        path.write_bytes(data)
        with suppress(InvalidInput), little(seconds=10):
            found_in(path)
