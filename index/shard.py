"""A shard: the rows of some or all slots on one device, searched exactly while rows come and go.

Rows lie in blocks that are only ever appended to, a record's rows side by side; a search reads a `View`. A
change kills rows in a copy of the block's flags, writes new ones behind the last, and publishes a new view: a
search never waits for a write, and sees each write whole or not at all. What a deleted row said is
overwritten as soon as no search can still read it.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from homeward.cores import usable_cores
from homeward.ids import check_id
from homeward.types import CandidateList, FaceRow, Query
from index.block import Block
from index.columns import (
    Bool,
    Columns,
    Index,
    empty,
    from_rows,
    hex_ids,
    id_words,
)
from index.merge import Partial, merge
from index.placement import slot_of, slots_of
from index.probe_codes import encode_probes
from index.readers import Readers
from index.reference import check_query
from index.row_store import BLOCK_ROWS, Edit, RowStore, by_record, last_of_each_face
from index.run_table import ROW_BITS
from index.scan import Batch, Device, scan, stacked
from index.score import check_templates
from index.view import View

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
        self._device = device
        self._threads = threads or usable_cores()
        self._pool = ThreadPoolExecutor(max(1, self._threads - 1), thread_name_prefix="scan")
        self._writing = threading.Lock()
        self._readers = Readers()
        self._store = RowStore(dimension, block_rows, folder)
        self._unwiped: list[tuple[int, Block, Index]] = []
        self._view = self._store.view(rev)

    @property
    def rows(self) -> int:
        """Live rows."""
        return self._view.rows

    @property
    def records(self) -> int:
        """Records with a live row."""
        return self._view.records

    @property
    def slot_rows(self) -> _Int64:
        """(SLOTS,) live rows of each slot. Not to be changed."""
        return self._view.slot_rows

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
            found = self._store.run(words)
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
            new = by_record(last_of_each_face(new))
            self._store.check(new, {record.tobytes() for record in records}, faces)
            edit = Edit()
            deleted = 0
            for record in records:
                deleted += self._store.kill_run(record[np.newaxis], edit)
            deleted += self._store.kill_faces(faces, edit)
            self._store.append(self._store.with_old(new, edit))
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
            moved = self._store.compact(share, most)
            if moved:
                self._publish(None)
        return moved

    def drop_slots(self, gone: Bool) -> int:
        """Let go of all rows of these slots (SLOTS,); how many there were."""
        with self._writing:
            edit = Edit()
            count = self._store.kill_slots(gone, edit)
            self._finish(edit, None)
        return count

    def set_cohorts(self, cohorts: _Int64) -> None:
        """Keep rows of slots with different numbers (SLOTS,) in different blocks from now on, so that a
        search of some slots need not pass over the others' rows. A matter of speed alone."""
        with self._writing:
            self._store.set_cohorts(cohorts)

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
            places = [self._store.places(id_words(names)) for names in named]
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

    def _finish(self, edit: Edit, rev: int | None) -> None:
        """Move the rows of blocks that are mostly dead, publish, overwrite."""
        self._store.close_ranks(edit)
        self._publish(rev)
        number = self._readers.published()
        self._unwiped += [(number, block, rows) for block, rows in edit.killed]
        self._wipe()

    def _publish(self, rev: int | None) -> None:
        self._view = self._store.view(self._view.rev if rev is None else max(rev, self._view.rev))

    def _wipe(self) -> None:
        left = []
        for number, block, rows in self._unwiped:
            if not self._store.holds(block):
                continue  # it goes with the last search that reads it
            if self._readers.have_left(number):
                block.wipe(rows)
            else:
                left.append((number, block, rows))
        self._unwiped = left
