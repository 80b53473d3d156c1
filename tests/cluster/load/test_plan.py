"""Every photo of every source, and every row of a manifest, is planned once, by record, in parts."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.load.manifest import open_manifest
from cluster.load.members import Member, Refusal
from cluster.load.open_source import open_source
from cluster.load.parts import cut, read_part, write_part
from cluster.load.plan import Plan
from cluster.load.plan_types import Part, PlannedPhoto, Totals, Unplanned
from homeward.errors import Corrupt
from homeward.types import Attributes, DateRange, FaceChoice, PhotoNote, Sex
from tests.cluster.load.archives import KINDS, Tree


def planned(paths: list[Path], table: str | None = None) -> tuple[list[PlannedPhoto], Totals]:
    """What is planned of these sources."""
    with TemporaryDirectory() as folder, ExitStack() as stack:
        manifest = None
        if table is not None:
            (Path(folder) / "manifest.csv").write_text(table)
            manifest = open_manifest(Path(folder) / "manifest.csv")
        plan = stack.enter_context(Plan(Path(folder) / "plan"))
        plan.make([stack.enter_context(open_source(path)) for path in paths], manifest)
        return list(plan.photos()), plan.totals()


def told(photos: list[PlannedPhoto]) -> list[tuple[str, str, str]]:
    return [(photo.member.name, photo.reference, photo.code) for photo in photos]


_TREE = {"b/2.jpg": b"two", "a/1.jpg": b"one", "b/deep/3.jpg": b"three", "4.jpg": b"four", "a/5.jpg": b"five"}


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_manifest_a_photos_folder_is_its_record(kind: str, tmp_path: Path) -> None:
    photos, totals = planned([KINDS[kind](_TREE, tmp_path)])
    assert sorted(told(photos)) == [
        ("4.jpg", "", Unplanned.NO_RECORD),
        ("a/1.jpg", "a", ""),
        ("a/5.jpg", "a", ""),
        ("b/2.jpg", "b", ""),
        ("b/deep/3.jpg", "b/deep", ""),
    ]
    assert [photo.reference for photo in photos] == ["", "a", "a", "b", "b/deep"]
    assert totals == Totals(4, 15, 3, {Unplanned.NO_RECORD: 1})


def test_of_a_record_the_photos_come_in_the_order_of_the_input(tmp_path: Path) -> None:
    tree = {f"a/{name}": b"x" for name in "zyxab"}
    photos, _ = planned([KINDS["tar"](tree, tmp_path)])
    assert [photo.member.name for photo in photos] == list(tree)


def test_a_manifest_says_whose_each_photo_is_and_what_is_known(tmp_path: Path) -> None:
    table = (
        "photo,record,born,sex,taken,face\n"
        "b/2.jpg,B,2008,f,2010-05,central\n"
        "a/1.jpg,A,,,,\n"
        "b/deep/3.jpg,B,2008,female,,1\n"
    )
    photos, totals = planned([KINDS["zip"](_TREE, tmp_path)], table)
    assert told(photos) == [
        ("4.jpg", "", Unplanned.NOT_LISTED),
        ("a/5.jpg", "", Unplanned.NOT_LISTED),
        ("a/1.jpg", "A", ""),
        ("b/2.jpg", "B", ""),
        ("b/deep/3.jpg", "B", ""),
    ]
    born = Attributes(born=DateRange(date(2008, 1, 1), date(2008, 12, 31)), sex=Sex.FEMALE)
    assert [photo.attributes for photo in photos[2:]] == [Attributes(), born, born]
    assert photos[3].note == PhotoNote(
        taken=DateRange(date(2010, 5, 1), date(2010, 5, 31)), choice=FaceChoice.MOST_CENTRAL
    )
    assert photos[4].note == PhotoNote(choice=FaceChoice.ORDINAL, ordinal=1)
    assert totals.photos == 3
    assert totals.records == 2


def test_every_row_that_cannot_be_used_is_accounted_for_with_the_reason(tmp_path: Path) -> None:
    table = (
        "photo,record,born\n"
        "a/1.jpg,A,2008\n"
        "a/5.jpg,A,2009\n"  # differs from line 2
        "b/2.jpg,B,someday\n"
        "gone.jpg,C,\n"
        "a/1.jpg,A,2008\n"  # again
        "a/1.jpg,D,\n"  # the same photo of another record
        "b/deep/3.jpg,\n"
    )
    photos, totals = planned([KINDS["folder"](_TREE, tmp_path)], table)
    by_line = {photo.line: (photo.member.name, photo.reference, photo.code) for photo in photos if photo.line}
    assert by_line == {
        2: ("a/1.jpg", "A", ""),
        3: ("a/5.jpg", "A", Unplanned.ROW_DIFFERS),
        4: ("b/2.jpg", "", Unplanned.ROW_INVALID),
        5: ("gone.jpg", "C", Refusal.MISSING),
        6: ("a/1.jpg", "A", Unplanned.TWICE),
        7: ("a/1.jpg", "D", ""),
        8: ("", "", Unplanned.ROW_INVALID),
    }
    assert {photo.member.name for photo in photos if not photo.line} == {"4.jpg", "b/deep/3.jpg"}
    assert all(photo.why for photo in photos if photo.code)
    assert totals.photos == 2


def test_a_name_that_two_sources_have_is_not_guessed(tmp_path: Path) -> None:
    paths = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        paths.append(KINDS["tar"]({"a/1": b"x", f"{name}/2": b"y"}, tmp_path / name))
    photos, _ = planned(paths, "photo,record\na/1,A\ntwo/2,B\n")
    assert told(photos) == [
        ("one/2", "", Unplanned.NOT_LISTED),
        ("a/1", "A", Unplanned.SEVERAL),
        ("two/2", "B", ""),
    ]
    assert photos[2].source == 1


def test_what_a_source_refuses_is_planned_with_its_reason(tmp_path: Path) -> None:
    root = KINDS["folder"]({"a/1": b"x"}, tmp_path)
    (root / "a" / "link").symlink_to(root / "a" / "1")
    photos, _ = planned([root])
    assert told(photos) == [("a/1", "a", ""), ("a/link", "a", Refusal.LINK)]
    photos, _ = planned([root], "photo,record\na/link,A\n")
    assert told(photos) == [("a/1", "", Unplanned.NOT_LISTED), ("a/link", "A", Refusal.LINK)]


names = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map("/".join)
trees = st.dictionaries(names, st.binary(max_size=30), max_size=12).filter(
    lambda tree: not any(other.startswith(f"{name}/") for name in tree for other in tree)
)
rows = st.lists(
    st.tuples(names, st.sampled_from(["A", "B", ""]), st.sampled_from(["", "2008", "x"])), max_size=10
)


@given(trees, st.none() | rows)
@settings(max_examples=60, deadline=None)
def test_whatever_is_given_each_photo_and_each_row_is_planned_once(
    tree: Tree, table: list[tuple[str, str, str]] | None
) -> None:
    with TemporaryDirectory() as folder:
        path = KINDS["tar"](tree, Path(folder))
        lines = (
            None if table is None else "photo,record,born\n" + "".join(",".join(row) + "\n" for row in table)
        )
        photos, totals = planned([path], lines)
        again, _ = planned([path], lines)
    assert photos == again
    assert sorted(photo.number for photo in photos) == list(range(len(photos)))
    said = Counter(photo.line for photo in photos if photo.line)
    assert said == Counter(range(2, 2 + len(table or ())))
    assert set(tree) <= {photo.member.name for photo in photos}
    unsaid = [photo.member.name for photo in photos if not photo.line]
    assert len(unsaid) == len(set(unsaid))
    loaded = [(photo.member.name, photo.reference) for photo in photos if not photo.code]
    assert len(loaded) == len(set(loaded)) == totals.photos
    assert [photo.reference for photo in photos] == sorted(photo.reference for photo in photos)


def made(number: int, reference: str, size: int, code: str = "") -> PlannedPhoto:
    return PlannedPhoto(number, 0, Member(f"{reference}/{number}", size), reference, code=code)


@given(
    st.lists(st.tuples(st.sampled_from(["", "a", "b", "c", "d"]), st.integers(0, 12)), max_size=60),
    st.integers(1, 9),
    st.integers(1, 30),
)
@settings(max_examples=200, deadline=None)
def test_parts_hold_every_photo_once_within_the_limits_and_keep_records_whole(
    given_: list[tuple[str, int]], most: int, most_bytes: int
) -> None:
    photos = [made(number, reference, size) for number, (reference, size) in enumerate(sorted(given_))]
    parts = list(cut(photos, most, most_bytes))
    assert [photo for part in parts for photo in part.photos] == photos
    assert [part.number for part in parts] == list(range(len(parts)))
    where: dict[str, set[int]] = {}
    for part in parts:
        assert 1 <= len(part.photos) <= most
        assert sum(photo.member.size for photo in part.photos) <= most_bytes or len(part.photos) == 1
        for photo in part.photos:
            where.setdefault(photo.reference, set()).add(part.number)
    for reference, numbers in where.items():
        of_record = [photo for photo in photos if photo.reference == reference]
        if reference and len(of_record) <= most and sum(one.member.size for one in of_record) <= most_bytes:
            assert len(numbers) == 1


def test_a_part_comes_back_from_its_document_whole() -> None:
    photo = PlannedPhoto(
        7,
        2,
        Member("a/\udcff\u00e5.jpg", 5, 6, 7, 8, 9, Refusal.LINK, "links"),
        "a",
        3,
        Attributes(born=DateRange(date(2008, 1, 1), date(2008, 2, 1), verified=True), sex=Sex.MALE),
        PhotoNote(choice=FaceChoice.ORDINAL, ordinal=4),
        Refusal.LINK,
        "links are not followed",
    )
    nameless = PlannedPhoto(8, 0, Member("", 0), line=4, code="RECORD_DELETED")
    part = Part(3, (photo, made(1, "b", 0), nameless))
    assert read_part(write_part(part)) == part


@given(
    st.binary(max_size=80)
    | st.sampled_from([b"{}", b'{"format": 1}', b'{"format": 1, "number": 0, "photos": [{}]}'])
)
def test_other_bytes_are_no_part(document: bytes) -> None:
    with pytest.raises(Corrupt):
        read_part(document)
