"""What shards and servers say to each other arrives as it was said, and nothing else is taken for it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import fields, replace
from random import Random
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from homeward.errors import Corrupt, InvalidInput
from homeward.types import DAY_MAX, DAY_MIN, Evidence, Filter, ProbeFacts, Query
from homeward.v1 import shard_pb2
from index import reference
from index.columns import Columns, from_rows
from index.merge import Partial
from index.placement import SLOTS, slots_of
from index.rows_rpc import (
    read_pushed,
    read_rows,
    read_rows_answer,
    read_status,
    write_pushed,
    write_rows,
    write_status,
)
from index.shard_rpc import read_found, read_query, read_slots, write_found, write_query, write_slots
from index.shard_types import Pushed, ShardStatus
from tests.index.random_rows import DIMENSION, World, hex_id, photo_id

ALL = np.ones(SLOTS, np.bool_)

seeds = st.integers(0, 2**63)
days = st.integers(DAY_MIN, DAY_MAX)
spans = st.tuples(days, days).map(lambda pair: (min(pair), max(pair)))
codes = st.frozensets(st.integers(-(2**63), 2**63 - 1), max_size=4)


def same_query(one: Query, other: Query) -> bool:
    """Equal in every field, the templates by their bits."""
    return all(
        np.array_equal(one.templates.view(np.uint32), other.templates.view(np.uint32))
        if field.name == "templates"
        else getattr(one, field.name) == getattr(other, field.name)
        for field in fields(Query)
    )


def same_rows(one: Columns, other: Columns) -> bool:
    """Equal in every column, the templates by their bits."""
    return all(
        getattr(one, field.name).dtype == getattr(other, field.name).dtype
        and getattr(one, field.name).shape == getattr(other, field.name).shape
        and getattr(one, field.name).tobytes() == getattr(other, field.name).tobytes()
        for field in fields(Columns)
    )


def through(query: Query) -> Query:
    return read_query(shard_pb2.ShardQuery.FromString(write_query(query).SerializeToString()))


@given(seeds)
@settings(max_examples=200, deadline=None)
def test_queries_arrive_as_they_were_sent(seed: int) -> None:
    query = World(Random(seed)).query()
    assert same_query(through(query), query)


@given(
    wanted=st.builds(
        Filter,
        galleries=codes,
        agencies=codes,
        sexes=codes,
        born=st.none() | spans,
        event=st.none() | spans,
        places=codes,
        strict=st.booleans(),
    ),
    facts=st.builds(
        ProbeFacts,
        sex=st.integers(0, 2),
        born=spans,
        taken=spans,
        age_years=st.none() | st.tuples(st.floats(0, 200), st.floats(allow_nan=False)),
    ),
    values=st.lists(st.floats(width=32, allow_nan=False), min_size=3, max_size=3),
    min_score=st.none() | st.floats(allow_nan=False),
)
@settings(max_examples=200, deadline=None)
def test_the_corners_of_a_query_arrive(
    wanted: Filter, facts: ProbeFacts, values: list[float], min_score: float | None
) -> None:
    query = Query(
        np.array([values, values[::-1]], np.float32),
        k=7,
        filter=wanted,
        facts=facts,
        min_score=min_score,
        evidence=0,
        without_records=frozenset({hex_id("record", 1)}),
        without_photos=frozenset({photo_id(1), photo_id(2)}),
    )
    assert same_query(through(query), query)


@pytest.mark.parametrize(
    "change",
    [
        {"filter": Filter(galleries=frozenset({2**70}))},
        {"k": 2**70},
        {"without_records": frozenset({"x"})},
        {"without_photos": frozenset({hex_id("record", 1)})},
    ],
)
def test_what_cannot_travel_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        write_query(replace(World(Random(1)).query(), **change))  # type: ignore[arg-type]


@given(st.frozensets(st.integers(0, SLOTS - 1), max_size=60), st.booleans())
@settings(max_examples=50, deadline=None)
def test_slots_arrive(some: frozenset[int], among: bool) -> None:
    slots = np.full(SLOTS, not among)
    slots[sorted(some)] = among
    assert np.array_equal(read_slots(write_slots(slots)), slots)
    for slot in (0, 1, 9, SLOTS - 1):  # as shard.proto says
        assert bool(write_slots(slots)[slot // 8] >> slot % 8 & 1) == slots[slot]
    assert read_slots(b"").all()
    with pytest.raises(InvalidInput):
        read_slots(b"\0" * 511)


@given(seeds)
@settings(max_examples=100, deadline=None)
def test_answers_arrive_as_they_were_sent(seed: int) -> None:
    world = World(Random(seed))
    columns = from_rows(world.rows(30), DIMENSION)
    queries = [world.query() for _ in range(3)]
    parts = tuple(reference.partial(query, columns) for query in queries)
    message = shard_pb2.SearchSlotsResponse.FromString(write_found(parts, 12).SerializeToString())
    assert read_found(message, queries, ALL) == (parts, 12)


@given(seeds)
@settings(max_examples=50, deadline=None)
def test_rows_and_pushes_arrive_as_they_were_sent(seed: int) -> None:
    world = World(Random(seed), dimension=Random(seed).choice((1, 8, 33)))
    columns = from_rows(world.rows(world.chance.randrange(20)), world.dimension)
    message = shard_pb2.ShardRows.FromString(write_rows(columns).SerializeToString())
    assert same_rows(read_rows(message), columns)
    record = hex_id("record", 3)
    mine = from_rows([replace(row, record_id=record) for row in columns.face_rows()], world.dimension)
    pushed = Pushed(record, 2**40, mine, (hex_id("face", 1), hex_id("face", 2)))
    sent = shard_pb2.PushedRecord.FromString(write_pushed(pushed).SerializeToString())
    got = read_pushed(sent, world.dimension)
    assert same_rows(got.rows, mine)
    assert replace(got, rows=mine) == pushed
    answer = shard_pb2.GetRowsResponse(rows=write_rows(mine), rev=1)
    assert same_rows(read_rows_answer(answer, record, world.dimension), mine)


def test_a_status_arrives() -> None:
    held = np.arange(SLOTS) % 3 == 0
    status = ShardStatus("a", "5f", 7, held, 10, 4, 2**40, 0.125, "model", 8)
    got = read_status(shard_pb2.GetShardStatusResponse.FromString(write_status(status).SerializeToString()))
    assert np.array_equal(got.held, held)
    assert write_status(got) == write_status(status)
    with pytest.raises(Corrupt):
        read_status(shard_pb2.GetShardStatusResponse())


def _answer() -> tuple[shard_pb2.SearchSlotsResponse, Query]:
    world = World(Random(2))
    query = Query(world.pool()[:2], k=5, evidence=2)
    return write_found([reference.partial(query, from_rows(world.rows(30), DIMENSION))], 3), query


@pytest.mark.parametrize(
    "spoil",
    [
        lambda part: part.plausible.scores.append(0.5),
        lambda part: part.plausible.scores.__setitem__(0, float("nan")),
        lambda part: part.plausible.face_scores.__setitem__(0, float("inf")),
        lambda part: part.plausible.implausible.__setitem__(0, 16),
        lambda part: part.plausible.probes.__setitem__(0, 2),
        lambda part: part.plausible.face_counts.__setitem__(0, 2**32 - 1),
        lambda part: part.plausible.ClearField("photos"),
        lambda part: setattr(part.plausible, "record_ids", part.plausible.record_ids[:-1]),
        lambda part: setattr(part, "rows", -1),
    ],
)
def test_an_answer_that_contradicts_itself_is_corrupt(spoil: object) -> None:
    message, query = _answer()
    spoil(message.parts[0])  # type: ignore[operator]
    with pytest.raises(Corrupt):
        read_found(message, [query], ALL)


def test_an_answer_to_another_question_is_corrupt() -> None:
    message, query = _answer()
    with pytest.raises(Corrupt):
        read_found(message, [query, query], ALL)
    with pytest.raises(Corrupt):
        read_found(message, [replace(query, k=4)], ALL)
    ((part,), _) = read_found(message, [query], ALL)
    slots = ALL.copy()
    words = from_rows(World(Random(2)).rows(30), DIMENSION).record
    slots[slots_of(words)] = False
    assert isinstance(part, Partial)
    assert isinstance(part.plausible[0].evidence[0], Evidence)
    with pytest.raises(Corrupt, match="slots"):
        read_found(message, [query], slots)


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_read_or_refused(data: st.DataObject) -> None:
    message, query = _answer()
    columns = from_rows(World(Random(2)).rows(3), DIMENSION)
    status = ShardStatus("a", "5f", 7, ALL, 10, 4, 5, 0.1, "model", 8)
    pushed = Pushed(hex_id("record", 3), 1, columns.take(slice(0, 0)), (hex_id("face", 1),))
    cases: list[tuple[Any, Callable[[Any], object]]] = [
        (write_query(query), read_query),
        (message, lambda sent: read_found(sent, [query], ALL)),
        (write_rows(columns), read_rows),
        (write_pushed(pushed), lambda sent: read_pushed(sent, DIMENSION)),
        (write_status(status), read_status),
    ]
    valid, read = data.draw(st.sampled_from(cases))
    raw = bytearray(valid.SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    with contextlib.suppress(DecodeError, InvalidInput, Corrupt):
        read(type(valid).FromString(bytes(raw)))


def test_a_push_for_another_model_or_record_is_refused() -> None:
    columns = from_rows(World(Random(2)).rows(3), DIMENSION)
    message = write_pushed(Pushed(hex_id("record", 99), 1, columns, ()))
    with pytest.raises(InvalidInput, match="record"):
        read_pushed(message, DIMENSION)
    with pytest.raises(InvalidInput, match="components"):
        read_pushed(message, DIMENSION + 1)
    with pytest.raises(Corrupt, match="record"):
        read_rows_answer(shard_pb2.GetRowsResponse(rows=write_rows(columns)), hex_id("record", 99), DIMENSION)
