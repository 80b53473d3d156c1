"""The scan of the same rows in this process, without a server: what a search over gRPC is compared with."""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from homeward.types import Float32, Query
from index.columns import Columns
from index.shard import Shard
from index.warm_up import compile_kernels

_WRITE_ROWS = 50_000


class Scan:
    """An index of the rows, and the time of its searches. Open while the context lasts."""

    def __init__(self, columns: Columns, templates: Float32, k: int, folder: Path | None) -> None:
        compile_kernels()
        self._queries = [Query(one[np.newaxis], k) for one in templates]
        self._shard = Shard(columns.dimension, folder=folder)
        for start in range(0, len(columns), _WRITE_ROWS):
            self._shard.apply(upserts=columns.take(slice(start, start + _WRITE_ROWS)))
        self._next = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Free the index."""
        self._shard.close()

    def seconds(self, budget_s: float, least: int = 5) -> list[float]:
        """Times of one search after the other, for so many seconds."""
        spent: list[float] = []
        end = time.perf_counter() + budget_s
        while (started := time.perf_counter()) < end or len(spent) < least:
            self._shard.search_many([self._queries[self._next % len(self._queries)]])
            spent.append(time.perf_counter() - started)
            self._next += 1
        return spent
