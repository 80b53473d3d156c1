"""Filters and facts on the device: which rows each kind of query may be answered with, and how many.

It says of whole blocks what `index.scan_loops` says of a row at a time; all filters of a batch at once, for a
batch may bring as many as it has queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from homeward.types import DAY_MAX, DAY_MIN, Query
from index.block_table import LIVE, MIXED, SLOT_SHIFT
from index.columns import Int32
from index.filter_loops import (
    AGE_EARLIEST,
    AGE_LATEST,
    BORN,
    BORN_LEAST,
    BORN_MOST,
    EARLIEST,
    EVENT,
    EVENT_LEAST,
    EVENT_MOST,
    FACT_BORN,
    FACT_TAKEN,
    FACTS,
    FILTERS,
    LATEST,
    PHOTOS,
    PHOTOS_END,
    PLACES,
    PLACES_END,
    SEX,
    STRICT,
)
from index.origins import FilterTables, Int64, fact_table
from index.torch_mirror import Stretch, photo_words
from index.view import View

_NUMBER = (1 << SLOT_SHIFT) - 1
_SLOT = (1 << 32 - SLOT_SHIFT) - 1
_BYTES_PER_FILTER = 16  # of a row, while its filters are looked at
_BYTES_PER_ROW = 48


@dataclass(frozen=True, slots=True)
class Masks:
    """Rows of some blocks, per kind of query (c): bool (c, b, r)."""

    allowed: Tensor  # may be answered with
    speaks: Tensor | None  # of them, those that facts allow; None: all


class Rules:
    """The filters (f) and facts of a batch on the device; a kind (c) is a pair of them that occurs."""

    def __init__(
        self, queries: Sequence[Query], tables: FilterTables, view: View, device: torch.device
    ) -> None:
        self._view = view
        self._tables = tables
        self._device = device
        lines = fact_table(queries)
        facts, fact_of = np.unique(lines, axis=0, return_inverse=True)
        pairs = np.stack([tables.of_query.astype(np.int64), fact_of.reshape(-1)], axis=1)
        kinds, kind_of = np.unique(pairs, axis=0, return_inverse=True)
        self.kind_of_query: Int64 = kind_of.reshape(-1).astype(np.int64)  # (q,)
        self._filter_of = self._moved(kinds[:, 0])  # (c,)
        self._fact_of = self._moved(kinds[:, 1])
        self._facts = self._moved(facts.T[:, :, np.newaxis])  # (fields, g, 1)
        self._excludes = bool(facts[:, FACTS].any())
        self._active = np.flatnonzero(tables.filters[:, FILTERS])
        self._lines = self._moved(tables.filters.T[:, :, np.newaxis])  # (fields, f, 1)
        self._passes = self._moved(tables.origins.astype(np.bool_))  # (f, origins)
        self._sexes = self._moved(np.ascontiguousarray(view.origins[:, 2]) if len(view.origins) else _ZERO)
        self._slots = None if view.wanted is None else self._moved(view.wanted)
        self._counts = torch.zeros((len(tables.filters), 2), dtype=torch.int64, device=device)
        held = len(tables.filters) * (len(self._active) > 0) + len(kinds) * self._excludes
        self.bytes_per_row = _BYTES_PER_ROW + _BYTES_PER_FILTER * held

    def counts(self) -> Int64:
        """(f, 2) rows and records that each filter that filters has let through so far."""
        found: Int64 = self._counts.cpu().numpy()
        return found

    def masks(self, stretch: Stretch, first: int, last: int) -> Masks:
        """Look at the blocks first..last of a stretch, once."""
        slab = stretch.slab
        slots = slice(stretch.slots.start + first, stretch.slots.start + last)
        members = stretch.members[first:last]
        used = self._moved(np.array([len(self._view.blocks[one]) for one in members]))
        shape = (last - first, slab.rows)
        columns = {name: column[slots].reshape(-1) for name, column in slab.columns.items()}
        alive = (slab.flags[slots] & LIVE) != 0
        alive &= torch.arange(slab.rows, device=self._device) < used[:, None]
        passes = alive.reshape(1, -1)
        if self._slots is not None and self._view.table[list(members), MIXED].any():
            passes = passes & self._slots[((columns["origin"] >> SLOT_SHIFT) & _SLOT).long()]
        if not (len(self._active) or self._excludes):
            return Masks(passes.expand(len(self._filter_of), -1).reshape(-1, *shape), None)
        # Where the row's record begins, over all of these blocks.
        bases = torch.arange(last - first, device=self._device)[:, None] * slab.rows
        starts = (slab.columns["start"][slots] + bases).reshape(-1)
        if len(self._active):
            passes = passes & self._admitted(columns)
            self._leave_out_photos(passes, columns["photo"], members, slab.rows)
            self._count(passes, starts)
        passes = passes.expand(len(self._tables.filters), -1)
        if not self._excludes:
            return Masks(passes[self._filter_of].reshape(-1, *shape), None)
        passes = passes[self._filter_of]
        speaks = passes & ~self._contradicted(columns)[self._fact_of]
        spoken_for = _any_of_record(speaks, starts)
        return Masks((speaks | (passes & ~spoken_for)).reshape(-1, *shape), speaks.reshape(-1, *shape))

    def _admitted(self, columns: dict[str, Tensor]) -> Tensor:
        """(f, n) what each filter says of each row, photos apart."""
        lines = self._lines
        passes = self._passes[:, (columns["origin"] & _NUMBER).long()]
        for switch, least, most, name in (
            (BORN, BORN_LEAST, BORN_MOST, "born"),
            (EVENT, EVENT_LEAST, EVENT_MOST, "event"),
        ):
            if not self._tables.filters[:, switch].any():
                continue
            begin, end = columns[f"{name}_from"], columns[f"{name}_to"]
            fits = (begin <= lines[most]) & (end >= lines[least])
            unknown = (begin == DAY_MIN) & (end == DAY_MAX)
            fits &= ~(unknown & (lines[STRICT] != 0))
            passes &= fits | (lines[switch] == 0)
        for number, line in enumerate(self._tables.filters):
            if line[PLACES] < line[PLACES_END]:
                places = self._moved(self._tables.places[line[PLACES] : line[PLACES_END]])
                passes[number] &= torch.isin(columns["place"], places)
        return passes

    def _leave_out_photos(
        self, passes: Tensor, photo: Tensor, members: Sequence[int], block_rows: int
    ) -> None:
        """Clear what filters leave out by photo. The device has 32 bits of each photo's id: the few rows of
        which they agree are compared in full here."""
        wanted = self._tables.photos
        if not len(wanted):
            return
        some = torch.isin(photo, self._moved(photo_words(wanted[:, 0]))).nonzero().flatten().cpu().numpy()
        if not some.size:
            return
        blocks, rows = np.divmod(some, block_rows)
        keys = []
        for block, row in zip(blocks.tolist(), rows.tolist(), strict=True):
            columns = self._view.blocks[members[block]].columns
            keys.append(columns.photo[row].tobytes() if row < len(columns) else b"")
        for number, line in enumerate(self._tables.filters):
            mine = {photo.tobytes() for photo in wanted[line[PHOTOS] : line[PHOTOS_END]]}
            gone = some[[key in mine for key in keys]]
            if gone.size:
                passes[number, self._moved(gone)] = False

    def _count(self, passes: Tensor, starts: Tensor) -> None:
        active = self._moved(self._active)
        admitted = passes[active]
        records = _of_record(admitted, starts) > 0
        self._counts[active] += torch.stack([admitted.sum(1), records.sum(1)], dim=1)

    def _contradicted(self, columns: dict[str, Tensor]) -> Tensor:
        """(g, n) which rows each line of facts excludes: `index.plausibility.reasons` is not 0."""
        facts = self._facts
        sex = self._sexes[(columns["origin"] & _NUMBER).long()]
        born_from, born_to = columns["born_from"], columns["born_to"]
        against = (facts[SEX] != 0) & (sex != 0) & (sex != facts[SEX])
        against |= columns["taken_to"] < facts[FACT_BORN]
        against |= born_from > torch.minimum(
            facts[FACT_TAKEN], torch.minimum(facts[LATEST], facts[AGE_LATEST])
        )
        against |= born_to < torch.maximum(facts[EARLIEST], facts[AGE_EARLIEST])
        return against & (facts[FACTS] != 0)

    def _moved(self, array: npt.NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device)


_ZERO: Int32 = np.zeros(1, np.int32)


def _of_record(rows: Tensor, starts: Tensor) -> Tensor:
    """(c, n) int32: at each record's first row, how many of its rows are among these (c, n)."""
    counts = torch.zeros(rows.shape, dtype=torch.int32, device=rows.device)
    return counts.scatter_add_(1, starts.expand(len(rows), -1), rows.to(torch.int32))


def _any_of_record(rows: Tensor, starts: Tensor) -> Tensor:
    """(c, n) whether any row of the row's record is among these (c, n)."""
    return (_of_record(rows, starts) > 0)[:, starts]
