"""What a search of the resident index reads: an immutable view that later writes do not touch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from index.columns import COLUMN_NAMES, Bool, Columns, Index, Int32, concatenate, empty


@dataclass(frozen=True, slots=True)
class Segment:
    """The published rows of one block: views of its arrays."""

    columns: Columns  # n rows, dead ones among them
    codes: Int32  # (n,) the row's record, as a number below `Snapshot.codes`
    live: Bool | None  # (n,) whether the row still counts; None: all do

    def __len__(self) -> int:
        return len(self.codes)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All live rows at one moment. Two live rows are of one record exactly when their codes are equal."""

    segments: tuple[Segment, ...]
    codes: int  # every code is below
    rows: int  # live
    records: int  # with a live row
    rev: int  # of the catalogue, up to which its changes are contained
    dimension: int

    def rows_of(self, codes: Index | Int32) -> tuple[Columns, Int32]:
        """Copies of all live rows of the records with these codes, and the rows' codes."""
        wanted = np.zeros(self.codes, dtype=np.bool_)
        wanted[codes] = True
        parts: list[tuple[Segment, Index]] = []
        for segment in self.segments:
            rows = np.flatnonzero(wanted[segment.codes])
            if segment.live is not None:
                rows = rows[segment.live[rows]]
            if rows.size:
                parts.append((segment, rows))
        return gather(parts, self.dimension)


def gather(parts: list[tuple[Segment, Index]], dimension: int) -> tuple[Columns, Int32]:
    """Copies of the chosen rows of several segments, in order, and their codes."""
    columns = concatenate([segment.columns.take(rows) for segment, rows in parts], dimension)
    codes = [segment.codes[rows] for segment, rows in parts]
    return columns, np.concatenate(codes) if codes else np.empty(0, np.int32)


class Block:
    """Room for a fixed number of rows, filled from the front. Written by the index alone, under its
    lock; searches see it through `segment`."""

    def __init__(self, number: int, dimension: int, capacity: int) -> None:
        self.number = number
        self.columns = empty(dimension, capacity)
        self.codes: Int32 = np.empty(capacity, np.int32)
        self.live: Bool = np.ones(capacity, np.bool_)  # replaced by a copy before a row is marked dead
        self.used = 0
        self.alive = 0
        self._segment: Segment | None = None

    def append(self, columns: Columns, codes: Int32) -> int:
        """Copy the rows in behind the last; returns the first one's place. They must fit."""
        start, stop = self.used, self.used + len(columns)
        for name in COLUMN_NAMES:
            getattr(self.columns, name)[start:stop] = getattr(columns, name)
        self.codes[start:stop] = codes
        self.used = stop
        self.alive += len(columns)
        self._segment = None
        return start

    def kill(self, row: int) -> None:
        """Mark a row dead. The caller has replaced `live` since the last `segment`."""
        self.live[row] = False
        self.alive -= 1
        self._segment = None

    def segment(self) -> Segment:
        """The rows as they are now."""
        if self._segment is None:
            self._segment = Segment(
                columns=self.columns.take(slice(0, self.used)),
                codes=self.codes[: self.used],
                live=None if self.alive == self.used else self.live[: self.used],
            )
        return self._segment
