"""A search recomputed in slices equals the reference over all rows, whatever the rows, the facts and the
changes meanwhile; and a wrong answer is found."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from random import Random
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from catalogue.store import Catalogue
from catalogue.types import Store
from cluster import recompute
from cluster.best import Best
from cluster.compared import CheckedSearch, Differences
from cluster.recompute import Recomputed
from cluster.self_check import check_search
from homeward.clock import SystemClock
from homeward.types import DAY_MIN, Candidate, CandidateList, Change, Evidence, FaceRow, Implausible, Query
from index.columns import Columns, from_rows
from index.gallery import MilvusGallery
from index.reference import search as reference_search
from tests.cluster.fakes import MODEL_ID
from tests.index.random_rows import DIMENSION, World

REV = 10


@dataclass(slots=True)
class Stores:
    """Catalogue and gallery in memory: rows, and what the catalogue says of their records."""

    rows: dict[str, FaceRow]
    revs: dict[str, int] = field(default_factory=dict)  # of records changed since; all others are at REV
    deleted: dict[str, int] = field(default_factory=dict)
    orphans: set[str] = field(default_factory=set)  # face ids that the catalogue does not have
    announced: set[str] = field(default_factory=set)  # face ids
    read: list[weakref.ref[Any]] = field(default_factory=list)  # what `get` gave
    alive_at_once: int = 0
    rows_read: int = 0

    def all_faces(self) -> Iterator[Any]:
        for face in sorted(self.rows):
            if face not in self.orphans and self.rows[face].record_id not in self.deleted:
                yield SimpleNamespace(face_id=face, model_id=MODEL_ID)

    def get(self, faces: Sequence[str]) -> Columns:
        columns = from_rows([self.rows[face] for face in faces if face in self.rows], DIMENSION)
        self.rows_read += len(columns)
        self.read.append(weakref.ref(columns.template))
        self.alive_at_once = max(self.alive_at_once, sum(one() is not None for one in self.read))
        return columns

    def get_many(self, records: Sequence[str]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        wanted = set(records)
        for row in self.rows.values():
            record = row.record_id
            if record in wanted and row.face_id not in self.orphans and record not in self.deleted:
                photo = found.setdefault(
                    record,
                    SimpleNamespace(
                        record_id=record,
                        updated_rev=self.revs.get(record, REV),
                        photos=[SimpleNamespace(faces=[])],
                    ),
                ).photos[0]
                photo.faces.append(SimpleNamespace(face_id=row.face_id, model_id=MODEL_ID))
        return found

    def changes_since(self, rev: int, limit: int) -> list[Change]:
        changes = [Change(at, one, False, datetime.now(UTC)) for one, at in self.revs.items()]
        changes += [Change(at, one, True, datetime.now(UTC)) for one, at in self.deleted.items()]
        return sorted((one for one in changes if one.rev > rev), key=lambda one: one.rev)[:limit]

    def intended(self, store: Store) -> frozenset[tuple[str, str]]:
        assert store is Store.GALLERY
        return frozenset(("", face) for face in self.announced)

    def reference(self, query: Query) -> CandidateList:
        """What an index that holds these rows at REV answers."""
        gone = self.orphans | {row.face_id for row in self.rows.values() if row.record_id in self.deleted}
        rows = [row for row in self.rows.values() if row.face_id not in gone]
        return reference_search(query, from_rows(rows, DIMENSION), rev=REV)

    def check(self, query: Query, served: CandidateList, slice_rows: int = 7) -> CheckedSearch:
        return check_search(
            cast("Catalogue", self),
            cast("MilvusGallery", self),
            MODEL_ID,
            [query],
            [served],
            clock=SystemClock(),
            slice_rows=slice_rows,
        )


def stores(world: World, count: int) -> Stores:
    return Stores({row.face_id: row for row in world.distinct_rows(count)})


@pytest.mark.parametrize("seed", range(16))
def test_the_reference_is_met_in_slices_of_any_size(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = Random(seed)
    monkeypatch.setattr(recompute, "MARGIN", chance.choice((0, 1, 5)))
    monkeypatch.setattr(recompute, "AT_ONCE", chance.choice((1, 2, 100)))
    world = World(chance, records=chance.choice((4, 12, 60)))
    held = stores(world, chance.choice((1, 30, 120)))
    held.orphans = {face for face in held.rows if chance.random() < chance.choice((0.0, 0.3))}
    for _ in range(10):
        query = world.query()
        served = held.reference(query)
        checked = held.check(query, served, chance.choice((1, 3, 16, 1000)))
        assert checked.agrees, (query, checked)
        assert (checked.recall, checked.score_error, checked.left_out) == (1.0, 0.0, 0)
        assert checked.rows_read == len(held.rows) - len(held.orphans)


@pytest.mark.parametrize("seed", range(16))
def test_what_changed_since_is_on_neither_side(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = Random(1000 + seed)
    monkeypatch.setattr(recompute, "MARGIN", chance.choice((0, 1, 5)))
    monkeypatch.setattr(recompute, "AT_ONCE", chance.choice((1, 2, 100)))
    world = World(chance, records=30)
    old = stores(world, 90)
    records = sorted({row.record_id for row in old.rows.values()})
    new = Stores(dict(old.rows))
    for number, record in enumerate(chance.sample(records, 6)):
        mine = [row for row in old.rows.values() if row.record_id == record]
        what = chance.choice(("deleted", "columns", "rows", "announced"))
        if what == "deleted":
            new.deleted[record] = REV + 1 + number
        elif what == "columns":
            for row in mine:
                new.rows[row.face_id] = replace(row, sex=chance.randrange(3), taken_to=row.taken_from)
            new.revs[record] = REV + 1 + number
        elif what == "rows":
            for row in mine[1:]:
                del new.rows[row.face_id]
            new.rows[mine[0].face_id] = replace(mine[0], template=world.pool()[chance.randrange(10)])
            new.revs[record] = REV + 1 + number
        else:  # written to Milvus, not committed yet
            new.rows[mine[0].face_id] = replace(mine[0], sex=chance.randrange(3))
            new.announced |= {row.face_id for row in mine}
    left_out = 0
    for _ in range(10):
        query = world.query()
        checked = new.check(query, old.reference(query), chance.choice((1, 16, 1000)))
        assert checked.agrees, (query, checked)
        assert (checked.recall, checked.score_error) == (1.0, 0.0)
        left_out += checked.left_out
    assert left_out


@pytest.mark.parametrize("what", ["lost", "template", "facts", "extra"])
def test_any_answer_but_the_right_one_is_found(what: str) -> None:
    """An index that lacks a row, has one too many, or one that is another's."""
    found = 0
    for seed in range(8):
        chance = Random(2000 + seed)
        world = World(chance, records=20)
        true = stores(world, 60)
        wrong = Stores(dict(true.rows))
        damaged = chance.choice(list(true.rows.values()))
        if what == "lost":
            del wrong.rows[damaged.face_id]
        elif what == "template":
            wrong.rows[damaged.face_id] = replace(damaged, template=-damaged.template)
        elif what == "facts":
            wrong.rows[damaged.face_id] = replace(damaged, sex=(damaged.sex + 1) % 3, taken_to=DAY_MIN)
        else:
            true.orphans.add(damaged.face_id)
        for _ in range(20):
            query = world.query()
            served, right = wrong.reference(query), true.reference(query)
            same = (served.candidates, served.excluded) == (right.candidates, right.excluded)
            checked = true.check(query, served)
            assert checked.agrees == same
            assert same or checked.excluded_differ or checked.differing
            if not same and not checked.excluded_differ:
                assert {damaged.face_id, damaged.record_id} & set(checked.differing)
                found += 1
    assert found


def test_a_slice_is_let_go_before_the_next_is_read() -> None:
    world = World(Random(5), records=200)
    held = stores(world, 600)
    query = replace(world.query(), k=3)
    assert held.check(query, held.reference(query), slice_rows=10).agrees
    assert len(held.read) >= 60
    assert held.alive_at_once <= 2  # a slice, and the records that are judged


def test_most_rows_are_scored_and_never_looked_at_again() -> None:
    world = World(Random(6), records=900, templates=400)
    held = stores(world, 1800)
    query = Query(world.pool()[:2], k=2)
    assert held.check(query, held.reference(query), slice_rows=50).agrees
    assert held.rows_read < 1.5 * len(held.rows)


def test_the_best_are_kept_and_it_is_known_what_is_not() -> None:
    best = Best(2)
    best.add(C)
    assert best.is_whole
    best.add(A)
    assert (best.is_whole, best.floor) == (False, C.score)
    best.add(D)
    best.add(B)
    assert best.ranked() == [A, B]
    best.drop({"a"})
    best.add(C)  # as good as unknown: others of its rank may have given way
    assert best.ranked() == [B]
    assert best.floor == B.score
    best.add(candidate("a", B.score))
    assert [one.record_id for one in best.ranked()] == ["a", "b"]


def test_a_record_that_was_being_changed_while_it_was_read_is_read_again() -> None:
    """Its rows had other facts for a moment, which no notice and no change tells of afterwards."""
    world = World(Random(7), records=20)
    held = stores(world, 60)
    query = Query(world.pool()[:1], k=5)
    served = held.reference(query)
    first = served.candidates[0].record_id
    right = dict(held.rows)
    for row in right.values():
        if row.record_id == first:
            held.rows[row.face_id] = replace(row, template=-row.template)
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        held.rows.update(right)

    checked = check_search(
        cast("Catalogue", held),
        cast("MilvusGallery", held),
        MODEL_ID,
        [query],
        [served],
        clock=SystemClock(),
        slice_rows=9,
        wait=wait,
    )
    assert len(waits) == 1
    assert checked.agrees
    assert not checked.left_out


def test_what_was_announced_before_the_first_slice_is_left_out() -> None:
    """An update that is in the answer, and whose writer rewrites the rows only after they were read."""
    world = World(Random(7), records=20)
    held = stores(world, 60)
    query = Query(world.pool()[:1], k=5)
    served = held.reference(query)
    first = served.candidates[0].record_id
    for row in list(held.rows.values()):
        if row.record_id == first:
            held.announced.add(row.face_id)
            held.rows[row.face_id] = replace(row, template=-row.template)
    checked = check_search(
        cast("Catalogue", held),
        cast("MilvusGallery", held),
        MODEL_ID,
        [query],
        [served],
        clock=SystemClock(),
        slice_rows=100,
        pause=lambda _: held.announced.clear(),
    )
    assert checked.agrees
    assert checked.left_out == 1


def candidate(record: str, score: float, *faces: str) -> Candidate:
    evidence = tuple(Evidence(face, "0" * 64, 0, score, 0) for face in faces)
    return Candidate(record, score, evidence)


def differences(
    served: Sequence[Candidate],
    true: Sequence[Candidate],
    *,
    k: int = 3,
    whole: bool = True,
    left_out: frozenset[str] = frozenset(),
    excluded: dict[Implausible, int] | None = None,
) -> Differences:
    found = Differences()
    query = Query(np.ones((1, 1), np.float32), k)
    answer = CandidateList(tuple(served), {}, 0, 0, REV, "exact")
    found.add(query, answer, Recomputed(tuple(true), whole, excluded, frozenset({"hidden"})), left_out)
    return found


A, B, C, D = (
    candidate("a", 0.9, "a1"),
    candidate("b", 0.8, "b1"),
    candidate("c", 0.7, "c1"),
    candidate("d", 0.6, "d1"),
)


def test_equal_lists_do_not_differ() -> None:
    found = differences([A, B, C], [A, B, C], excluded={})
    assert not found.any
    assert found.recall == 1.0


def test_of_a_full_list_the_rest_is_compared_from_the_first_on() -> None:
    assert not differences([A, B, C], [A, C, D], left_out=frozenset("b")).any
    assert differences([A, B, C], [A, D, C], left_out=frozenset("b")).records == {"c", "d"}


def test_a_list_that_had_room_holds_all() -> None:
    found = differences([A, B], [A, B, C])
    assert found.records == {"c"}
    assert found.recall == pytest.approx(2 / 3)
    assert not differences([A], [A]).any


def test_what_is_not_known_is_not_compared() -> None:
    assert not differences([A, B, C], [A, B], whole=False).any
    assert differences([A, B, C], [B, C], whole=False).records == {"a", "c"}


def test_scores_order_and_evidence_count_to_the_last_bit() -> None:
    near = candidate("b", float(np.nextafter(0.8, 1.0)), "b1")
    found = differences([A, near, C], [A, B, C])
    assert (found.records, found.faces) == ({"b"}, {"b1"})
    assert 0 < found.score_error < 1e-15
    assert found.recall == 1.0
    assert differences([B, A, C], [A, B, C]).records == {"a", "b"}
    assert differences([A, B, B], [A, B, C]).records == {"b", "c"}
    other = replace(A, evidence=candidate("a", 0.9, "a2").evidence)
    assert differences([other, B, C], [A, B, C]).faces == {"a1", "a2"}
    two = candidate("a", 0.9, "a1", "a2")
    swapped = replace(two, evidence=two.evidence[::-1])
    assert differences([swapped, B, C], [two, B, C]).faces == {"a1", "a2"}


def test_numbers_of_excluded_records_are_compared_where_nothing_changed() -> None:
    found = differences([A, B, C], [A, B, C], excluded={Implausible.SEX_DIFFERS: 1})
    assert found.excluded_differ
    assert found.records == {"hidden"}
