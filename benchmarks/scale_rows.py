"""Rows of nobody in files, ordered by slot, so that every process reads its slots' rows and no others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.search_rows import gallery, real_like
from homeward.types import Float32
from index.columns import COLUMN_NAMES, Bool, Columns
from index.placement import SLOTS, slots_of

DIMENSION = 128
REV = 1
_DRAWN = 1 << 18  # templates at a time
_GROUPS = 64  # of slots, read one after the other
_TEMPLATES = "template"


def write_rows(folder: Path, rows: int, seed: int) -> None:
    """Draw so many rows and write them."""
    folder.mkdir()
    columns = gallery(np.empty((rows, 0), np.float32), seed)
    columns = columns.take(np.argsort(slots_of(columns.record), kind="stable"))
    for name in COLUMN_NAMES:
        if name != _TEMPLATES:
            np.save(folder / f"{name}.npy", getattr(columns, name))
    templates = np.lib.format.open_memmap(
        folder / f"{_TEMPLATES}.npy", mode="w+", dtype=np.float32, shape=(rows, DIMENSION)
    )
    for number, start in enumerate(range(0, rows, _DRAWN)):
        some = templates[start : start + _DRAWN]
        some[:] = real_like(len(some), seed + 1 + number)
    templates.flush()


@dataclass(frozen=True, slots=True)
class RowFiles:
    """`cluster.follow.Source` over the files."""

    folder: Path

    def load(self, wanted: Bool) -> Iterator[tuple[Bool, int, Columns]]:
        """All rows of the wanted slots, some slots at a time."""
        arrays = {name: np.load(self.folder / f"{name}.npy", mmap_mode="r") for name in COLUMN_NAMES}
        slots = slots_of(np.ascontiguousarray(arrays["record"]))
        for group in np.array_split(np.arange(SLOTS), _GROUPS):
            mine = np.zeros(SLOTS, np.bool_)
            mine[group] = wanted[group]
            first, stop = np.searchsorted(slots, [group[0], group[-1] + 1])
            keep = np.flatnonzero(mine[slots[first:stop]]) + first
            if mine.any():
                yield mine, REV, Columns(**{name: array[keep] for name, array in arrays.items()})

    def templates(self, places: npt.NDArray[np.int64]) -> Float32:
        """(n, d) some rows' templates."""
        found: Float32 = np.load(self.folder / f"{_TEMPLATES}.npy", mmap_mode="r")[places]
        return found
