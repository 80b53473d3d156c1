"""The rows of a shard as its writer sees them: blocks, where each record's rows begin, counts by slot.

Nothing here waits or is thread-safe: a shard calls it under its lock, and what searches read of it are the
views that it makes.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from homeward.errors import InvalidInput
from index.block import Block, row_stride
from index.columns import Bool, Columns, Index, UInt64, concatenate
from index.origins import Origins
from index.placement import SLOTS, slots_of
from index.run_table import ROW_BITS, RunTable
from index.view import View, make_view

BLOCK_ROWS = 1 << ROW_BITS
RECORD_ROWS_MAX = BLOCK_ROWS  # a record's rows share a block

_Int64 = npt.NDArray[np.int64]


@dataclass(slots=True)
class Edit:
    """What one change has touched so far."""

    killed: list[tuple[Block, Index]] = field(default_factory=list)


class RowStore:
    """The blocks of one shard. `folder` takes the originals' files; None keeps them in memory."""

    def __init__(self, dimension: int, block_rows: int, folder: Path | None) -> None:
        self._dimension = dimension
        self._block_rows = block_rows
        self._folder = folder
        self._blocks: dict[int, Block] = {}
        self._tails: dict[int, Block] = {}  # by cohort
        self._cohorts = np.zeros(SLOTS, np.int64)
        self._free_numbers: list[int] = []
        self._runs = RunTable(row_stride(dimension))
        self._origins = Origins()
        self._slot_rows = np.zeros(SLOTS, np.int64)
        self._slot_records = np.zeros(SLOTS, np.int64)

    def view(self, rev: int) -> View:
        """What searches read, as it is now."""
        return make_view(
            [block.view() for block in self._blocks.values() if block.used],
            self._origins.table,
            self._slot_rows,
            self._slot_records,
            rev=rev,
            dimension=self._dimension,
        )

    def holds(self, block: Block) -> bool:
        """Whether the block is still one of these."""
        return self._blocks.get(block.number) is block

    def places(self, records: UInt64) -> _Int64:
        """Block << ROW_BITS | row where each record (n, 2) begins; negative for those that have no row."""
        return self._runs.find(records)

    def set_cohorts(self, cohorts: _Int64) -> None:
        """Keep rows of slots with different numbers (SLOTS,) in different blocks from now on."""
        self._cohorts = cohorts.copy()

    def check(self, new: Columns, records: Set[bytes], faces: Mapping[bytes, set[bytes]]) -> None:
        """Raise `InvalidInput`, before anything is changed, for rows, by record, that cannot be taken in once
        these records, and these faces by record, are deleted: all by the bytes of their id words."""
        self._check_runs(new, records, faces)
        self._origins.code(new, slots_of(new.record))

    def kill_slots(self, gone: Bool, edit: Edit) -> int:
        """Delete all rows of these slots (SLOTS,); how many there were."""
        count = 0
        for block in list(self._blocks.values()):
            if (block.slots & gone).any():
                rows = block.live_rows()
                rows = rows[gone[slots_of(block.columns.record[rows])]]
                self._runs.drop(np.unique(block.columns.record[rows], axis=0))
                self._kill(block, rows, edit)
                count += len(rows)
        self._slot_records[gone] = 0
        return count

    def run(self, record: UInt64) -> tuple[Block, Index] | None:
        """Block and live rows of a record (1, 2); None for one that has none."""
        place = int(self._runs.find(record)[0])
        if place < 0:
            return None
        block = self._blocks[place >> ROW_BITS]
        return block, block.run_of(place & (BLOCK_ROWS - 1))

    def kill_run(self, record: UInt64, edit: Edit) -> int:
        """Delete a record (1, 2); how many rows it had."""
        found = self.run(record)
        if found is None:
            return 0
        self._runs.drop(record)
        self._slot_records[slots_of(record)] -= 1
        self._kill(*found, edit)
        return len(found[1])

    def kill_faces(self, faces: Mapping[bytes, set[bytes]], edit: Edit) -> int:
        """Delete faces, by record, both as the bytes of their id words; how many there were."""
        deleted = 0
        for key, gone in faces.items():
            record = np.frombuffer(key, np.uint64).reshape(1, 2)
            found = self.run(record)
            if found is None:
                continue
            block, rows = found
            mine = rows[[face.tobytes() in gone for face in block.columns.face[rows]]]
            if len(mine) == len(rows):
                deleted += self.kill_run(record, edit)
            elif len(mine):
                self._kill(block, mine, edit)
                deleted += len(mine)
        return deleted

    def _kill(self, block: Block, rows: Index, edit: Edit) -> None:
        np.subtract.at(self._slot_rows, slots_of(block.columns.record[rows]), 1)
        block.kill(rows)
        edit.killed.append((block, rows))

    def with_old(self, new: Columns, edit: Edit) -> Columns:
        """The new rows, by record, with the rows that their records keep, whose places are given up."""
        heads = new.record[record_begins(new.record)]
        there = np.flatnonzero(self._runs.find(heads) >= 0)
        if not there.size:
            return new
        parts = [new]
        replaced = {face.tobytes() for face in new.face}
        for record in heads[there]:
            found = self.run(record[np.newaxis])
            assert found is not None
            block, rows = found
            stays = rows[[face.tobytes() not in replaced for face in block.columns.face[rows]]]
            parts.append(block.columns.take(stays))
            self.kill_run(record[np.newaxis], edit)
        return by_record(concatenate(parts, self._dimension))

    def append(self, columns: Columns) -> None:
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
        firsts = record_begins(columns.record)
        np.add.at(self._slot_records, slots[firsts], 1)

    def _store(
        self, cohort: int, columns: Columns, origins: npt.NDArray[np.uint32], slots: npt.NDArray[np.uint16]
    ) -> None:
        firsts = record_begins(columns.record)
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
        block = Block(number, self._dimension, max(self._block_rows, least), self._folder)
        self._blocks[number] = block
        self._runs.add_block(number, block.id_address)
        return block

    def close_ranks(self, edit: Edit) -> None:
        """Move the rows of blocks that a change has left mostly dead."""
        tails = {id(tail) for tail in self._tails.values()}
        for block in {id(block): block for block, _ in edit.killed}.values():
            if id(block) not in tails and block.alive * 2 < block.used:
                self._evacuate(block)

    def compact(self, share: float, most: int | None) -> int:
        """Move the rows of blocks (of so many at most) of which more than a share is dead, the deadest first;
        how many there were."""
        blocks = [one for one in self._blocks.values() if one.used - one.alive > share * one.used]
        chosen = sorted(blocks, key=lambda one: one.alive / one.used)[:most]
        for cohort, tail in list(self._tails.items()):
            if tail in chosen:
                del self._tails[cohort]
        for block in chosen:
            self._evacuate(block)
        return len(chosen)

    def _evacuate(self, block: Block) -> None:
        columns = block.columns.take(block.live_rows())
        slots = slots_of(columns.record)
        np.subtract.at(self._slot_rows, slots, 1)
        np.subtract.at(self._slot_records, slots[record_begins(columns.record)], 1)
        self.append(columns)
        del self._blocks[block.number]
        self._free_numbers.append(block.number)

    def _check_runs(self, new: Columns, gone: Set[bytes], faces: Mapping[bytes, set[bytes]]) -> None:
        """Refuse a record that would have more rows than a block, before anything is changed."""
        begins = np.flatnonzero(record_begins(new.record))
        ends = np.append(begins, len(new))[1:]
        counts = ends - begins
        places = self._runs.find(new.record[begins])
        for at in np.flatnonzero(places >= 0).tolist():
            place = int(places[at])
            block = self._blocks[place >> ROW_BITS]
            rows = block.run_of(place & (BLOCK_ROWS - 1))
            if len(rows) + counts[at] > RECORD_ROWS_MAX:  # rarely: count those that stay
                record = new.record[begins[at]].tobytes()
                if record not in gone:
                    leave = {one.tobytes() for one in new.face[begins[at] : ends[at]]} | faces.get(
                        record, set()
                    )
                    counts[at] += sum(one.tobytes() not in leave for one in block.columns.face[rows])
        if counts.size and counts.max() > RECORD_ROWS_MAX:
            raise InvalidInput(
                f"a record of {counts.max()} faces; at most {RECORD_ROWS_MAX} can be searched",
                code="TOO_MANY_FACES",
            )


def record_begins(records: UInt64) -> Bool:
    """(n,) whether a row's record differs from the one before."""
    firsts = np.ones(len(records), np.bool_)
    firsts[1:] = (records[1:] != records[:-1]).any(axis=1)
    return firsts


def by_record(columns: Columns) -> Columns:
    """The rows in the order of their records."""
    return columns.take(np.lexsort((columns.record[:, 1], columns.record[:, 0])))


def last_of_each_face(columns: Columns) -> Columns:
    """Of several rows of one face the last."""
    if not len(columns):
        return columns
    order = np.lexsort((np.arange(len(columns)), columns.face[:, 1], columns.face[:, 0]))
    ordered = columns.face[order]
    last = np.ones(len(columns), np.bool_)
    last[:-1] = (ordered[1:] != ordered[:-1]).any(axis=1)
    return columns if last.all() else columns.take(np.sort(order[last]))
