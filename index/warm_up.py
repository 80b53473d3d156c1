"""Getting the compiled loops ready before the first search needs them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from homeward.types import Filter, ProbeFacts, Query
from index.columns import COLUMN_NAMES, empty, hex_ids
from index.shard import Shard


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
