"""The report of a load says of each photo and record what its parts say, in whatever order they come."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from itertools import combinations
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cluster.load.report_pictures as pictures_module
import cluster.load.report_types as types_module
from cluster.load.outcome_file import forget
from cluster.load.outcome_types import RECORD_DELETED, Became, PartOutcome, PhotoOutcome
from cluster.load.picture import SAME_PICTURE_BITS, bits_apart
from cluster.load.report import LoadReport, summarise
from cluster.load.report_page import as_json
from cluster.load.report_types import MANY_RECORDS, Numbers, SuspectedDouble
from tests.cluster.load.outcomes import flipped, id_of, part, photo, record, rejected

HASH = bytes(range(32))


def told(report: LoadReport, total: int = 0) -> str:
    """All that it says."""
    return json.dumps(as_json(report, total))


def doubles(report: LoadReport) -> list[tuple[str, str, list[tuple[int, int, int]]]]:
    return [
        (one.reference, one.other, [(two.one.number, two.other.number, two.bits) for two in one.pictures])
        for one in report.doubles()
    ]


def test_photos_and_records_are_summed_up() -> None:
    parts = [
        part(
            0,
            [
                photo(0, "A", face_ids=("f", "g")),
                photo(1, "A", content="photo 0", became=Became.DUPLICATE, of=0),
                rejected(2, "NO_FACE", "A", size=5),
                photo(3, "B", became=Became.ALREADY_THERE),
            ],
            [record("A"), record("B", created=False, kept=True)],
        ),
        part(1, [rejected(4, "NO_FACE", "C"), rejected(5, "EMPTY", "C"), rejected(6, "NO_RECORD", "")]),
        part(2, [], [record("D", searchable=False)]),
    ]
    with summarise(parts) as report:
        sums = report.sums
        assert sums.became == {"ENROLLED": 1, "DUPLICATE": 1, "ALREADY_THERE": 1, "REJECTED": 4}
        assert list(sums.codes.items()) == [("NO_FACE", 2), ("EMPTY", 1), ("NO_RECORD", 1)]
        assert (sums.photos, sums.faces) == (7, 2)
        assert sums.bytes == 1000 + 1001 + 5 + 1003 + 1004 + 1005 + 1006
        assert sums.milliseconds == pytest.approx(7 * 1.25)
        assert (sums.records, sums.created, sums.searchable, sums.attributes_kept) == (3, 2, 2, 1)
        without = [(one.reference, one.photos, dict(one.reasons)) for one in report.without_face()]
        assert without == [("C", 2, {"EMPTY": 1, "NO_FACE": 1}), ("D", 0, {})]
        assert sums.without_face == 2
        assert [row.number for row in report.rejected()] == [2, 4, 5, 6]
        assert [row.number for row in report.rejected("NO_FACE")] == [2, 4]
        first = next(report.rejected())
        assert (first.photo, first.reference, first.code) == ("A/2.jpg", "A", "NO_FACE")
        assert (first.kept, first.message) == (True, "NO_FACE: do something about it")


def test_of_a_load_without_photos_there_is_nothing_to_say() -> None:
    with summarise([]) as report:
        assert report.sums.photos == report.sums.records == report.sums.doubles == 0
        assert report.sums.became == dict.fromkeys(Became, 0)
        assert report.unaccounted(0).everything_is_there
        assert not report.unaccounted(1).everything_is_there


@pytest.mark.parametrize("second", [Became.ENROLLED, Became.ALREADY_THERE])
@pytest.mark.parametrize("turned", [False, True])
def test_the_same_bytes_in_several_parts_count_once_the_first_in_the_input(
    second: Became, turned: bool
) -> None:
    """A part that came later may find the photo there, or, done at the same time, enrol it too."""
    parts = [
        part(0, [photo(4, "A", "x")], [record("A", created=not turned, kept=turned)]),
        part(
            1,
            [
                photo(7, "A", "x"),
                photo(8, "A", "x", became=Became.DUPLICATE, of=7),
                rejected(9, "NO_FACE", "A", content="x"),
                photo(10, "B", "x"),
            ],
            [record("A", created=turned, kept=not turned), record("B")],
        ),
    ]
    later = 0 if turned else 1
    photos = list(parts[later].photos)
    photos[0] = replace(photos[0], became=second, face_ids=photos[0].face_ids if second == "ENROLLED" else ())
    parts[later] = replace(parts[later], photos=tuple(photos))
    for order in (parts, parts[::-1]):
        with summarise(order) as report:
            assert report.sums.became == {"ENROLLED": 2, "DUPLICATE": 2, "ALREADY_THERE": 0, "REJECTED": 1}
            assert [(row.number, row.of) for row in report.duplicates()] == [(7, 4), (8, 4)]
            assert report.sums.faces == 2
            assert (report.sums.records, report.sums.created, report.sums.attributes_kept) == (2, 2, 0)


def test_a_record_is_found_if_any_part_gave_it_a_face() -> None:
    parts = [
        part(0, [rejected(0, "NO_FACE", "A")], [record("A", searchable=False)]),
        part(1, [photo(1, "A")], [record("A", created=False)]),
    ]
    with summarise(parts) as report:
        assert (report.sums.records, report.sums.searchable, report.sums.without_face) == (1, 1, 0)


def test_numbers_that_are_missing_doubled_or_too_many_are_named() -> None:
    numbers = [0, 1, 4, 4, 5, 5, 5, 9, 12, 13]
    with summarise([part(0, [photo(number) for number in numbers])]) as report:
        found = report.unaccounted(11)
        assert found.missing == Numbers(6, ((2, 3), (6, 8), (10, 10)))
        assert found.doubled == Numbers(2, ((4, 5),))
        assert found.beyond == Numbers(2, ((12, 13),))
        assert not found.everything_is_there
    with summarise([part(0, [photo(number) for number in (2, 0, 1)])]) as report:
        assert report.unaccounted(3).everything_is_there


@given(st.lists(st.integers(0, 12), max_size=20), st.integers(0, 12))
@settings(max_examples=40, deadline=None)
def test_every_number_is_accounted_for_once_or_named(numbers: list[int], total: int) -> None:
    def spread(found: Numbers) -> list[int]:
        spread = [number for first, last in found.stretches for number in range(first, last + 1)]
        assert len(spread) == found.count
        return spread

    with summarise([part(0, [rejected(number, "X", "") for number in numbers])]) as report:
        found = report.unaccounted(total)
    seen = Counter(numbers)
    assert spread(found.missing) == [number for number in range(total) if not seen[number]]
    assert spread(found.doubled) == sorted(number for number, times in seen.items() if times > 1)
    assert spread(found.beyond) == sorted(number for number in seen if number >= total)


def test_a_list_of_missing_numbers_is_bounded_and_its_count_is_not() -> None:
    with summarise([part(0, [rejected(number, "X", "") for number in range(0, 6000, 2)])]) as report:
        found = report.unaccounted(6000)
    assert found.missing.count == 3000
    assert len(found.missing.stretches) == types_module.LISTED


def test_two_records_with_one_picture_are_for_a_person_to_look_at() -> None:
    close, far = flipped(HASH, SAME_PICTURE_BITS), flipped(HASH, SAME_PICTURE_BITS + 1, seed=1)
    photos = [
        photo(0, "A", picture=HASH),
        photo(1, "B", picture=close),
        photo(2, "C", picture=far),
        photo(3, "D", "bytes", picture=b""),  # a blank page
        photo(4, "E", "bytes", picture=b""),
        photo(5, "F", picture=b""),  # another one
        rejected(6, "PHOTO_EMPTY", "G", content="none"),  # never decoded: no picture
        rejected(7, "PHOTO_EMPTY", "H", content="none"),
        rejected(8, "NO_FACE", "I", content="photo 0", width=200),  # decoded, and its hash is known from 0
    ]
    with summarise([part(0, photos)]) as report:
        assert doubles(report) == [
            ("A", "B", [(0, 1, SAME_PICTURE_BITS)]),
            ("A", "I", [(0, 8, 0)]),
            ("B", "I", [(1, 8, SAME_PICTURE_BITS)]),
            ("D", "E", [(3, 4, 0)]),
        ]
        assert report.sums.doubles == 4
        assert report.sums.same_pictures == 0


def test_a_double_says_how_many_pictures_are_shared_and_which() -> None:
    first, second = HASH, bytes(32)
    photos = [
        photo(0, "A", picture=first),
        photo(1, "A", picture=flipped(first, 3)),
        photo(2, "A", picture=second),
        photo(3, "A"),
        photo(4, "B", picture=first),
        photo(5, "B", picture=flipped(second, 5)),
        photo(6, "C", picture=flipped(second, 6, seed=1)),
    ]
    with summarise([part(0, photos[4:]), part(1, photos[:4])]) as report:
        found = list(report.doubles())
        assert [(one.reference, one.other, one.shared) for one in found] == [
            ("A", "B", 2),
            ("A", "C", 1),
            ("B", "C", 1),
        ]
        assert doubles(report)[0][2] == [(0, 4, 0), (1, 4, 3), (2, 5, 5)]
        [same] = report.same_pictures()
        assert (same.reference, [row.number for row in same.copies]) == ("A", [0, 1])
        assert report.sums.same_pictures == 1


def test_within_a_record_copies_are_one_group_however_they_hang_together() -> None:
    near = flipped(HASH, SAME_PICTURE_BITS)
    further = bytes(
        one ^ other for one, other in zip(near, flipped(bytes(32), SAME_PICTURE_BITS, seed=9), strict=True)
    )
    photos = [
        photo(0, "A", picture=HASH),
        photo(1, "A", picture=further),
        photo(2, "A", picture=near),
        photo(3, "A", content="photo 0", became=Became.DUPLICATE, of=0, picture=b"", width=0),
        photo(4, "A"),
        photo(5, "B", picture=bytes(32)),
        photo(6, "B", picture=flipped(bytes(32), 1)),
    ]
    assert bits_apart(HASH, further) > SAME_PICTURE_BITS
    with summarise([part(0, photos)]) as report:
        found = [(one.reference, [row.number for row in one.copies]) for one in report.same_pictures()]
        assert found == [("A", [0, 1, 2, 3]), ("B", [5, 6])]
        assert report.sums.doubles == 0


def test_a_picture_under_many_records_is_told_once_and_makes_no_pairs() -> None:
    placeholder = [photo(n, f"R{n:02}", "logo", picture=HASH) for n in range(MANY_RECORDS + 1)]
    saved_anew = photo(50, "S", picture=flipped(HASH, 2))
    enough = [photo(60 + n, f"T{n}", picture=bytes(32)) for n in range(3)]
    with summarise([part(0, [*placeholder, saved_anew, *enough])]) as report:
        [common] = report.common()
        assert (common.photo.number, common.photos, common.records) == (0, MANY_RECORDS + 2, MANY_RECORDS + 2)
        assert report.sums.common == 1
        assert [(one.reference, one.other) for one in report.doubles()] == [
            ("T0", "T1"),
            ("T0", "T2"),
            ("T1", "T2"),
        ]


def test_many_pictures_that_are_all_a_little_alike_are_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures_module, "LOOK_ALIKES", 20)
    alike = [photo(n, f"R{n:02}", picture=flipped(HASH, 2, seed=n)) for n in range(40)]
    pair = [photo(50, "X", picture=bytes(32)), photo(51, "Y", picture=bytes(32))]
    with summarise([part(0, [*pair, *alike])]) as report:
        [common] = report.common()
        assert (common.photo.number, common.photos, common.records) == (0, 40, 40)
        assert [(one.reference, one.other) for one in report.doubles()] == [("X", "Y")]


def naive(photos: list[PhotoOutcome]) -> dict[tuple[str, str], set[tuple[int, int]]]:
    """Pairs of photos that are one picture, by pair of records: all with all."""
    found: dict[tuple[str, str], set[tuple[int, int]]] = {}
    for one, other in combinations(photos, 2):
        alike = one.sha256 == other.sha256 or (
            one.picture and other.picture and bits_apart(one.picture, other.picture) <= SAME_PICTURE_BITS
        )
        if alike:
            low, high = sorted((one, other), key=lambda row: (row.reference, row.number))
            found.setdefault((low.reference, high.reference), set()).add((low.number, high.number))
    return found


@given(
    st.lists(
        st.tuples(st.sampled_from("ABCDEF"), st.integers(0, 3), st.integers(0, 30), st.booleans()),
        max_size=25,
    ),
    st.randoms(use_true_random=False),
)
@settings(max_examples=60, deadline=None)
def test_what_is_alike_is_what_comparing_all_with_all_says(
    chosen: list[tuple[str, int, int, bool]], random: Random
) -> None:
    photos = [
        photo(
            number,
            reference,
            f"{motif} {bits} {blank}",
            picture=b"" if blank else flipped(bytes([motif * 85]) * 32, bits, seed=bits),
        )
        for number, (reference, motif, bits, blank) in enumerate(chosen)
    ]
    expected = naive(photos)
    with summarise([part(n, [one]) for n, one in enumerate(photos)]) as report:
        found: dict[tuple[str, str], SuspectedDouble] = {
            (one.reference, one.other): one for one in report.doubles()
        }
        same = {one.reference for one in report.same_pictures()}
        whole = told(report, len(photos))
    across = {pair: numbers for pair, numbers in expected.items() if pair[0] != pair[1]}
    assert set(found) == set(across)
    for pair, double in found.items():
        assert all((one.one.number, one.other.number) in across[pair] for one in double.pictures)
        assert double.shared <= len(double.pictures)
    assert same == {pair[0] for pair in expected if pair[0] == pair[1]}
    shuffled = [part(n, [one]) for n, one in enumerate(photos)]
    random.shuffle(shuffled)
    with summarise(shuffled) as report:
        assert told(report, len(photos)) == whole


def test_of_a_forgotten_record_the_report_knows_nothing() -> None:
    outcome = part(
        0,
        [photo(0, "child", "x"), photo(1, "other", "x"), rejected(2, "NO_FACE", "child")],
        [record("child"), record("other")],
    )
    with summarise([forget(outcome, frozenset([id_of("child")]))]) as report:
        assert "child" not in told(report, 3)
        assert report.sums.codes == {RECORD_DELETED: 2}
        assert (report.sums.records, report.sums.without_face, report.sums.doubles) == (1, 0, 0)
        assert report.unaccounted(3).everything_is_there


def test_a_record_that_was_deleted_before_is_not_called_faceless() -> None:
    with summarise([part(0, [rejected(0, RECORD_DELETED, "A"), rejected(1, "NO_FACE", "B")])]) as report:
        assert [one.reference for one in report.without_face()] == ["B"]


def test_lists_can_be_read_side_by_side() -> None:
    parts = [PartOutcome(0, tuple(rejected(n, "NO_FACE", f"R{n}") for n in range(50)), ())]
    with summarise(parts) as report:
        for one, other in zip(report.rejected(), report.without_face(), strict=True):
            assert one.reference[0] == other.reference[0] == "R"
