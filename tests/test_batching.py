"""Batches form behind the work in progress; in stages, beside the end of the one before."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from homeward.batching import MicroBatcher, StagedBatcher
from homeward.errors import Overloaded, Unavailable

WAIT_S = 10.0


class Stages:
    """Work whose beginning and end the test lets go on."""

    def __init__(self) -> None:
        self.begun: list[list[int]] = []
        self.first = threading.Semaphore(0)  # lets a beginning end
        self.last = threading.Semaphore(0)  # lets an end end
        self.running = 0
        self.most = 0
        self._lock = threading.Lock()

    def work(self, items: Sequence[int], go_on: Callable[[], None]) -> list[int | Exception]:
        with self._lock:
            self.begun.append(list(items))
            self.running += 1
            self.most = max(self.most, self.running)
        assert self.first.acquire(timeout=WAIT_S)
        go_on()
        assert self.last.acquire(timeout=WAIT_S)
        with self._lock:
            self.running -= 1
        return [ValueError(str(item)) if item < 0 else 10 * item for item in items]


def staged(stages: Stages, executor: ThreadPoolExecutor, lanes: int = 2) -> StagedBatcher[int, int]:
    return StagedBatcher(stages.work, lanes=lanes, executor=executor, batch_max=8, queue_max=16, name="test")


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - threads change it
            await asyncio.sleep(0.001)


async def test_a_batch_begins_beside_the_end_of_the_one_before_and_not_beside_its_beginning() -> None:
    stages = Stages()
    with ThreadPoolExecutor(2) as executor:
        batcher = staged(stages, executor)
        first = asyncio.create_task(batcher.submit(1))
        await until(lambda: stages.begun == [[1]])
        others = [asyncio.create_task(batcher.submit(item)) for item in (2, 3)]
        await asyncio.sleep(0.05)
        assert stages.begun == [[1]]
        stages.first.release()
        await until(lambda: stages.begun == [[1], [2, 3]])  # they waited together
        third = asyncio.create_task(batcher.submit(4))
        stages.first.release()
        await asyncio.sleep(0.05)
        assert stages.begun == [[1], [2, 3]]  # two batches are worked on: no more
        stages.last.release(1)
        await until(lambda: len(stages.begun) == 3)
        stages.first.release()
        stages.last.release(2)
        assert [await first, *await asyncio.gather(*others), await third] == [10, 20, 30, 40]
        assert stages.most == 2


async def test_a_failed_item_and_a_failed_batch_cost_their_own_callers() -> None:
    stages = Stages()
    with ThreadPoolExecutor(2) as executor:
        batcher = staged(stages, executor)
        stages.first.release(2)
        stages.last.release(2)
        lone = batcher.submit(7)
        assert await lone == 70
        bad, good = asyncio.create_task(batcher.submit(-1)), asyncio.create_task(batcher.submit(1))
        assert await good == 10
        with pytest.raises(ValueError, match="-1"):
            await bad

        def fail(items: Sequence[int], go_on: Callable[[], None]) -> list[int]:
            raise KeyError("all")

        failing: StagedBatcher[int, int] = StagedBatcher(
            fail, lanes=1, executor=executor, batch_max=8, queue_max=16, name="test"
        )
        for one in await asyncio.gather(*map(failing.submit, range(3)), return_exceptions=True):
            assert isinstance(one, KeyError)
        with pytest.raises(KeyError):  # and the next batch is worked on
            await failing.submit(1)


async def test_closing_waits_for_the_ends_under_way_and_takes_no_more() -> None:
    stages = Stages()
    with ThreadPoolExecutor(2) as executor:
        batcher = staged(stages, executor)
        first = asyncio.create_task(batcher.submit(1))
        await until(lambda: bool(stages.begun))
        stages.first.release()
        closing = asyncio.create_task(batcher.close())
        await asyncio.sleep(0.05)
        assert not closing.done()
        with pytest.raises(Unavailable):
            await batcher.submit(2)
        stages.last.release()
        await closing
        assert await first == 10


async def test_callers_who_left_are_not_worked_for_and_too_many_are_refused() -> None:
    going = threading.Semaphore(0)
    seen: list[list[int]] = []

    def work(items: Sequence[int]) -> list[int]:
        seen.append(list(items))
        assert going.acquire(timeout=WAIT_S)
        return list(items)

    with ThreadPoolExecutor(1) as executor:
        batcher: MicroBatcher[int, int] = MicroBatcher(
            work, executor=executor, batch_max=8, queue_max=3, name="test"
        )
        first = asyncio.create_task(batcher.submit(0))
        await until(lambda: seen == [[0]])
        waiting = [asyncio.create_task(batcher.submit(item)) for item in (1, 2, 3)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await batcher.submit(4)
        waiting[1].cancel()
        await asyncio.sleep(0)
        going.release(2)
        assert [await first, await waiting[0], await waiting[2]] == [0, 1, 3]
        assert seen == [[0], [1, 3]]
