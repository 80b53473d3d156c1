"""What a search reads of an index: an immutable state that later writes do not touch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from homeward.types import Float64
from index.block import BlockView, row_stride
from index.block_table import BLOCK_FIELDS, MIXED
from index.columns import INTEGER_COLUMNS, Bool, Columns, Int32
from index.row_loops import copy_rows

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class View:
    """All live rows of the wanted slots at one moment. A row's position is its block << 32 | its number."""

    blocks: tuple[BlockView, ...]
    table: Int64  # (blocks, BLOCK_FIELDS)
    means: Float64  # (blocks, d)
    reaches: Float64  # (blocks,)
    origins: Int32  # (n, 3) agency, gallery, sex by number
    wanted: Bool | None  # (SLOTS,) None: all
    slot_rows: Int64  # (SLOTS,) live rows
    slot_records: Int64
    rev: int  # of the catalogue, up to which its changes are contained
    dimension: int

    @property
    def stride(self) -> int:
        """Bytes between neighbouring rows' templates."""
        return row_stride(self.dimension)

    @property
    def rows(self) -> int:
        """Live rows of the wanted slots."""
        return int(self.slot_rows.sum() if self.wanted is None else self.slot_rows[self.wanted].sum())

    @property
    def records(self) -> int:
        """Records with a live row in the wanted slots."""
        return int(self.slot_records.sum() if self.wanted is None else self.slot_records[self.wanted].sum())

    def of_slots(self, wanted: Bool) -> View:
        """The same state with the rows of some slots only."""
        if wanted.all():
            return self
        held = [number for number, block in enumerate(self.blocks) if (block.slots & wanted).any()]
        table = self.table[held]
        table[:, MIXED] = [(self.blocks[number].slots & ~wanted).any() for number in held]
        return replace(
            self,
            blocks=tuple(self.blocks[number] for number in held),
            table=table,
            means=self.means[held],
            reaches=self.reaches[held],
            wanted=wanted,
        )

    def rows_at(self, positions: Int64) -> Columns:
        """Copies of the rows at these positions."""
        count = len(positions)
        ids = np.empty((count, 4), np.uint64)
        photos = np.empty((count, 4), np.uint64)
        numbers = np.empty((count, len(INTEGER_COLUMNS)), np.int32)
        templates = np.empty((count, self.dimension), np.float32)
        copy_rows(self.table, self.stride, positions, ids, photos, numbers, templates)
        return Columns(
            face=ids[:, :2],
            record=ids[:, 2:],
            photo=photos,
            template=templates,
            **{name: numbers[:, at] for at, name in enumerate(INTEGER_COLUMNS)},
        )


def make_view(
    blocks: Sequence[BlockView],
    origins: Int32,
    slot_rows: Int64,
    slot_records: Int64,
    *,
    rev: int,
    dimension: int,
) -> View:
    """The view over these blocks."""
    held = tuple(blocks)
    return View(
        blocks=held,
        table=np.array([block.table for block in held], np.int64).reshape(-1, BLOCK_FIELDS),
        means=np.array([block.mean for block in held], np.float64).reshape(-1, dimension),
        reaches=np.array([block.reach for block in held], np.float64),
        origins=origins,
        wanted=None,
        slot_rows=slot_rows.copy(),
        slot_records=slot_records.copy(),
        rev=rev,
        dimension=dimension,
    )
