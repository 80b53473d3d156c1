"""Random histories of an index beside the reference: every answer must be the reference's, to the bit.

A history is a few shards that follow random changes (upserts, replacements, deleted faces and records,
slots that move, double up or are lost) and are asked random batches of queries after each of them. Rows,
queries and facts come from few values, so that ties, duplicates, empty shards, lists longer than the
gallery and thresholds hit to the last bit are common. The seed is all that a history depends on.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import numpy as np

from benchmarks.search_differences import Difference, Differs, smallest_case, wanted_answer
from benchmarks.search_worlds import large_world, small_world
from homeward.types import CandidateList, FaceRow, Query
from index.columns import Bool, concatenate, from_rows
from index.merge import merge
from index.placement import SLOTS, slot_of
from index.row_store import BLOCK_ROWS
from index.shard import Shard
from tests.index.random_rows import hex_id

BATCHES = (1, 2, 7, 64)
_CHANCES = (3, 3, 3, 1)  # of each batch size: few of the cases share a state of the index
_LARGE_EVERY = 23  # so often a history has thousands of rows of real size
_STEPS = 7


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one history gave."""

    cases: int  # queries compared
    changes: int
    differences: list[Difference]


class History:
    """The shards, the rows they must hold, and which shard is asked for which slot."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.chance = chance = Random(seed)
        self.large = seed % _LARGE_EVERY == 0
        self.world = large_world(chance) if self.large else small_world(chance)
        self.rows: dict[str, FaceRow] = {}
        self.rev = 0
        self.changes = 0

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Start the shards; they end with the context."""
        chance = self.chance
        count = chance.choice((1, 1, 2, 3, 4))
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="homeward-cases-")))
            self.shards = [
                stack.enter_context(
                    closing(
                        Shard(
                            self.world.dimension,
                            folder=chance.choice((None, folder)),
                            block_rows=self._block_rows(),
                            threads=chance.choice((1, 2, 3)),
                        )
                    )
                )
                for _ in range(count)
            ]
            spread = np.random.default_rng(chance.randrange(2**32))
            self.asked = spread.integers(0, count, SLOTS)  # the shard that is asked for a slot
            self.held = [self.asked == number for number in range(count)]  # (SLOTS,) of each shard
            yield

    def run(self) -> Outcome:
        """All steps; stops at the first that shows a difference."""
        cases = 0
        with self.opened():
            try:
                self._put(self._some_rows())
                for step in range(2 if self.large else _STEPS):
                    batch = 2 if self.large else self.chance.choices(BATCHES, _CHANCES)[0]
                    queries = [self.world.query() for _ in range(batch)]
                    wrong = self._compare(queries, step)
                    cases += batch
                    if wrong:
                        return Outcome(cases, self.changes, wrong)
                    self._change()
            except Differs as differs:
                return Outcome(cases, self.changes, [self._difference(self.changes, 0, "none", differs)])
        return Outcome(cases, self.changes, [])

    def _block_rows(self) -> int:
        small = (1, 2, 5, 16, 64, BLOCK_ROWS)
        return self.chance.choice((700, 4096, 5000, BLOCK_ROWS) if self.large else small)

    def _some_rows(self) -> list[FaceRow]:
        count = self.chance.choice((3_000, 6_000) if self.large else (0, 1, 5, 60, 300))
        return self.world.distinct_rows(count) if self.large else self.world.rows(count)

    def _compare(self, queries: Sequence[Query], step: int) -> list[Difference]:
        rows = list(self.rows.values())
        columns = from_rows(rows, self.world.dimension)
        wrong: list[Difference] = []
        for query, found in zip(queries, self._ask(queries), strict=True):
            wanted = wanted_answer(query, columns, self.rev)
            if found != wanted:
                # The first of a batch is made small: that takes many searches.
                smallest = "" if wrong else smallest_case(query, rows, self.world.dimension)
                differs = Differs(repr(found), repr(wanted), smallest)
                wrong.append(self._difference(step, len(queries), repr(query), differs))
        return wrong

    def _difference(self, step: int, batch: int, query: str, differs: Differs) -> Difference:
        found, wanted, smallest = differs.args
        return Difference(
            seed=self.seed,
            step=step,
            batch=batch,
            shards=len(self.shards),
            rows=len(self.rows),
            query=query,
            found=found,
            wanted=wanted,
            smallest=smallest,
        )

    def _ask(self, queries: Sequence[Query]) -> list[CandidateList]:
        only = self.held[0].all() and len(self.shards) == 1
        if only and self.chance.random() < 0.7:
            return self.shards[0].search_many(queries)
        answers = [shard.parts(queries, self.asked == number) for number, shard in enumerate(self.shards)]
        return [
            merge(
                [parts[at] for parts, _ in answers], query, rev=min(rev for _, rev in answers), method="exact"
            )
            for at, query in enumerate(queries)
        ]

    def _change(self) -> None:
        """One random change of everything that may change."""
        chance, world = self.chance, self.world
        self.rev += 1
        self.changes += 1
        kinds: tuple[Callable[[], None], ...] = (
            self._upsert, self._upsert, self._delete_faces, self._delete_record, self._replace,
            self._move_slots, self._move_slots, self._lose_slots, self._tidy,
        )  # fmt: skip
        chance.choice(kinds)()
        for shard in self.shards:
            shard.advance(self.rev)
        if not self.large and chance.random() < 0.1:
            self._put(world.rows(200))

    def _upsert(self) -> None:
        count = self.chance.randrange(700 if self.large else 12)
        self._put(self.world.rows(count))

    def _delete_faces(self) -> None:
        chance = self.chance
        there = [(row.record_id, row.face_id) for row in self.rows.values()]
        there += [(row.record_id, row.face_id) for row in self.world.rows(3)]
        gone = [chance.choice(there) for _ in range(chance.randrange(len(there) if self.large else 15))]
        for shard, holds in zip(self.shards, self.held, strict=True):
            mine = [pair for pair in gone if holds[slot_of(pair[0])]]
            there_now = len({face for _, face in mine if face in self.rows})
            _equal(shard.apply(delete_faces=mine, rev=self.rev), there_now, "rows deleted by face")
        for _, face in gone:
            self.rows.pop(face, None)

    def _delete_record(self) -> None:
        record = self._some_record()
        faces = self._faces_of(record)
        for shard, holds in zip(self.shards, self.held, strict=True):
            wanted = len(faces) if holds[slot_of(record)] else 0
            _equal(shard.delete_record(record, rev=self.rev), wanted, "rows deleted by record")
        for face in faces:
            del self.rows[face]

    def _replace(self) -> None:
        number = self.chance.randrange(self.world.records)
        record = hex_id("record", number)
        rows = [
            replace(row, record_id=record, face_id=self.world.face_id(number, at))
            for at, row in enumerate(self.world.rows(self.chance.randrange(4)))
        ]
        for shard, holds in zip(self.shards, self.held, strict=True):
            if holds[slot_of(record)]:
                shard.replace_record(record, rows, rev=self.rev)
        for face in self._faces_of(record):
            del self.rows[face]
        self.rows.update({row.face_id: row for row in rows})

    def _move_slots(self) -> None:
        """Copy slots from one shard to another, ask that one, and perhaps let the first one's go."""
        chance = self.chance
        source, target = chance.randrange(len(self.shards)), chance.randrange(len(self.shards))
        moving = self.held[source] & ~self.held[target] & self._some_slots()
        if source == target or not moving.any():
            return
        pages = list(self.shards[source].pages(moving))
        self.shards[target].apply(upserts=concatenate(pages, self.world.dimension))
        self.held[target] = self.held[target] | moving
        self.asked[moving] = target
        if chance.random() < 0.6:
            self._drop(source, moving)

    def _lose_slots(self) -> None:
        """Slots that nobody holds any more: their rows are gone, until they are written again."""
        gone = self._some_slots() & self._some_slots()
        for number in range(len(self.shards)):
            self._drop(number, gone & self.held[number], still_held=True)
        self.rows = {face: row for face, row in self.rows.items() if not gone[slot_of(row.record_id)]}

    def _drop(self, number: int, gone: Bool, *, still_held: bool = False) -> None:
        wanted = sum(bool(gone[slot_of(row.record_id)]) for row in self.rows.values())
        _equal(self.shards[number].drop_slots(gone), wanted, "rows dropped with their slots")
        if not still_held:
            self.held[number] = self.held[number] & ~gone

    def _tidy(self) -> None:
        cohorts = np.random.default_rng(self.chance.randrange(2**32)).integers(0, 3, SLOTS)
        for shard in self.shards:
            shard.tidy()
            shard.compact(self.chance.choice((0.0, 0.25)), self.chance.choice((None, 1)))
            shard.set_cohorts(cohorts)

    def _put(self, rows: list[FaceRow]) -> None:
        columns = from_rows(rows, self.world.dimension)
        slots = np.array([slot_of(row.record_id) for row in rows], np.int64)
        for shard, holds in zip(self.shards, self.held, strict=True):
            shard.apply(upserts=columns.take(holds[slots]), rev=self.rev)
        self.rows.update({row.face_id: row for row in rows})
        for number, shard in enumerate(self.shards):
            mine = self.held[number]
            _equal(shard.rows, sum(bool(mine[slot_of(r.record_id)]) for r in self.rows.values()), "rows")

    def _some_record(self) -> str:
        return hex_id("record", self.chance.randrange(self.world.records))

    def _faces_of(self, record: str) -> list[str]:
        return [face for face, row in self.rows.items() if row.record_id == record]

    def _some_slots(self) -> Bool:
        share = self.chance.choice((0.1, 0.5, 1.0))
        picked: Bool = np.random.default_rng(self.chance.randrange(2**32)).random(SLOTS) < share
        return picked


def _equal(found: int, wanted: int, what: str) -> None:
    if found != wanted:
        raise Differs(f"{found} {what}", f"{wanted} {what}", "the history matters")
