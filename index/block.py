"""Blocks of rows: what a scan reads in memory, and the originals in a file behind a memory map.

A row's codes, scale, error norm and filter columns are hot: every scan reads them. Its ids, its photo, its
other columns and its float32 template are read for the few rows that may stand in a list, so they lie in a
file without a name that the operating system keeps in memory as it sees fit, and that ends with the process.
"""

from __future__ import annotations

import mmap
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from homeward.types import Float32, Float64, UInt8
from index.block_table import (
    BLOCK_FIELDS,
    BORN_FROM,
    BORN_TO,
    CODES,
    DEAD,
    ERRORS,
    EVENT_FROM,
    EVENT_TO,
    FIRST,
    FLAGS,
    LIVE,
    ORIGIN,
    PHOTO,
    PLACE,
    ROWS,
    SCALES,
    TAKEN_TO,
    USED,
)
from index.columns import INTEGER_COLUMNS, Bool, Columns, Index
from index.encode import code_bytes, encode_rows
from index.kernel import TILE
from index.placement import SLOTS

UInt32 = npt.NDArray[np.uint32]

HOT_COLUMNS = ("place", "born_from", "born_to", "event_from", "event_to", "taken_to")
_RECENTRED_AT = (64, 1024, 16_384)  # used rows at which a young block's mean is taken anew
_IDS = 32  # bytes of a row's two ids
_HEAD = _IDS + 4 * len(INTEGER_COLUMNS)  # bytes before a row's template


def row_stride(dimension: int) -> int:
    """Bytes of a row in a block's file, its photo apart."""
    return _HEAD + 4 * dimension


@dataclass(frozen=True, slots=True)
class BlockView:
    """A block as one state of the index has it; later changes do not touch it."""

    number: int
    columns: Columns  # (used) rows, dead ones among them: views of the originals
    flags: UInt8  # (used,)
    table: npt.NDArray[np.int64]  # (BLOCK_FIELDS,) a line of the block table
    mean: Float64  # (d,)
    reach: float  # largest norm of a row's scale x codes
    slots: Bool  # (SLOTS,) in which there is a row
    held: tuple[object, ...]  # keeps alive what `table` points to

    def __len__(self) -> int:
        return len(self.flags)


class Block:
    """Room for a fixed number of rows, filled from the front; a record's rows lie side by side. Written by
    the index alone, under its lock; searches see it through `view`."""

    def __init__(self, number: int, dimension: int, capacity: int, folder: Path | None) -> None:
        self.number = number
        self.capacity = capacity
        self.used = 0
        self.alive = 0
        room = -(-capacity // TILE) * TILE
        self._dimension = dimension
        self._mean: Float64 = np.zeros(dimension)
        self._reach = 0.0
        self._codes, self._scales, self._errors = _coded(room, dimension)
        self._origins = _memory(4 * room).view(np.uint32)
        self._hot = {name: _memory(4 * room).view(np.int32) for name in HOT_COLUMNS}
        self.flags: UInt8 = np.zeros(room, np.uint8)  # replaced by a copy before a row is marked dead
        self.slots: Bool = np.zeros(SLOTS, np.bool_)
        self.columns = _originals(room, dimension, folder)
        self._view: BlockView | None = None

    @property
    def id_address(self) -> int:
        """Where the first row's record id is; each next one is `row_stride` bytes on."""
        return self.columns.record.ctypes.data

    def append(self, columns: Columns, origins: UInt32, firsts: Bool, slots: npt.NDArray[np.uint16]) -> int:
        """Write the rows behind the last; returns the first one's place. They must fit."""
        start, stop = self.used, self.used + len(columns)
        for name in ("face", "record", "photo", "template", *INTEGER_COLUMNS):
            getattr(self.columns, name)[start:stop] = getattr(columns, name)
        for name, hot in self._hot.items():
            hot[start:stop] = getattr(columns, name)
        self._origins[start:stop] = origins
        self.slots[slots] = True
        self.flags[start:stop] = np.where(firsts, LIVE | FIRST, LIVE)
        if start == 0:
            self._mean = columns.template.mean(axis=0, dtype=np.float64)
        self._encode(columns.template, start)
        self.used = stop
        self.alive += len(columns)
        self._view = None
        if any(start < at <= stop for at in (*_RECENTRED_AT, self.capacity)) and start:
            self._recentre()
        return start

    def kill(self, rows: Index) -> None:
        """Mark live rows dead. Searches under way still see them."""
        self.flags = self.flags.copy()
        self.flags[rows] &= ~np.uint8(LIVE) & np.uint8(255)
        self.alive -= len(rows)
        self._view = None

    def wipe(self, rows: Index) -> None:
        """Overwrite what dead rows say; no search sees them any more. Their ids stay until the block goes."""
        self.columns.template[rows] = 0
        self.columns.photo[rows] = 0
        nothing = np.zeros((1, self._dimension), np.float32)
        for row in rows.tolist():
            encode_rows(nothing, nothing[0].astype(np.float64), self._codes, self._scales, self._errors, row)

    def live_rows(self) -> Index:
        """Numbers of the rows that count."""
        return np.flatnonzero(self.flags[: self.used] & LIVE)

    def run_of(self, row: int) -> Index:
        """Numbers of the live rows of the record whose first row this is."""
        end, step = row + 1, 16
        while end < self.used:
            later = np.flatnonzero(self.flags[end : min(end + step, self.used)] & FIRST)
            if later.size:
                end += int(later[0])
                break
            end, step = min(end + step, self.used), 4 * step
        return row + np.flatnonzero(self.flags[row:end] & LIVE)

    def view(self) -> BlockView:
        """The block as it is now."""
        if self._view is None:
            self._view = self._make_view()
        return self._view

    def _make_view(self) -> BlockView:
        columns = self.columns.take(slice(0, self.used))
        table = np.zeros(BLOCK_FIELDS, np.int64)
        hot = self._hot
        for field, array in (
            (CODES, self._codes),
            (SCALES, self._scales),
            (ERRORS, self._errors),
            (FLAGS, self.flags),
            (ORIGIN, self._origins),
            (PLACE, hot["place"]),
            (BORN_FROM, hot["born_from"]),
            (BORN_TO, hot["born_to"]),
            (EVENT_FROM, hot["event_from"]),
            (EVENT_TO, hot["event_to"]),
            (TAKEN_TO, hot["taken_to"]),
            (PHOTO, self.columns.photo),
            (ROWS, self.columns.template),
        ):
            table[field] = array.ctypes.data
        table[USED] = self.used
        table[DEAD] = self.used - self.alive
        held = (self._codes, self._scales, self._errors, self._origins, hot, self.columns)
        return BlockView(
            self.number,
            columns,
            self.flags[: self.used],
            table,
            self._mean,
            self._reach,
            self.slots.copy(),
            held,
        )

    def _recentre(self) -> None:
        """Code all rows anew around the mean they have by now; searches keep the old arrays."""
        templates = self.columns.template[: self.used]
        if self.alive:
            self._mean = templates[self.live_rows()].mean(axis=0, dtype=np.float64)
        self._codes, self._scales, self._errors = _coded(len(self._scales), self._dimension)
        self._reach = 0.0
        self._encode(templates, 0)

    def _encode(self, templates: Float32, start: int) -> None:
        reach = encode_rows(templates, self._mean, self._codes, self._scales, self._errors, start)
        self._reach = max(self._reach, reach)


def _originals(room: int, dimension: int, folder: Path | None) -> Columns:
    """Columns over a file without a name, a line of it per row: one page holds all of a row."""
    stride = row_stride(dimension)
    size = room * (stride + 32)
    if folder is None:
        held = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    else:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.truncate(size)
            held = mmap.mmap(file.fileno(), size)

    def part(start: int, width: int, kind: npt.DTypeLike, count: int) -> Any:
        return np.ndarray((room, count), kind, buffer=held, offset=start, strides=(stride, width))

    ids = part(0, 8, np.uint64, 4)
    numbers = part(_IDS, 4, np.int32, len(INTEGER_COLUMNS))
    return Columns(
        face=ids[:, :2],
        record=ids[:, 2:],
        photo=np.frombuffer(held, np.uint64, offset=room * stride).reshape(room, 4),
        template=part(_HEAD, 4, np.float32, dimension),
        **{name: numbers[:, at] for at, name in enumerate(INTEGER_COLUMNS)},
    )


def _coded(room: int, dimension: int) -> tuple[UInt8, Float32, Float32]:
    """Room for codes, scales and error norms."""
    return (
        _memory(code_bytes(room, dimension)),
        _memory(4 * room).view(np.float32),
        _memory(4 * room).view(np.float32),
    )


def _memory(size: int) -> UInt8:
    """Bytes on pages of their own: untouched ones cost nothing, and all go back when the array ends. (The
    heap keeps what was freed between two that live.)"""
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return np.frombuffer(pages, np.uint8)
