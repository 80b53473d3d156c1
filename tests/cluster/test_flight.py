"""Concurrent calls about one thing are ordered, and one request id is one piece of work."""

from __future__ import annotations

import asyncio

import pytest

from cluster.flight import KeyedLocks, SingleFlight
from homeward.errors import NotFound, RequestIdReused


async def test_a_key_is_held_by_one_at_a_time_and_then_forgotten() -> None:
    locks = KeyedLocks()
    inside = 0
    seen: list[int] = []

    async def enter(key: str) -> None:
        nonlocal inside
        async with locks.hold(key):
            inside += 1
            seen.append(inside)
            await asyncio.sleep(0)
            inside -= 1

    await asyncio.gather(*(enter("a") for _ in range(20)))
    assert set(seen) == {1}
    assert len(locks) == 0


async def test_callers_that_want_the_same_keys_in_any_order_all_finish() -> None:
    locks = KeyedLocks()

    async def enter(keys: list[str]) -> None:
        async with locks.hold_all(keys):
            await asyncio.sleep(0)

    await asyncio.wait_for(
        asyncio.gather(*(enter(["a", "b"] if i % 2 else ["b", "a", "b"]) for i in range(20))), 10
    )
    assert len(locks) == 0


async def test_one_request_id_is_worked_on_once() -> None:
    flights: SingleFlight[int] = SingleFlight()
    calls = 0

    async def work() -> int:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0.01)
        return calls

    assert await asyncio.gather(*(flights.run("id", "digest", work) for _ in range(5))) == [1] * 5
    with pytest.raises(RequestIdReused):
        await asyncio.gather(flights.run("id", "one", work), flights.run("id", "two", work))
    await flights.drain()
    assert calls == 2


async def test_the_work_is_finished_when_its_first_caller_leaves() -> None:
    flights: SingleFlight[str] = SingleFlight()
    started, may_end = asyncio.Event(), asyncio.Event()

    async def work() -> str:
        started.set()
        await may_end.wait()
        return "done"

    first = asyncio.create_task(flights.run("id", "d", work))
    await started.wait()
    second = asyncio.create_task(flights.run("id", "d", work))
    await asyncio.sleep(0)
    first.cancel()
    may_end.set()
    assert await second == "done"


async def test_a_failure_reaches_every_caller_and_the_id_can_be_tried_again() -> None:
    flights: SingleFlight[int] = SingleFlight()

    async def fail() -> int:
        await asyncio.sleep(0)
        raise NotFound("no")

    answers = await asyncio.gather(*(flights.run("id", "d", fail) for _ in range(3)), return_exceptions=True)
    assert all(isinstance(answer, NotFound) for answer in answers)

    async def succeed() -> int:
        return 1

    assert await flights.run("id", "d", succeed) == 1
