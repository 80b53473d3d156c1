"""A shard: the rows of some or all slots on one device, searched exactly while rows come and go.

Rows lie in blocks that are only ever appended to, a record's rows side by side; a search reads a `View`. A
change kills rows in a copy of the block's flags, writes new ones behind the last, and publishes a new view: a
search never waits for a write, and sees each write whole or not at all. What a deleted row said is
overwritten as soon as no search can still read it.
"""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from homeward.errors import InvalidInput
from homeward.ids import check_id
from homeward.types import CandidateList, FaceRow, Filter, ProbeFacts, Query
from index.block import Block, row_stride
from index.columns import (
    COLUMN_NAMES,
    Bool,
    Columns,
    Index,
    UInt64,
    concatenate,
    empty,
    from_rows,
    hex_ids,
    id_words,
)
from index.merge import Partial, merge
from index.origins import Origins
from index.placement import SLOTS, slot_of, slots_of
from index.probe_codes import encode_probes
from index.readers import Readers
from index.reference import check_query
from index.run_table import ROW_BITS, RunTable
from index.scan import Batch, Device, scan, stacked
from index.score import check_templates
from index.view import View, make_view

BLOCK_ROWS = 1 << ROW_BITS
RECORD_ROWS_MAX = BLOCK_ROWS  # a record's rows share a block
PROBES_AT_ONCE = 1024  # that share one pass

_Int64 = npt.NDArray[np.int64]


class Shard:
    """The exact index of one model's templates. Thread-safe; one writer at a time, any readers.

    `folder` takes the float32 originals, in files without a name; None keeps them in memory. `device`
    scans in place of the compiled loops; it is this shard's alone.
    """

    def __init__(
        self,
        dimension: int,
        *,
        rev: int = 0,
        folder: Path | None = None,
        block_rows: int = BLOCK_ROWS,
        threads: int = 0,
        device: Device | None = None,
    ) -> None:
        self.dimension = dimension
        self._folder = folder
        self._block_rows = block_rows
        self._device = device
        self._threads = threads or len(os.sched_getaffinity(0))
        self._pool = ThreadPoolExecutor(max(1, self._threads - 1), thread_name_prefix="scan")
        self._writing = threading.Lock()
        self._readers = Readers()
        self._blocks: dict[int, Block] = {}
        self._tails: dict[int, Block] = {}  # by cohort
        self._cohorts = np.zeros(SLOTS, np.int64)
        self._free_numbers: list[int] = []
        self._runs = RunTable(row_stride(dimension))
        self._origins = Origins()
        self._slot_rows = np.zeros(SLOTS, np.int64)
        self._slot_records = np.zeros(SLOTS, np.int64)
        self._unwiped: list[tuple[int, Block, Index]] = []
        self._view = make_view(
            (), self._origins.table, self._slot_rows, self._slot_records, rev=rev, dimension=dimension
        )

    @property
    def rows(self) -> int:
        """Live rows."""
        return self._view.rows

    @property
    def records(self) -> int:
        """Records with a live row."""
        return self._view.records

    @property
    def rev(self) -> int:
        """The catalogue's rev up to which its changes are contained."""
        return self._view.rev

    def close(self) -> None:
        """End the scanning threads."""
        self._pool.shutdown()

    def face_ids(self) -> dict[str, str]:
        """The record of every live row, by face id, for comparing with the catalogue."""
        found: dict[str, str] = {}
        for columns in self.pages():
            found.update(zip(hex_ids(columns.face), hex_ids(columns.record), strict=True))
        return found

    def pages(self, wanted: Bool | None = None) -> Iterable[Columns]:
        """Copies of all live rows (of the wanted slots) of one state, block by block."""
        with self._readers.reading():
            for block in self._view.blocks:
                if wanted is not None and not (block.slots & wanted).any():
                    continue
                rows = np.flatnonzero(block.flags & 1)
                if wanted is not None:
                    rows = rows[wanted[slots_of(block.columns.record[rows])]]
                if rows.size:
                    yield block.columns.take(rows)

    def record_rows(self, record_id: str) -> Columns:
        """Copies of the record's live rows, by face id; empty for a record without any."""
        words = id_words([check_id(record_id, "record_id")])
        with self._writing:
            found = self._run(words)
            columns = empty(self.dimension) if found is None else found[0].columns.take(found[1])
        return columns.take(np.lexsort((columns.face[:, 1], columns.face[:, 0])))

    def search(self, query: Query) -> CandidateList:
        """The certified candidate list: equal to the reference over the same rows; method "exact"."""
        return self.search_many([query])[0]

    def search_many(self, queries: Sequence[Query]) -> list[CandidateList]:
        """As `search` of each query, in order, sharing one scan over one state of the index.

        Raises `TemplateInvalid` or `InvalidInput` if any of the queries makes no sense: callers that
        batch strangers' queries check each with `check_query` beforehand.
        """
        parts, rev = self.parts(queries)
        return [
            merge([part], query, rev=rev, method="exact") for part, query in zip(parts, queries, strict=True)
        ]

    def parts(self, queries: Sequence[Query], slots: Bool | None = None) -> tuple[list[Partial], int]:
        """What the rows of these slots (all by default) say of each query, at one rev, which is told too."""
        for query in queries:
            check_query(query, self.dimension)
        with self._readers.reading():
            view, left_out = self._state(queries, slots)
            found: list[Partial] = []
            start = 0
            while start < len(queries):
                stop, held = start, 0
                while stop < len(queries):
                    held += len(queries[stop].templates)
                    if stop > start and held > PROBES_AT_ONCE:
                        break
                    stop += 1
                templates, query_of = stacked(queries[start:stop])
                batch = Batch(queries[start:stop], encode_probes(templates), query_of, left_out[start:stop])
                found += scan(view, batch, self._threads, self._run_all, self._device)
                start = stop
        return found, view.rev

    def upsert(self, rows: Sequence[FaceRow], *, rev: int | None = None) -> None:
        """Add rows, or replace those of the same face. Raises `TemplateInvalid` and changes nothing."""
        self.apply(upserts=from_rows(rows, self.dimension), rev=rev)

    def delete_record(self, record_id: str, *, rev: int | None = None) -> int:
        """Take all rows of a record out. When it returns, no search begun later sees one."""
        return self.apply(delete_records=(record_id,), rev=rev)

    def replace_record(self, record_id: str, rows: Sequence[FaceRow], *, rev: int | None = None) -> None:
        """Make `rows` all the rows of the record; no search sees it without or with both."""
        self.apply(upserts=from_rows(rows, self.dimension), delete_records=(record_id,), rev=rev)

    def apply(
        self,
        *,
        upserts: Columns | None = None,
        delete_faces: Iterable[tuple[str, str]] = (),
        delete_records: Iterable[str] = (),
        rev: int | None = None,
    ) -> int:
        """Deletes, then upserts, as one change that searches see whole. Returns the rows deleted.

        `delete_faces` are pairs of record and face id: a face is of one record for good. `rev` is the
        catalogue's rev that this change brings the index to; it never runs backwards.
        """
        faces: defaultdict[bytes, set[bytes]] = defaultdict(set)
        for record, face in delete_faces:
            key = id_words([check_id(record, "record_id")]).tobytes()
            faces[key].add(id_words([check_id(face, "face_id")]).tobytes())
        records = id_words([check_id(one, "record_id") for one in delete_records])
        new = empty(self.dimension) if upserts is None else upserts
        check_templates(new.template, self.dimension)
        with self._writing:
            new = _by_record(_last_of_each_face(new))
            self._check_runs(new.record)
            self._origins.code(new, slots_of(new.record))  # refuses before anything is changed
            edit = _Edit()
            deleted = 0
            for record in records:
                deleted += self._kill_run(record[np.newaxis], edit)
            deleted += self._kill_faces(faces, edit)
            self._append(self._with_old(new, edit))
            self._finish(edit, rev)
        return deleted

    def advance(self, rev: int) -> None:
        """Say that the index contains the catalogue's changes up to `rev` without changing rows."""
        self.apply(rev=rev)

    def tidy(self) -> None:
        """Overwrite what deleted rows said, where searches under way kept it from being done at once."""
        with self._writing:
            self._wipe()
        if self._device is not None:
            with self._readers.reading():
                self._device.follow(self._view)

    def compact(self, share: float, most: int | None = None) -> int:
        """Move the rows of blocks (of so many at most) of which more than a share is dead, the deadest first;
        how many there were. A scan passes over dead rows as over live ones."""
        with self._writing:
            blocks = [one for one in self._blocks.values() if one.used - one.alive > share * one.used]
            chosen = sorted(blocks, key=lambda one: one.alive / one.used)[:most]
            for cohort, tail in list(self._tails.items()):
                if tail in chosen:
                    del self._tails[cohort]
            for block in chosen:
                self._evacuate(block)
            if chosen:
                self._publish(None)
        return len(chosen)

    def drop_slots(self, gone: Bool) -> int:
        """Let go of all rows of these slots (SLOTS,); how many there were."""
        with self._writing:
            edit = _Edit()
            count = 0
            for block in list(self._blocks.values()):
                if (block.slots & gone).any():
                    rows = block.live_rows()
                    rows = rows[gone[slots_of(block.columns.record[rows])]]
                    records = block.columns.record[rows]
                    self._runs.drop(np.unique(records, axis=0))
                    self._kill(block, rows, edit)
                    count += len(rows)
            self._slot_records[gone] = 0
            self._finish(edit, None)
        return count

    def set_cohorts(self, cohorts: _Int64) -> None:
        """Keep rows of slots with different numbers (SLOTS,) in different blocks from now on, so that a
        search of some slots need not pass over the others' rows. A matter of speed alone."""
        with self._writing:
            self._cohorts = cohorts.copy()

    def _state(self, queries: Sequence[Query], slots: Bool | None) -> tuple[View, list[_Int64]]:
        """One state, and where in it the records begin that each query leaves out."""
        named = [
            [name for name in sorted(query.without_records) if slots is None or slots[slot_of(name)]]
            for query in queries
        ]
        if not any(named):
            view = self._view if slots is None else self._view.of_slots(slots)
            return view, [np.empty(0, np.int64)] * len(queries)
        with self._writing:
            view = self._view if slots is None else self._view.of_slots(slots)
            places = [self._runs.find(id_words(names)) for names in named]
        numbers = {block.number: at for at, block in enumerate(view.blocks)}
        found = []
        for some in places:
            there = [int(place) for place in some if place >= 0 and int(place) >> ROW_BITS in numbers]
            positions = [numbers[one >> ROW_BITS] << 32 | one & (BLOCK_ROWS - 1) for one in there]
            found.append(np.array(positions, np.int64))
        return view, found

    def _run_all(self, tasks: Sequence[Callable[[], object]]) -> None:
        others = [self._pool.submit(task) for task in tasks[1:]]
        for task in tasks[:1]:
            task()
        for other in others:
            # All chunks are taken by now: one that still waits behind another search has nothing to do.
            if not other.cancel():
                other.result()

    def _run(self, record: UInt64) -> tuple[Block, Index] | None:
        """Block and live rows of a record (1, 2)."""
        place = int(self._runs.find(record)[0])
        if place < 0:
            return None
        block = self._blocks[place >> ROW_BITS]
        return block, block.run_of(place & (BLOCK_ROWS - 1))

    def _kill_run(self, record: UInt64, edit: _Edit) -> int:
        found = self._run(record)
        if found is None:
            return 0
        self._runs.drop(record)
        self._slot_records[slots_of(record)] -= 1
        self._kill(*found, edit)
        return len(found[1])

    def _kill_faces(self, faces: dict[bytes, set[bytes]], edit: _Edit) -> int:
        deleted = 0
        for key, gone in faces.items():
            record = np.frombuffer(key, np.uint64).reshape(1, 2)
            found = self._run(record)
            if found is None:
                continue
            block, rows = found
            mine = rows[[face.tobytes() in gone for face in block.columns.face[rows]]]
            if len(mine) == len(rows):
                deleted += self._kill_run(record, edit)
            elif len(mine):
                self._kill(block, mine, edit)
                deleted += len(mine)
        return deleted

    def _kill(self, block: Block, rows: Index, edit: _Edit) -> None:
        np.subtract.at(self._slot_rows, slots_of(block.columns.record[rows]), 1)
        block.kill(rows)
        edit.killed.append((block, rows))

    def _with_old(self, new: Columns, edit: _Edit) -> Columns:
        """The new rows, by record, with the rows that their records keep, whose places are given up."""
        heads = new.record[_firsts(new.record)]
        there = np.flatnonzero(self._runs.find(heads) >= 0)
        if not there.size:
            return new
        parts = [new]
        replaced = {face.tobytes() for face in new.face}
        for record in heads[there]:
            found = self._run(record[np.newaxis])
            assert found is not None
            block, rows = found
            stays = rows[[face.tobytes() not in replaced for face in block.columns.face[rows]]]
            parts.append(block.columns.take(stays))
            self._kill_run(record[np.newaxis], edit)
        return _by_record(concatenate(parts, self.dimension))

    def _append(self, columns: Columns) -> None:
        """Write rows, sorted by record, of records that have none."""
        if not len(columns):
            return
        slots = slots_of(columns.record)
        cohorts = self._cohorts[slots]
        origins = self._origins.code(columns, slots)
        for cohort in np.unique(cohorts).tolist():
            mine = np.flatnonzero(cohorts == cohort)
            self._store(cohort, columns.take(mine), origins[mine], slots[mine])
        np.add.at(self._slot_rows, slots, 1)
        firsts = _firsts(columns.record)
        np.add.at(self._slot_records, slots[firsts], 1)

    def _store(
        self, cohort: int, columns: Columns, origins: npt.NDArray[np.uint32], slots: npt.NDArray[np.uint16]
    ) -> None:
        firsts = _firsts(columns.record)
        begins = np.append(np.flatnonzero(firsts), len(columns))
        done = 0  # runs
        while done < len(begins) - 1:
            tail = self._tails.get(cohort)
            room = tail.capacity - tail.used if tail is not None else 0
            fit = int(np.searchsorted(begins, begins[done] + room, side="right")) - 1
            if tail is None or fit <= done:
                self._tails[cohort] = self._new_block(int(begins[done + 1] - begins[done]))
                continue
            some = slice(int(begins[done]), int(begins[fit]))
            start = tail.append(columns.take(some), origins[some], firsts[some], slots[some])
            places = tail.number << ROW_BITS | (start + begins[done:fit] - begins[done])
            self._runs.put(columns.record[begins[done:fit]], places)
            done = fit

    def _new_block(self, least: int) -> Block:
        number = self._free_numbers.pop() if self._free_numbers else len(self._blocks)
        block = Block(number, self.dimension, max(self._block_rows, least), self._folder)
        self._blocks[number] = block
        self._runs.add_block(number, block.id_address)
        return block

    def _finish(self, edit: _Edit, rev: int | None) -> None:
        """Move the rows of blocks that are mostly dead, publish, overwrite."""
        tails = {id(tail) for tail in self._tails.values()}
        for block in {id(block): block for block, _ in edit.killed}.values():
            if id(block) not in tails and block.alive * 2 < block.used:
                self._evacuate(block)
        self._publish(rev)
        number = self._readers.published()
        self._unwiped += [(number, block, rows) for block, rows in edit.killed]
        self._wipe()

    def _evacuate(self, block: Block) -> None:
        columns = block.columns.take(block.live_rows())
        slots = slots_of(columns.record)
        np.subtract.at(self._slot_rows, slots, 1)
        np.subtract.at(self._slot_records, slots[_firsts(columns.record)], 1)
        self._append(columns)
        del self._blocks[block.number]
        self._free_numbers.append(block.number)

    def _publish(self, rev: int | None) -> None:
        self._view = make_view(
            [block.view() for block in self._blocks.values() if block.used],
            self._origins.table,
            self._slot_rows,
            self._slot_records,
            rev=self._view.rev if rev is None else max(rev, self._view.rev),
            dimension=self.dimension,
        )

    def _wipe(self) -> None:
        left = []
        for number, block, rows in self._unwiped:
            if self._blocks.get(block.number) is not block:
                continue  # it goes with the last search that reads it
            if self._readers.have_left(number):
                block.wipe(rows)
            else:
                left.append((number, block, rows))
        self._unwiped = left

    def _check_runs(self, records: UInt64) -> None:
        """Refuse a record that would have more rows than a block, before anything is changed."""
        begins = np.flatnonzero(_firsts(records))
        counts = np.diff(np.append(begins, len(records)))
        for place in np.unique(self._runs.find(records[begins])).tolist():
            if place >= 0:
                had = len(self._blocks[place >> ROW_BITS].run_of(place & (BLOCK_ROWS - 1)))
                if had + int(counts.max()) > RECORD_ROWS_MAX:  # rarely: count this record's own
                    record = self._blocks[place >> ROW_BITS].columns.record[place & (BLOCK_ROWS - 1)]
                    counts[(records[begins] == record).all(axis=1)] += had
        if counts.size and counts.max() > RECORD_ROWS_MAX:
            raise InvalidInput(
                f"a record of {counts.max()} faces; at most {RECORD_ROWS_MAX} can be searched",
                code="TOO_MANY_FACES",
            )


def compile_kernels() -> None:
    """Have the compiled loops ready (from their cache, or compiled now: some fifteen seconds), so that no
    search waits for them."""
    shard = Shard(1, block_rows=2, threads=1)
    template = np.ones((1, 1), np.float32)
    columns = replace(empty(1, 2), template=np.ones((2, 1), np.float32))
    for name in COLUMN_NAMES[:-1]:
        getattr(columns, name)[:] = 0
    columns.face[1], columns.record[1] = 1, 1
    for row in (0, 1, 0):
        shard.apply(upserts=columns.take(slice(row, row + 1)))
    facts = ProbeFacts(sex=1, born=(0, 0))
    shard.search(Query(template, 1, Filter(born=(0, 0), strict=True), facts))
    shard.apply(delete_records=hex_ids(columns.record))
    shard.close()


@dataclass(slots=True)
class _Edit:
    """What one change has touched so far."""

    killed: list[tuple[Block, Index]] = field(default_factory=list)


def _firsts(records: UInt64) -> Bool:
    """(n,) whether a row's record differs from the one before."""
    firsts = np.ones(len(records), np.bool_)
    firsts[1:] = (records[1:] != records[:-1]).any(axis=1)
    return firsts


def _by_record(columns: Columns) -> Columns:
    """The rows in the order of their records."""
    return columns.take(np.lexsort((columns.record[:, 1], columns.record[:, 0])))


def _last_of_each_face(columns: Columns) -> Columns:
    """Of several rows of one face the last."""
    if not len(columns):
        return columns
    order = np.lexsort((np.arange(len(columns)), columns.face[:, 1], columns.face[:, 0]))
    ordered = columns.face[order]
    last = np.ones(len(columns), np.bool_)
    last[:-1] = (ordered[1:] != ordered[:-1]).any(axis=1)
    return columns if last.all() else columns.take(np.sort(order[last]))
