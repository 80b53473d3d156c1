"""A bounded micro-batch queue: batches form behind the work in progress, a lone item never waits.

There is no timer. While one batch is being worked on, arrivals queue up; when it ends, all that
waits (up to `batch_max`) is the next batch. Items whose caller has gone are dropped unworked.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Generic, TypeVar

from homeward.errors import Overloaded, Unavailable

Item = TypeVar("Item")
Result = TypeVar("Result")


class MicroBatcher(Generic[Item, Result]):
    """Feeds `work` with batches, one at a time, on `executor` (never on the event loop).

    `work` gets 1..batch_max items and returns as many results in the same order; a result that is
    an exception is raised to its own caller alone. An exception out of `work` goes to the whole
    batch. More than `queue_max` waiting items raise `Overloaded`.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Item]], Sequence[Result | Exception]],
        *,
        executor: Executor,
        batch_max: int,
        queue_max: int,
        name: str,
        weigh: Callable[[Item], int] = lambda _: 1,
        weight_max: int | None = None,
    ) -> None:
        self._work = work
        self._executor = executor
        self._batch_max = batch_max
        self._queue_max = queue_max
        self._name = name
        self._weigh = weigh
        self._weight_max = weight_max
        self._waiting: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._runner: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def waiting(self) -> int:
        """How many items wait for their batch."""
        return len(self._waiting)

    async def submit(self, item: Item) -> Result:
        """Queue one item and wait for its result. Cancelling the caller drops the item."""
        if self._closed:
            raise Unavailable(f"{self._name} is shutting down; try another server")
        if len(self._waiting) >= self._queue_max:
            raise Overloaded(
                f"{self._name} has {self._queue_max} items waiting; try again shortly",
                queue=self._name,
            )
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._runner is None or self._runner.done():
            self._runner = asyncio.create_task(self._run(), name=f"batcher-{self._name}")
        return await future

    async def close(self) -> None:
        """Refuse new items and wait until those accepted are done."""
        self._closed = True
        if self._runner is not None:
            await asyncio.gather(self._runner, return_exceptions=True)

    def _take(self) -> list[tuple[Item, asyncio.Future[Result]]]:
        batch: list[tuple[Item, asyncio.Future[Result]]] = []
        weight = 0
        while self._waiting and len(batch) < self._batch_max:
            item, future = self._waiting[0]
            weight += self._weigh(item)
            if batch and self._weight_max is not None and weight > self._weight_max:
                break
            self._waiting.popleft()
            if not future.done():
                batch.append((item, future))
        return batch

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while batch := self._take():
            items = [item for item, _ in batch]
            results: Sequence[Result | Exception]
            try:
                results = await loop.run_in_executor(self._executor, self._work, items)
            except Exception as error:  # noqa: BLE001 - handed to every caller of the batch
                results = [error] * len(batch)
            for (_, future), result in zip(batch, results, strict=True):
                if future.done():
                    continue
                if isinstance(result, Exception):
                    future.set_exception(result)
                else:
                    future.set_result(result)
