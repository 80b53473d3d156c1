"""A shard behind its port that can be made to refuse, to lie and to be late."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import numpy as np

from homeward.errors import Unavailable
from homeward.types import Query
from index.columns import Bool, Columns
from index.merge import Partial
from index.placement import SLOTS, slots_of
from index.shard import Shard
from index.shard_types import Pushed, ShardStatus
from tests.index.random_rows import DIMENSION

MODEL = "test/1"


class ServedShard:
    """`Served` around a real shard."""

    def __init__(self, name: str, *, dimension: int = DIMENSION, rev: int = 1) -> None:
        self.name = name
        self.shard = Shard(dimension, rev=rev, threads=1, block_rows=64)
        self.model_id = MODEL
        self.dimension = dimension
        self.incarnation = f"{name}-1"
        self.held = np.zeros(SLOTS, np.bool_)
        self.refuses = ""  # a reason
        self.open = asyncio.Event()  # searches wait for it
        self.open.set()
        self.asked: list[Bool] = []
        self.cancelled = 0
        self.pushed: list[tuple[Sequence[Pushed], int]] = []
        self.lies = False

    def hold(self, slots: Bool, rows: Columns) -> None:
        """Have exactly these slots of the rows."""
        self.shard.drop_slots(self.held & ~slots)
        fresh = slots & ~self.held
        self.shard.apply(upserts=rows.take(fresh[slots_of(rows.record)]))
        self.held = slots.copy()

    async def search(
        self, queries: Sequence[Query], slots: Bool, min_rev: int
    ) -> tuple[Sequence[Partial], int]:
        self.asked.append(slots)
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        self._check(slots)
        if min_rev > self.shard.rev:
            raise Unavailable("not there yet", code="REV_NOT_REACHED")
        return self.shard.parts(queries, None if self.lies else slots)

    async def rows(self, record_id: str) -> tuple[Columns, int]:
        await self.open.wait()
        slots = np.zeros(SLOTS, np.bool_)
        slots[int(record_id[:3], 16)] = True
        self._check(slots)
        return self.shard.record_rows(record_id), self.shard.rev

    async def push(self, pushed: Sequence[Pushed], rev: int) -> int:
        await self.open.wait()
        self._check(np.zeros(SLOTS, np.bool_))
        self.pushed.append((pushed, rev))
        if self.refuses != "LAGS":
            self.shard.advance(rev)
        return self.shard.rev

    def status(self) -> ShardStatus:
        return ShardStatus(
            self.name,
            self.incarnation,
            1,
            self.held,
            self.shard.rows,
            self.shard.records,
            self.shard.rev,
            0.125,
            self.model_id,
            self.dimension,
        )

    def _check(self, slots: Bool) -> None:
        if self.refuses == "BROKEN":
            raise RuntimeError("broken")
        if self.refuses and self.refuses != "LAGS":
            raise Unavailable("it must not answer", code=self.refuses)
        if (slots & ~self.held).any():
            raise Unavailable("not held", code="SLOTS_NOT_HELD")


async def until(is_so: Callable[[], bool]) -> None:
    """Wait until it is so, ten seconds at most."""
    async with asyncio.timeout(10):
        while not is_so():  # noqa: ASYNC110 - anything may be what is waited for
            await asyncio.sleep(0.01)
