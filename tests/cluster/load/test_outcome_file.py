"""An outcome comes back from its file as it was; anything else is told apart; what is forgotten is gone."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.load.outcome_file import forget, read_outcome, write_outcome
from cluster.load.outcome_types import RECORD_DELETED, Became, PartOutcome, PhotoOutcome, RecordOutcome
from homeward.errors import Corrupt
from tests.cluster.load.outcomes import id_of, part, photo, record, rejected

whole = st.integers(0, 2**62)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
photos = st.builds(
    PhotoOutcome,
    number=whole,
    photo=texts,
    reference=texts,
    record_id=texts,
    became=st.sampled_from(Became),
    code=texts,
    message=texts,
    line=whole,
    source=whole,
    sha256=texts,
    size=whole,
    width=whole,
    height=whole,
    faces_seen=whole,
    face_ids=st.lists(texts, max_size=3).map(tuple),
    of=st.integers(-1, 2**62),
    picture=st.binary(max_size=32),
    kept=st.booleans(),
    milliseconds=st.floats(allow_nan=False),
)
records = st.builds(RecordOutcome, texts, texts, st.booleans(), st.booleans(), st.booleans())
outcomes = st.builds(
    PartOutcome,
    whole,
    st.lists(photos, max_size=5).map(tuple),
    st.lists(records, max_size=4).map(tuple),
)
SOME = part(
    7,
    [
        photo(3, "Å/1"),
        photo(4, "Å/1", became=Became.DUPLICATE, of=3, content="photo 3"),
        rejected(9, "NO_FACE", "B", width=10, height=20),
    ],
    [record("Å/1"), record("B", created=False, searchable=False, kept=True)],
)


def refused(data: bytes) -> str:
    with pytest.raises(Corrupt) as error:
        read_outcome(data)
    assert error.value.code == "LOAD_OUTCOME_INVALID"
    return error.value.message


@given(outcomes)
@settings(max_examples=150, deadline=None)
def test_an_outcome_comes_back_as_it_was_and_is_always_written_alike(outcome: PartOutcome) -> None:
    data = write_outcome(outcome)
    assert read_outcome(data) == outcome
    assert write_outcome(outcome) == data
    assert write_outcome(read_outcome(data)) == data


def test_a_number_that_is_not_a_float_is_written_all_the_same() -> None:
    outcome = part(0, [photo(0, milliseconds=2)])
    assert read_outcome(write_outcome(outcome)) == outcome


def test_names_that_are_no_text_are_written_escaped() -> None:
    outcome = part(0, [photo(0, "A", photo="a\udcff.jpg")], [replace(record("A"), reference="\ud800")])
    back = read_outcome(write_outcome(outcome))
    assert back.photos[0].photo == "a\\udcff.jpg"
    assert back.records[0].reference == "\\ud800"


def test_any_tool_reads_the_photos_as_a_table() -> None:
    table = pq.read_table(pa.BufferReader(write_outcome(SOME)))
    assert table.column_names == [one.name for one in fields(PhotoOutcome)]
    assert table.column("became").to_pylist() == ["ENROLLED", "DUPLICATE", "REJECTED"]


def test_a_full_part_is_small() -> None:
    assert len(write_outcome(part(0, [photo(number, f"R{number}") for number in range(256)]))) < 100_000


@given(st.binary(max_size=300))
@settings(max_examples=100, deadline=None)
def test_other_bytes_are_no_outcome(data: bytes) -> None:
    refused(data)
    refused(b"PAR1" + data + b"PAR1")


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_a_changed_byte_never_changes_what_is_read(data: st.DataObject) -> None:
    good = bytearray(write_outcome(SOME))
    place = data.draw(st.integers(0, len(good) - 1))
    good[place] ^= data.draw(st.integers(1, 255))
    try:
        found = read_outcome(bytes(good))
    except Corrupt:
        refused(bytes(good))
    else:
        assert found == SOME  # it lay in bytes that nobody reads, say in who wrote the file


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_a_file_that_ends_early_or_goes_on_is_refused(data: st.DataObject) -> None:
    good = write_outcome(SOME)
    refused(good[: data.draw(st.integers(0, len(good) - 1))])
    refused(good + b"\0")


def forged(change: Any = None, **metadata: str) -> bytes:
    """The file as another writer might make it."""
    table = pq.read_table(pa.BufferReader(write_outcome(SOME)))
    if change is not None:
        table = change(table)
    kept = {
        **(table.schema.metadata or {}),
        **{key.replace("_", ".").encode(): value for key, value in metadata.items()},
    }
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(kept or None), sink)
    return bytes(sink.getvalue())


def test_what_was_written_again_without_a_change_is_read() -> None:
    assert read_outcome(forged()) == SOME


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table.drop_columns(["sha256"]),
        lambda table: table.append_column("more", pa.array([1, 2, 3])),
        lambda table: table.rename_columns(["id", *table.column_names[1:]]),
        lambda table: table.select(table.column_names[::-1]),
        lambda table: table.set_column(0, "number", pa.array([1.0, 2.0, 3.0])),
        lambda table: table.set_column(0, "number", pa.array([1, None, 3])),
        lambda table: table.set_column(4, "became", pa.array([b"x", b"y", b"z"])),
        lambda table: table.slice(1),
        lambda table: table.take([1, 0, 2]),
        lambda table: table.replace_schema_metadata(None),
        lambda table: pa.table({"a": [1]}),
    ],
)
def test_another_table_is_refused(change: Any) -> None:
    refused(forged(change))


@pytest.mark.parametrize(
    "said",
    [
        "",
        "{",
        "[]",
        "null",
        "[" * 100_000,
        '{"format":1,"part":7,"records":[]}',
        '{"format":1,"part":7}',
    ],
)
def test_another_head_is_refused(said: str) -> None:
    refused(forged(homeward_load_outcome=said))


@pytest.mark.parametrize(
    ("photos", "head"),
    [
        ([], {"part": -1}),
        ([], {"part": True}),
        ([], {"part": "1"}),
        ([], {"records": {}}),
        ([], {"records": [[]]}),
        ([], {"records": ["abcde"]}),
        ([], {"records": [["a", "b", 1, 0, 0]]}),
        ([photo(-1)], {}),
        ([replace(photo(0), became="GONE")], {}),  # type: ignore[arg-type]
    ],
)
def test_values_that_make_no_sense_are_refused_even_with_a_good_checksum(
    photos: list[PhotoOutcome], head: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    dumps = json.dumps

    def forging(value: Any, **options: Any) -> str:
        return dumps({**value, **head} if isinstance(value, dict) else value, **options)

    with monkeypatch.context() as patch:
        patch.setattr(json, "dumps", forging)
        data = write_outcome(part(0, photos, []))
    assert "checksum" not in refused(data)


def test_what_is_forgotten_leaves_a_number_and_nothing_else() -> None:
    outcome = part(
        5,
        [
            photo(10, "child"),
            photo(11, "child", became=Became.DUPLICATE, of=10, content="photo 10"),
            photo(12, "other"),
            rejected(13, "MEMBER_MISSING", "child", record_id="", line=4),
            rejected(14, "NO_RECORD", "", sha256=""),
            rejected(15, "NO_FACE", "child"),
        ],
        [record("child"), record("other")],
    )
    after = forget(outcome, frozenset([id_of("child")]))
    empty = [PhotoOutcome(n, "", "", "", Became.REJECTED, RECORD_DELETED) for n in (10, 11, 13, 15)]
    assert [one for one in after.photos if one.code == RECORD_DELETED] == empty
    assert [one for one in after.photos if one.code != RECORD_DELETED] == [
        outcome.photos[2],
        outcome.photos[4],
    ]
    assert [one.number for one in after.photos] == [10, 11, 12, 13, 14, 15]
    assert (after.part, after.records) == (5, (record("other"),))
    data = write_outcome(after)
    assert b"child" not in data
    assert id_of("child").encode() not in data
    assert read_outcome(data) == after


@given(outcomes, st.data())
@settings(max_examples=60, deadline=None)
def test_forgetting_nobody_or_again_changes_nothing(outcome: PartOutcome, data: st.DataObject) -> None:
    assert forget(outcome, frozenset(["not there"])) == outcome
    ids = sorted({one.record_id for one in outcome.photos if one.record_id})
    gone = frozenset(data.draw(st.sets(st.sampled_from(ids)))) if ids else frozenset[str]()
    once = forget(outcome, gone)
    assert forget(once, gone) == once
    assert [one.number for one in once.photos] == [one.number for one in outcome.photos]
    assert not gone & {one.record_id for one in once.photos}
    assert not gone & {one.record_id for one in once.records}
