"""The shard against the reference over the same rows."""

from __future__ import annotations

import threading
from contextlib import closing
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from homeward.errors import InvalidInput, TemplateInvalid
from homeward.types import FaceRow, Filter, ProbeFacts, Query
from index import reference, row_store, scan
from index.columns import from_rows
from index.merge import merge
from index.placement import SLOTS, slots_of
from index.shard import Shard
from index.synthetic import unit_rows
from tests.index.random_rows import World, as_values, crowded, hex_id
from tests.index.worse_shown import LOST, check_worse_shown


class Model:
    """What the index should hold: rows by face id."""

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        self.rows: dict[str, FaceRow] = {}
        self.rev = 0

    def change(self, index: Shard, world: World) -> None:
        """Do the same random change to both."""
        chance = world.chance
        self.rev += 1
        kind = chance.randrange(6)
        record = hex_id("record", chance.randrange(world.records))
        if kind <= 1:
            rows = world.rows(chance.randrange(12))
            index.upsert(rows, rev=self.rev)
            self._put(rows)
        elif kind == 2:
            faces = self._some_faces(world)
            there = sum(face in self.rows for _, face in set(faces))
            assert index.apply(delete_faces=faces, rev=self.rev) == there
            for _, face in faces:
                self.rows.pop(face, None)
        elif kind == 3:
            assert index.delete_record(record, rev=self.rev) == self._drop(record)
        elif kind == 4:
            number = chance.randrange(world.records)
            record = hex_id("record", number)
            rows = [
                replace(row, record_id=record, face_id=world.face_id(number, at))
                for at, row in enumerate(world.rows(chance.randrange(4)))
            ]
            index.replace_record(record, rows, rev=self.rev)
            self._drop(record)
            self._put(rows)
        else:
            index.advance(self.rev)
            index.compact(chance.choice((0.0, 0.3)), chance.choice((None, 1)))

    def _some_faces(self, world: World) -> list[tuple[str, str]]:
        """Records and faces, most of them there."""
        chance = world.chance
        there = [(row.record_id, face) for face, row in self.rows.items()]
        made = world.rows(3)
        pairs = there + [(row.record_id, row.face_id) for row in made]
        return [chance.choice(pairs) for _ in range(chance.randrange(15))]

    def check(self, index: Shard, queries: list[Query]) -> None:
        """All that can be asked of the index is what the rows say."""
        columns = from_rows(list(self.rows.values()), self.dimension)
        wanted = [
            replace(reference.search(query, columns, rev=self.rev), method="exact") for query in queries
        ]
        assert index.search_many(queries) == wanted
        assert index.search(queries[0]) == wanted[0]
        assert (index.rows, index.rev) == (len(self.rows), self.rev)
        assert index.records == len({row.record_id for row in self.rows.values()})

    def check_record(self, index: Shard, record: str) -> None:
        """The rows of a record come back whole, by face id."""
        wanted = sorted((row for row in self.rows.values() if row.record_id == record), key=_face)
        found = list(index.record_rows(record).face_rows())
        assert list(map(as_values, found)) == list(map(as_values, wanted))

    def _put(self, rows: list[FaceRow]) -> None:
        for row in rows:
            self.rows[row.face_id] = row

    def _drop(self, record: str) -> int:
        faces = [face for face, row in self.rows.items() if row.record_id == record]
        for face in faces:
            del self.rows[face]
        return len(faces)


def _face(row: FaceRow) -> str:
    return row.face_id


def _differ(seed: int, steps: int) -> int:
    """One random history, checked at every step; returns the number of queries compared."""
    with pytest.MonkeyPatch.context() as patch:
        chance = Random(seed)
        patch.setattr(scan, "_ROOM", chance.choice((4, 16, 512)))  # few rows fill little room: cuts rise
        return _compared(chance, steps)


def _compared(chance: Random, steps: int) -> int:
    world = World(
        chance,
        dimension=chance.choice((1, 2, 8, 33)),
        records=chance.choice((1, 3, 12, 60)),
        faces=chance.choice((5, 40, 200)),
        templates=chance.choice((1, 3, 12, 40)),
    )
    model = Model(world.dimension)
    index = Shard(world.dimension, block_rows=chance.choice((1, 2, 5, 16, 64)))
    compared = 0
    start = world.rows(chance.choice((0, 5, 60, 300)))
    index.upsert(start)
    model._put(start)
    for _ in range(steps):
        queries = [world.query() for _ in range(4)]
        model.check(index, queries)
        model.check_record(index, hex_id("record", chance.randrange(world.records)))
        compared += len(queries)
        model.change(index, world)
    return compared


@given(st.integers(0, 2**63))
@settings(max_examples=40, deadline=None)
def test_every_answer_equals_the_reference_after_every_change(seed: int) -> None:
    _differ(seed, steps=6)


@pytest.mark.prove
def test_exactness_over_ten_thousand_random_searches() -> None:
    compared, seed = 0, 20_000
    while compared < 12_000:
        compared += _differ(seed, steps=12)
        seed += 1


def test_many_rows_of_real_size_equal_the_reference() -> None:
    generator = np.random.default_rng(5)
    mean = generator.standard_normal(128) * 0.5
    templates = unit_rows(mean + generator.standard_normal((20_000, 128)) * 0.3)
    templates[5_000:6_000] = templates[:1_000]  # whole runs of exact ties
    world = World(Random(5), records=4_000, dimension=128)
    blank = World(Random(6), records=4_000, templates=1).row(0)
    rows = [
        replace(
            blank,
            face_id=hex_id("face", number),
            record_id=hex_id("record", world.chance.randrange(4_000)),
            template=template,
        )
        for number, template in enumerate(templates)
    ]
    index = Shard(128, block_rows=3_000)
    index.upsert(rows)
    index.apply(delete_faces=[(row.record_id, row.face_id) for row in rows[1::3]])
    columns = from_rows([row for number, row in enumerate(rows) if number % 3 != 1], 128)
    queries = [Query(templates[start : start + width], k) for start, width, k in _SHAPES]
    wanted = [replace(reference.search(query, columns), method="exact") for query in queries]
    assert index.search_many(queries) == wanted


_SHAPES = ((0, 1, 1), (1, 1, 10), (999, 1, 100), (5_500, 3, 10), (7_000, 1, 5_000), (8_000, 300, 5))


@pytest.mark.parametrize("lost", LOST)
def test_a_row_that_codes_show_as_worse_than_it_is_is_found(
    lost: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan, "_ROOM", 4)
    with closing(Shard(64, threads=1)) as index:
        check_worse_shown(index, lost)


def test_one_record_with_every_best_row_does_not_hide_the_others() -> None:
    template = World(Random(1)).pool()
    rows = crowded(500)
    index = Shard(8, block_rows=64)
    index.upsert(rows)
    query = Query(template[:1], k=4)
    wanted = reference.search(query, from_rows(rows, 8))
    assert index.search(query).candidates == wanted.candidates
    assert len(wanted.candidates) == 4


def test_readers_see_each_change_whole_or_not_at_all() -> None:
    """A writer moves a record from one set of rows to another; no reader may see a mixture."""
    pool = World(Random(2), templates=12).pool()
    blank = World(Random(2)).row(0)
    record, other = hex_id("record", 1), hex_id("record", 2)

    def state(number: int) -> list[FaceRow]:
        return [
            replace(
                blank,
                face_id=hex_id("face", number % 2 * 100 + one),
                record_id=record,
                ordinal=number,
                template=pool[one],
            )
            for one in range(9)
        ]

    index = Shard(8, block_rows=16)
    index.upsert([replace(blank, face_id=hex_id("other", 1), record_id=other)])
    index.replace_record(record, state(0), rev=0)
    done = threading.Event()
    wrong: list[object] = []
    seen: set[int] = set()

    def read() -> None:
        last = -1
        while not done.is_set():
            found = index.search(Query(pool[:2], k=2, evidence=100))
            one = next(each for each in found.candidates if each.record_id == record)
            states = {each.ordinal for each in one.evidence}
            if (
                states != {found.rev}
                or len(one.evidence) != 9
                or found.rows_searched != 10
                or found.rev < last
            ):
                wrong.append((found.rev, states, len(one.evidence)))
            last = found.rev
            seen.add(last)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for number in range(1, 600):
        index.replace_record(record, state(number), rev=number)
    done.set()
    for reader in readers:
        reader.join()
    assert not wrong
    assert len(seen) > 3


def test_a_refused_upsert_changes_nothing() -> None:
    world = World(Random(3))
    rows = world.distinct_rows(10)
    index = Shard(8, rev=7)
    index.upsert(rows)
    bad = replace(rows[3], template=rows[3].template * np.float32(1.1))
    with pytest.raises(TemplateInvalid):
        index.upsert([world.row(20), bad], rev=9)
    with pytest.raises(InvalidInput):
        index.upsert([replace(rows[0], sex=2**40)], rev=9)
    assert (index.rows, index.rev) == (10, 7)


def test_a_rev_never_runs_backwards() -> None:
    index = Shard(8, rev=7)
    index.advance(5)
    assert index.rev == 7
    index.advance(9)
    assert index.search(World(Random(4)).query()).rev == 9


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"k": 0}, "k"),
        ({"evidence": -1}, "evidence"),
        ({"min_score": float("nan")}, "min_score"),
        ({"templates": np.empty((0, 8), np.float32)}, "templates"),
        ({"without_records": frozenset({"x"})}, "without_records"),
    ],
)
def test_a_query_that_makes_no_sense_is_refused(change: dict[str, object], field: str) -> None:
    query = replace(Query(World(Random(5)).pool()[:1], k=1), **change)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput) as refused:
        Shard(8).search(query)
    assert refused.value.details["field"] == field


def test_what_a_deleted_row_said_is_overwritten_when_the_last_search_has_left() -> None:
    world = World(Random(6), templates=12)
    rows = world.distinct_rows(40)
    index = Shard(8, block_rows=64)
    index.upsert(rows)
    gone = rows[0].record_id
    dead = [row for row in rows if row.record_id == gone]
    with index._readers.reading():  # a search that began before
        assert index.delete_record(gone) == len(dead)
        index.tidy()
        (block,) = index._view.blocks
        there = {row.tobytes() for row in block.columns.photo}
        assert {bytes.fromhex(row.photo_sha256) for row in dead} <= {
            raw.view(np.uint64).byteswap().tobytes() for raw in map(_words, there)
        }
    index.tidy()
    (block,) = index._view.blocks
    lost = block.flags & 1 == 0
    assert lost.sum() == len(dead)
    assert not block.columns.template[lost].any()
    assert not block.columns.photo[lost].any()
    assert index.search(Query(world.pool()[:1], k=100)).rows_searched == len(rows) - len(dead)


def test_compacted_blocks_hold_the_live_rows_alone() -> None:
    world = World(Random(7), templates=40)
    rows = world.distinct_rows(200)
    index = Shard(8, block_rows=32)
    for row in rows:  # one by one: a record's rows are moved together again and again
        index.upsert([row])
    query = Query(world.pool()[:2], k=50)
    before = index.search(query)
    used = sum(len(block) for block in index._view.blocks)
    assert used > len(rows) == index.rows
    assert index.compact(0.0, 1) == 1
    assert index.compact(0.0) > 0
    assert index.compact(0.0) == 0
    assert sum(len(block) for block in index._view.blocks) == len(rows) == index.rows
    assert index.search(query) == before
    index.delete_record(rows[0].record_id)
    assert index.records == before.records_searched - 1


def _words(raw: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.frombuffer(raw, np.uint8)


def test_a_record_of_too_many_faces_is_refused_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_store, "RECORD_ROWS_MAX", 5)
    world = World(Random(7), records=1)
    index = Shard(8)
    index.upsert(world.distinct_rows(3))
    more = [replace(row, face_id=hex_id("more", at)) for at, row in enumerate(world.distinct_rows(3))]
    with pytest.raises(InvalidInput, match="at most 5"):
        index.upsert(more)
    assert index.rows == 3
    index.upsert(more[:2])
    assert index.rows == 5


def test_a_record_as_large_as_can_be_is_repeated_and_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_store, "RECORD_ROWS_MAX", 5)
    index = Shard(8)
    rows = World(Random(7), records=1).distinct_rows(5)
    record = rows[0].record_id
    others = [replace(row, face_id=hex_id("more", at)) for at, row in enumerate(rows)]
    index.upsert(rows)
    index.upsert(rows)
    index.replace_record(record, others)
    gone = [(record, row.face_id) for row in others[:2]]
    index.apply(delete_faces=gone, upserts=from_rows(rows[:2], 8))
    assert set(index.face_ids()) == {row.face_id for row in (*others[2:], *rows[:2])}
    with pytest.raises(InvalidInput, match="a record of 6 faces"):
        index.apply(delete_faces=gone, upserts=from_rows(rows[2:3], 8))


@pytest.mark.parametrize("plausible", [None, 0, 700, 2_999])
def test_a_record_of_thousands_of_faces_that_facts_exclude_is_judged_once(plausible: int | None) -> None:
    """As the reference, while its cuts rise and its room overflows; in time that does not grow with the
    square of the faces."""
    chance = np.random.default_rng(4)
    templates = unit_rows(np.eye(16)[0] + chance.standard_normal((3_040, 16)) * 1e-3)
    blank = replace(World(Random(6), dimension=16, templates=1).row(0), sex=1)
    rows = [
        replace(
            blank,
            face_id=hex_id("face", number),
            record_id=hex_id("record", max(0, number - 2_999)),
            sex=2 if number == plausible else 1 + number % 2 if number > 3_000 else 1,
            template=template,
        )
        for number, template in enumerate(templates)
    ]
    with closing(Shard(16)) as index:
        index.upsert(rows)
        columns = from_rows(rows, 16)
        for include in (False, True):
            query = Query(templates[:2], 3, facts=ProbeFacts(sex=2), include_implausible=include)
            assert index.search(query) == replace(reference.search(query, columns), method="exact")


@given(st.integers(0, 2**63))
@settings(max_examples=20, deadline=None)
def test_slots_of_several_shards_together_answer_as_the_whole(seed: int) -> None:
    chance = Random(seed)
    world = World(chance, records=200, faces=50)
    rows = world.distinct_rows(120)
    index = Shard(8, block_rows=16)
    owners = np.random.default_rng(seed).integers(0, 3, SLOTS)
    if chance.random() < 0.5:
        index.set_cohorts(owners)
    index.upsert(rows)
    queries = [world.query() for _ in range(4)]
    found = [index.parts(queries, owners == owner)[0] for owner in range(3)]
    columns = from_rows(rows, 8)
    for at, query in enumerate(queries):
        merged = merge([parts[at] for parts in found], query, rev=0, method="exact")
        assert merged == replace(reference.search(query, columns), method="exact")
    gone = owners == 1
    assert index.drop_slots(gone) == gone[slots_of(columns.record)].sum()
    left = columns.take(~gone[slots_of(columns.record)])
    for query in queries:
        assert index.search(query) == replace(reference.search(query, left), method="exact")


@pytest.mark.parametrize("strict", [False, True])
def test_codes_and_days_that_no_row_can_have_are_as_in_the_reference(strict: bool) -> None:
    world = World(Random(8))
    rows = world.distinct_rows(60)
    index = Shard(8)
    index.upsert(rows)
    far = 2**40
    for wanted in (
        Filter(places=frozenset({far}), strict=strict),
        Filter(places=frozenset({far, 1}), strict=strict),
        Filter(agencies=frozenset({far, -far})),
        Filter(sexes=frozenset({far}), strict=strict),
        Filter(born=(-far, far), strict=strict),
        Filter(born=(far, 2 * far), strict=strict),
        Filter(event=(-2 * far, -far), strict=strict),
    ):
        query = Query(world.pool()[:1], 5, filter=wanted)
        assert index.search(query) == replace(reference.search(query, from_rows(rows, 8)), method="exact"), (
            wanted
        )
