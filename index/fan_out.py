"""One search over all slots: each is asked of one shard, then of others, then of Milvus.

    route --> one leg per shard ----answers-----------------------------------> its part
                |   |    |
                |   |    +--silent for hedge_s: its slots go to other replicas as well, if those have
                |   |       all of them; the first whole answer counts
                |   +-------fails or refuses: its slots go to other replicas, by a newer map if it
                |           refused for its epoch
                +-- slots without a replica that can answer --> Milvus, or the reason why not

Every slot's rows are in exactly one of the parts that are merged, whatever fails on the way.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from homeward.errors import HomewardError, InvalidInput, Overloaded, Unavailable
from homeward.telemetry import Operation, emit
from index.columns import Bool
from index.merge import Partial
from index.shard_client import Asked, ShardClient
from index.shard_routes import ShardRoutes, whole

MOVED = frozenset({"SLOTS_NOT_HELD", "SHARD_FENCED", "MODEL_DIFFERS"})  # the shard map has changed
_NOT_REACHED = "REV_NOT_REACHED"
_MOVES = 32  # that one search follows

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Answer:
    """What some slots say."""

    parts: tuple[Partial, ...]  # one per query
    revs: tuple[int, ...]  # one per query
    by_milvus: bool = False


class Hedges:
    """How many searches may be asked twice at a time: when all shards are slow, asking twice makes them
    slower."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._running = 0

    def take(self) -> bool:
        """Whether there is one left; give it back with `give`."""
        if self._running >= self._most:
            return False
        self._running += 1
        return True

    def give(self) -> None:
        """It ended."""
        self._running -= 1


class FanOut:
    """One search. `fall_back` answers for slots (SLOTS,) that no shard can answer for."""

    def __init__(
        self,
        routes: ShardRoutes,
        asked: Asked,
        fall_back: Callable[[Asked, Bool], Awaitable[Answer]],
        hedges: Hedges,
        *,
        shard_timeout_s: float,
        hedge_s: float,
    ) -> None:
        self._routes = routes
        self._asked = asked
        self._fall_back = fall_back
        self._hedges = hedges
        self._shard_timeout_s = shard_timeout_s
        self._hedge_s = hedge_s
        self._left = ~whole()  # of which every shard has failed
        self._moves = 0

    async def answers(self) -> list[Answer]:
        """Answers that together speak for every slot once. Raises `InvalidInput` for queries that shards
        refuse; `Overloaded`, or `Unavailable` (REV_NOT_REACHED), when that is why no replica answers;
        and what `fall_back` raises."""
        left = self._routes.route()[1]
        work: list[Coroutine[Any, Any, list[Answer]]] = [self._answers(~left, frozenset(), None)]
        if left.any():
            work.append(self._by_milvus(left))
        found = [answer for some in await together(work) for answer in some]
        # Milvus is asked once for all that failed on the way.
        return [*found, *await self._by_milvus(self._left)] if self._left.any() else found

    async def _answers(
        self, slots: Bool, without: frozenset[str], why: HomewardError | None, *, hedging: bool = False
    ) -> list[Answer]:
        """Answers for these slots by shards not in `without`. Those that none holds are left to Milvus, if
        there is no `why` not to; a hedge leaves none."""
        route, left = self._routes.route(without)
        epoch = self._routes.map.epoch
        left = left & slots
        work: list[Coroutine[Any, Any, list[Answer]]] = []
        for name, mask in route.items():
            mine = mask & slots
            client = self._routes.client(name)
            if client is None:
                left |= mine
            elif mine.any():
                work.append(self._leg(client, mine, without, why, epoch, hedging=hedging))
        if left.any() and (why is not None or hedging):
            for each in work:
                each.close()
            raise why or Unavailable("no other replica holds these slots", code="SLOTS_NOT_HELD")
        self._left |= left
        return [answer for found in await together(work) for answer in found]

    async def _leg(
        self,
        client: ShardClient,
        slots: Bool,
        without: frozenset[str],
        why: HomewardError | None,
        epoch: int,
        *,
        hedging: bool,
    ) -> list[Answer]:
        """One shard's answer for slots that the map of `epoch` gives it, or what others answer instead."""
        others = without | {client.placed.name}
        first = asyncio.create_task(self._ask(client, slots))
        second: asyncio.Task[list[Answer]] | None = None
        try:
            await asyncio.wait({first}, timeout=self._hedge_s)
            if not first.done() and self._is_covered(slots, others) and self._hedges.take():
                try:
                    second = asyncio.create_task(self._answers(slots, others, None, hedging=True))
                    found = await self._sooner(first, second)
                finally:
                    self._hedges.give()
                if found is not None:
                    return found
            return await first
        except HomewardError as error:
            if isinstance(error, InvalidInput):
                raise
            # Milvus is no help to who asks too much, nor for what is not yet in the index.
            if isinstance(error, Overloaded) or error.code == _NOT_REACHED:
                why = error
            if error.code in MOVED:
                await self._routes.refresh(epoch)
                if self._routes.map.epoch > epoch and self._moves < _MOVES:
                    self._moves += 1
                    others = without  # by the newer map it may still hold some of them
            return await self._answers(slots, others, why, hedging=hedging)
        finally:
            await cancelled(first, second)

    async def _ask(self, client: ShardClient, slots: Bool) -> list[Answer]:
        parts, rev = await client.search(self._asked, slots, self._shard_timeout_s)
        return [Answer(parts, (rev,) * len(parts))]

    async def _by_milvus(self, slots: Bool) -> list[Answer]:
        return [await self._fall_back(self._asked, slots)]

    def _is_covered(self, slots: Bool, without: frozenset[str]) -> bool:
        return not (self._routes.route(without)[1] & slots).any()

    async def _sooner(
        self, first: asyncio.Task[list[Answer]], second: asyncio.Task[list[Answer]]
    ) -> list[Answer] | None:
        """The first answer of the two; None when both failed."""
        started = time.perf_counter()
        outcome = "CANCELLED"
        try:
            waiting = {first, second}
            while waiting:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                # Of two that are there the shard that was asked first counts.
                for task in sorted(done, key=lambda each: each is second):
                    error = task.exception()
                    if error is None:
                        outcome = "OK" if task is second else "CANCELLED"
                        return task.result()
                    if isinstance(error, InvalidInput) or not isinstance(error, HomewardError):
                        raise error
            outcome = "UNAVAILABLE"
            return None
        finally:
            emit(Operation("shard hedge", outcome, time.perf_counter() - started))


async def together(work: list[Coroutine[Any, Any, Result]]) -> list[Result]:
    """All results in order; the first failure cancels the others and is raised."""
    if len(work) == 1:
        return [await work[0]]
    tasks = [asyncio.create_task(each) for each in work]
    try:
        if tasks:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in tasks:
            if task.done():
                task.result()
        return [task.result() for task in tasks]
    finally:
        await cancelled(*tasks)


async def cancelled(*tasks: asyncio.Task[Any] | None) -> None:
    """End the tasks that still run, and hear out the failed ones."""
    some = [task for task in tasks if task is not None]
    for task in some:
        task.cancel()
    await asyncio.gather(*some, return_exceptions=True)
