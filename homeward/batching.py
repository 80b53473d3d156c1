"""A bounded micro-batch queue: batches form behind the work in progress, a lone item never waits.

There is no timer. While one batch is being worked on, arrivals queue up; when it ends, all that
waits (up to `batch_max`) is the next batch. Items whose caller has gone are dropped unworked.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Generic, TypeAlias, TypeVar

from homeward.call_context import current_ids, working_for
from homeward.errors import HomewardError, Overloaded, Unavailable
from homeward.telemetry import Batched, Level, Reading, emit, watch

Item = TypeVar("Item")
Result = TypeVar("Result")

Results: TypeAlias = Sequence[Result | Exception]
_Batch: TypeAlias = list[tuple[Item, "asyncio.Future[Result]", str]]  # the last: for which calls


class MicroBatcher(Generic[Item, Result]):
    """Feeds `work` with batches, one at a time, on `executor` (never on the event loop).

    `work` gets 1..batch_max items and returns as many results in the same order; a result that is
    an exception is raised to its own caller alone. An exception out of `work` goes to the whole
    batch. More than `queue_max` waiting items raise `Overloaded`.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Item]], Results[Result]],
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
        self._waiting: deque[tuple[Item, asyncio.Future[Result], str]] = deque()
        self._runner: asyncio.Task[None] | None = None
        self._closed = False
        self._unwatch = watch(self._readings)

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
        self._waiting.append((item, future, current_ids()))
        if self._runner is None or self._runner.done():
            self._runner = asyncio.create_task(self._run(), name=f"batcher-{self._name}")
        return await future

    async def close(self) -> None:
        """Refuse new items and wait until those accepted are done."""
        self._closed = True
        self._unwatch()
        if self._runner is not None:
            await asyncio.gather(self._runner, return_exceptions=True)

    def _readings(self) -> Iterator[Reading]:
        yield Reading(Level.QUEUE, len(self._waiting), self._name)
        yield Reading(Level.QUEUE_LIMIT, self._queue_max, self._name)

    def _take(self) -> _Batch[Item, Result]:
        batch: _Batch[Item, Result] = []
        weight = 0
        while self._waiting and len(batch) < self._batch_max:
            item, future, ids = self._waiting[0]
            weight += self._weigh(item)
            if batch and self._weight_max is not None and weight > self._weight_max:
                break
            self._waiting.popleft()
            if not future.done():
                batch.append((item, future, ids))
        return batch

    async def _run(self) -> None:
        while batch := self._take():
            await self._begin(batch)

    async def _begin(self, batch: _Batch[Item, Result]) -> None:
        """Work on a batch; returns when the next one may be formed."""
        await self._finish(batch, self._work, [item for item, _, _ in batch])

    async def _finish(
        self, batch: _Batch[Item, Result], work: Callable[..., Results[Result]], *given: object
    ) -> None:
        results: Results[Result]
        started = time.perf_counter()
        outcome, reason = "OK", ""
        ids = [each for _, _, each in batch]

        def in_thread() -> Results[Result]:
            with working_for(ids):
                return work(*given)

        try:
            results = await asyncio.get_running_loop().run_in_executor(self._executor, in_thread)
        except Exception as error:  # noqa: BLE001 - handed to every caller of the batch
            results = [error] * len(batch)
            outcome = "FAILED"
            reason = str(error.code) if isinstance(error, HomewardError) else "INTERNAL"
        spent = time.perf_counter() - started
        with working_for(ids):
            emit(
                Batched(
                    f"{self._name} batch", outcome, spent, reason=reason, queue=self._name, items=len(batch)
                )
            )
        for (_, future, _), result in zip(batch, results, strict=True):
            if future.done():
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)


class StagedBatcher(MicroBatcher[Item, Result]):
    """As `MicroBatcher`, for work whose end needs something else than its beginning: `work(items, go_on)`
    calls `go_on`, from any thread, when the next batch may be formed and worked on beside it.

    At most `lanes` batches are worked on at a time; `executor` has as many threads.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Item], Callable[[], None]], Results[Result]],
        *,
        lanes: int,
        executor: Executor,
        batch_max: int,
        queue_max: int,
        name: str,
        weigh: Callable[[Item], int] = lambda _: 1,
        weight_max: int | None = None,
    ) -> None:
        super().__init__(
            lambda items: work(items, lambda: None),
            executor=executor,
            batch_max=batch_max,
            queue_max=queue_max,
            name=name,
            weigh=weigh,
            weight_max=weight_max,
        )
        self._staged = work
        self._lanes = lanes
        self._ending: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """See `MicroBatcher`."""
        await super().close()
        await asyncio.gather(*self._ending, return_exceptions=True)

    async def _begin(self, batch: _Batch[Item, Result]) -> None:
        loop = asyncio.get_running_loop()
        may_go_on: asyncio.Future[None] = loop.create_future()

        def go_on() -> None:
            if not may_go_on.done():
                may_go_on.set_result(None)

        items = [item for item, _, _ in batch]
        told = partial(loop.call_soon_threadsafe, go_on)
        ending = asyncio.create_task(self._finish(batch, self._staged, items, told), name="batch-ending")
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)
        await asyncio.wait({may_go_on, ending}, return_when=asyncio.FIRST_COMPLETED)
        while len(self._ending) >= self._lanes:
            done, _ = await asyncio.wait(self._ending, return_when=asyncio.FIRST_COMPLETED)
            self._ending -= done
