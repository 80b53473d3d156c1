"""Compiled loops over the few rows that a scan has chosen: true scores, whole records, copies."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import float32, int32, uint8, uint64

from index.block_table import (
    FIRST,
    FLAGS,
    LIVE,
    PHOTO,
    ROWS,
    USED,
)
from index.compiled import compiled
from index.kernel import array_at, at_address


@compiled
def best_score(template: Any, wide: Any) -> Any:  # pragma: no cover - compiled
    """The comparison score (`index.score`) of a template (d,) at its best probe of (p, d) float64, and the
    number of the first probe that gives it."""
    best, at = -np.inf, 0
    for probe in range(len(wide)):
        total = 0.0
        for component in range(len(template)):
            total += np.float64(template[component]) * wide[probe, component]
        if total > best:
            best, at = total, probe
    return best, at


@compiled
def true_scores(
    addresses: Any, stride: int, rows: Any, probes: Any, found: Any
) -> None:  # pragma: no cover - compiled
    """The `best_score` of the rows at these positions. `addresses` are of the blocks' first templates,
    `stride` bytes apart."""
    dimension = probes.shape[1]
    wide = probes.astype(np.float64)
    for one in range(len(rows)):
        address = addresses[rows[one] >> 32] + (rows[one] & 0xFFFFFFFF) * stride
        template = array_at(at_address(address), dimension, float32)
        found[one] = best_score(template, wide)[0]


@compiled
def rows_of_records(blocks: Any, keys: Any, found: Any, owners: Any) -> int:  # pragma: no cover - compiled
    """Positions of the live rows of the records that begin at these positions, and whose they are (an
    index into `keys`). Returns how many there are; as many as fit are written."""
    count = 0
    for one in range(len(keys)):
        block, row = keys[one] >> 32, keys[one] & 0xFFFFFFFF
        n = blocks[block, USED]
        flags = array_at(at_address(blocks[block, FLAGS]), n, uint8)
        first = row
        while row < n and (row == first or not flags[row] & FIRST):
            if flags[row] & LIVE:
                if count < len(found):
                    found[count] = block << 32 | row
                    owners[count] = one
                count += 1
            row += 1
    return count


@compiled
def copy_rows(
    blocks: Any, stride: int, positions: Any, ids: Any, photos: Any, numbers: Any, templates: Any
) -> None:  # pragma: no cover - compiled
    """Copy the rows at these positions: ids (n, 4), photos (n, 4), numbers (n, columns), templates (n, d).
    In a block's file a row's ids and numbers lie before its template."""
    columns, dimension = numbers.shape[1], templates.shape[1]
    for one in range(len(positions)):
        block, row = positions[one] >> 32, positions[one] & 0xFFFFFFFF
        address = blocks[block, ROWS] + row * stride
        template = array_at(at_address(address), dimension, float32)
        number = array_at(at_address(address - 4 * columns), columns, int32)
        ident = array_at(at_address(address - 4 * columns - 32), 4, uint64)
        photo = array_at(at_address(blocks[block, PHOTO] + 32 * row), 4, uint64)
        for at in range(4):
            ids[one, at] = ident[at]
            photos[one, at] = photo[at]
        for at in range(columns):
            numbers[one, at] = number[at]
        for at in range(dimension):
            templates[one, at] = template[at]
