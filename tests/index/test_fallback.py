"""Milvus's answer for some slots, from a gallery that can lie: never believed, and never wrong."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from homeward.errors import InvalidInput
from homeward.types import Query
from index import reference
from index.columns import INTEGER_COLUMNS, Bool, Columns, from_rows, hex_ids
from index.fallback import Exists, search_milvus, search_slots, slot_expression
from index.merge import Partial
from index.placement import SLOTS, slot_of, slots_of
from tests.index.random_rows import DIMENSION, World, hex_id

Hits = dict[str, tuple[str, float]]


class FakeGallery:
    """Rows in memory that answer as Milvus does: by float32 products, filtered and cut off."""

    def __init__(self, columns: Columns) -> None:
        self.columns = columns
        self.limits: list[int] = []
        self.read_all = 0
        self.lie: Callable[[Hits], Hits] = lambda hits: hits

    def passing(self, where: str) -> Columns:
        """The rows that the expression lets through: what Milvus is told is Python too."""
        if not where:
            return self.columns
        told = compile(where, "expression", "eval")
        names = {name: getattr(self.columns, name).tolist() for name in INTEGER_COLUMNS}
        names["record_id"] = hex_ids(self.columns.record)
        rows = [dict(zip(names, values, strict=True)) for values in zip(*names.values(), strict=True)]
        return self.columns.take(np.array([eval(told, {}, row) for row in rows], np.bool_))

    def nearest(self, query: Query, where: str, limit: int) -> list[Hits]:
        self.limits.append(limit)
        columns = self.passing(where)
        faces, records = hex_ids(columns.face), hex_ids(columns.record)
        answers = []
        for probe in query.templates:
            products = columns.template @ probe
            best = np.argsort(-products, kind="stable")[:limit].tolist()
            answers.append(self.lie({faces[row]: (records[row], float(products[row])) for row in best}))
        return answers

    def matching(self, where: str) -> int:
        return len(self.passing(where))

    def of_records(self, record_ids: Sequence[str]) -> Columns:
        wanted = set(record_ids)
        return self.columns.take(np.array([one in wanted for one in hex_ids(self.columns.record)], np.bool_))

    def iterate(self, *, where: str = "") -> Iterator[Columns]:
        self.read_all += 1
        columns = self.passing(where)
        for start in range(0, len(columns), 7):
            yield columns.take(slice(start, start + 7))


def some_slots(world: World, share: float) -> Bool:
    """Slots of that share of the world's records, and chance ones."""
    slots = np.random.default_rng(world.chance.randrange(2**32)).random(SLOTS) < share
    for number in range(world.records):
        slots[slot_of(hex_id("record", number))] = world.chance.random() < share
    return slots


def wanted(query: Query, columns: Columns, slots: Bool | None, exists: set[str] | None) -> Partial:
    keep = np.ones(len(columns), np.bool_) if slots is None else slots[slots_of(columns.record)]
    if exists is not None:
        keep &= np.array([face in exists for face in hex_ids(columns.face)], np.bool_)
    return reference.partial(query, columns.take(keep))


def check(query: Query, part: Partial, true: Partial) -> None:
    """The list that comes of it is the reference's, and so is what facts kept out of it."""
    assert part.plausible == true.plausible
    if len(true.plausible) >= query.k:
        least = true.plausible[query.k - 1].score
        seen = [one for one in true.implausible if one.score > least]
        assert list(part.implausible)[: len(seen)] == seen
    else:
        assert part.implausible == true.implausible
    assert part.rows <= true.rows
    assert part.records <= true.records


@given(st.integers(0, 2**63))
@settings(max_examples=60, deadline=None)
def test_the_part_of_some_slots_is_the_references(seed: int) -> None:
    chance = Random(seed)
    world = World(chance, records=chance.choice((12, 90)), faces=300, templates=chance.choice((3, 30)))
    gallery = FakeGallery(from_rows(world.distinct_rows(300), DIMENSION))
    faces = hex_ids(gallery.columns.face)
    for _ in range(4):
        query = world.query()
        slots = chance.choice((None, some_slots(world, 0.3), some_slots(world, 0.02)))
        alive = None if chance.random() < 0.5 else {face for face in faces if chance.random() < 0.7}
        exists: Exists | None = None if alive is None else (lambda asked, alive=alive: alive & set(asked))
        check(
            query, search_slots(gallery, query, slots, exists), wanted(query, gallery.columns, slots, alive)
        )


def big(seed: int, count: int = 4_000, records: int = 900) -> tuple[World, FakeGallery]:
    world = World(Random(seed), records=records, faces=count, templates=60)
    return world, FakeGallery(from_rows(world.distinct_rows(count), DIMENSION))


def test_more_is_fetched_where_hits_lie_in_other_slots() -> None:
    world, gallery = big(1)
    slots = some_slots(world, 0.3)
    assert slot_expression(slots) == ""
    query = Query(world.pool()[:1], k=2)
    check(query, search_slots(gallery, query, slots), wanted(query, gallery.columns, slots, None))
    assert gallery.limits[0] > 264 / 0.4
    assert not gallery.read_all


def test_more_is_fetched_until_the_list_is_certain_without_faces_that_do_not_exist() -> None:
    """All rows of the best records are orphans of writes that never ended."""
    world, gallery = big(2)
    query = Query(world.pool()[:1], k=3)
    products = gallery.columns.template @ query.templates[0]
    order = np.argsort(-products)
    gone = {hex_ids(gallery.columns.face)[row] for row in order[:1500].tolist()}
    alive = set(hex_ids(gallery.columns.face)) - gone
    part = search_slots(gallery, query, None, lambda faces: alive & set(faces))
    check(query, part, wanted(query, gallery.columns, None, alive))
    assert len(gallery.limits) > 1
    assert not gallery.read_all


def test_a_few_slots_are_filtered_by_milvus() -> None:
    world, gallery = big(3)
    slots = np.zeros(SLOTS, np.bool_)
    slots[[slot_of(hex_id("record", number)) for number in (1, 4, 7)]] = True
    query = Query(world.pool()[:1], k=2)
    check(query, search_slots(gallery, query, slots), wanted(query, gallery.columns, slots, None))
    assert gallery.limits == [264]
    # Too much for one fetch: all rows of these slots are read, and no others.
    query = Query(world.pool()[:1], k=5_000)
    check(query, search_slots(gallery, query, slots), wanted(query, gallery.columns, slots, None))
    assert gallery.read_all == 1


@pytest.mark.parametrize("share", [0.01, 0.5])
@pytest.mark.parametrize(
    "lie",
    [
        lambda hits: dict(list(hits.items())[1:]),
        lambda hits: {},
        lambda hits: {face: (record, product * 0.9) for face, (record, product) in hits.items()},
        lambda hits: {**hits, hex_id("nobody", 1): (hex_id("record", 1), 0.9)},
    ],
    ids=["loses the best row", "finds nothing", "wrong products", "rows that are not there"],
)
def test_lies_cost_time_and_no_candidate(lie: Callable[[Hits], Hits], share: float) -> None:
    world = World(Random(4), records=90, faces=300, templates=30)
    gallery = FakeGallery(from_rows(world.distinct_rows(300), DIMENSION))
    gallery.lie = lie
    slots = np.zeros(SLOTS, np.bool_)
    slots[slot_of(hex_id("record", 1))] = True
    for mask_of in (slots, some_slots(world, share), None):
        for _ in range(5):
            query = world.query()
            check(query, search_slots(gallery, query, mask_of), wanted(query, gallery.columns, mask_of, None))
    assert gallery.read_all


def test_no_slots_and_all_slots() -> None:
    world, gallery = big(5, count=300, records=90)
    query = world.query()
    none = search_slots(gallery, query, np.zeros(SLOTS, np.bool_))
    assert none == Partial((), (), 0, 0)
    assert not gallery.limits
    everything = search_slots(gallery, query, np.ones(SLOTS, np.bool_))
    assert everything == search_slots(gallery, query)
    found = search_milvus(gallery, query, rev=3)
    assert (found.rev, found.method) == (3, "milvus")
    assert found.candidates == reference.search(query, gallery.columns).candidates
    with pytest.raises(InvalidInput):
        search_slots(gallery, Query(world.pool()[:1], k=0), np.zeros(SLOTS, np.bool_))


@given(st.sets(st.integers(0, SLOTS - 1), min_size=1, max_size=40), st.integers(0, 2**32))
@settings(max_examples=100, deadline=None)
def test_a_slot_expression_passes_exactly_its_slots(some: set[int], seed: int) -> None:
    slots = np.zeros(SLOTS, np.bool_)
    slots[sorted(some)] = True
    text = slot_expression(slots)
    runs = sum(slot - 1 not in some for slot in some)
    assert (text == "") == (runs > 32)
    if not text:
        return
    chance = Random(seed)
    near = {slot % SLOTS for one in some for slot in (one - 1, one, one + 1)}
    for record in [
        *(f"{slot:03x}" + digit * 29 for slot in near for digit in "0f"),
        *(f"{chance.getrandbits(128):032x}" for _ in range(50)),
    ]:
        ranges = re.findall(r'record_id >= "(\w+)" and record_id < "(\w+)"', text)
        assert any(low <= record < high for low, high in ranges) == bool(slots[slot_of(record)])
