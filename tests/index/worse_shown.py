"""Rows that codes show as worse than they are: only a scan that allows for what codes lose finds them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from homeward.types import FaceRow, Query
from index import reference
from index.columns import from_rows
from index.shard import Shard
from index.synthetic import unit_rows
from tests.index.rows import face_row, hex_id

# Of 64 components: what the probe has in the last and in the 31 before it, and what a row has in each. The
# codes tell the last but lose the others, or keep them for the second look alone.
LOST = {
    "a probe's low piece": (13 * 128 / 16_256, 60 / 16_256, 1.0, 1.0),
    "a probe's rounding": (11 / 16_256, 0.4 / 16_256, 1.0, 1.0),
    "a row's rounding": (1.0, 1.0, 11 / 127, 0.4 / 127),
}


def check_worse_shown(index: Shard, lost: str) -> None:
    """The last tile's rows gain in 31 components, which codes lose, and have a little less in the one that
    codes show. `index` is empty, of dimension 64, and has few rows before its cuts rise."""
    told_probe, untold_probe, told_row, untold_row = LOST[lost]
    probe = unit_rows(np.array([[1.0] * 32 + [untold_probe] * 31 + [told_probe]]))
    rows: list[FaceRow] = []
    for tile in range(4):
        gained = np.full(31, untold_row if tile == 3 else -untold_row)
        row = np.concatenate((np.ones(32), gained, [-told_row if tile == 3 else told_row]))
        both = unit_rows(np.stack((row, -row)))  # around a mean of nothing: only these roundings are left
        new = [face_row((tile, at), "p", 0, both[at % 2]) for at in range(64)]
        index.upsert(new)
        rows += new
    columns = from_rows(rows, 64)
    queries = [Query(probe, k) for k in (1, 33, 100)]
    wanted = [replace(reference.search(query, columns), method="exact") for query in queries]
    best = {hex_id("record", (3, at)) for at in range(64)}
    assert {one.record_id for one in wanted[0].candidates} <= best
    assert [index.search(query) for query in queries] == wanted
    assert index.search_many(queries) == wanted
