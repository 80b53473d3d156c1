"""Searches that are sent when they are due, whether those before them are answered or not."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import grpc

from homeward.v1 import search_pb2
from homeward.v1.search_pb2_grpc import SearchServiceStub

if TYPE_CHECKING:
    from homeward.v1.search_pb2_grpc import SearchServiceAsyncStub


@dataclass(frozen=True, slots=True)
class Answer:
    """One search; monotonic seconds."""

    request: int  # which of the requests
    due: float  # when it was to be sent
    started: float
    ended: float
    response: search_pb2.SearchResponse | None  # None when it failed
    error: str = ""

    @property
    def seconds(self) -> float:
        """From when it was due: a server that stands still makes all that are due meanwhile late."""
        return self.ended - self.due


@asynccontextmanager
async def searching(
    channel: grpc.aio.Channel,
    requests: Sequence[search_pb2.SearchRequest],
    rate: float,
    timeout_s: float = 30.0,
) -> AsyncIterator[list[Answer]]:
    """Search, so many times a second and the requests in turns, while the context lasts. Yields the answers
    so far; at the end searches under way are waited for."""
    answers: list[Answer] = []
    task = asyncio.create_task(_search(channel, requests, rate, timeout_s, answers))
    try:
        yield answers
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        answers.sort(key=lambda one: one.due)


async def _search(
    channel: grpc.aio.Channel,
    requests: Sequence[search_pb2.SearchRequest],
    rate: float,
    timeout_s: float,
    answers: list[Answer],
) -> None:
    stub = cast("SearchServiceAsyncStub", SearchServiceStub(channel))
    running: set[asyncio.Task[None]] = set()

    async def ask(number: int, due: float) -> None:
        started = time.monotonic()
        response, error = None, ""
        try:
            response = await stub.Search(requests[number], timeout=timeout_s)
        except grpc.aio.AioRpcError as failed:
            error = f"{failed.code().name}: {failed.details()}"
        except Exception as failed:  # noqa: BLE001 - whatever it is, the search failed
            error = repr(failed)
        answers.append(Answer(number, due, started, time.monotonic(), response, error))

    begun = time.monotonic()
    try:
        for number in itertools.count():
            due = begun + number / rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            task = asyncio.create_task(ask(number % len(requests), due))
            running.add(task)
            task.add_done_callback(running.discard)
    finally:
        await asyncio.gather(*running, return_exceptions=True)
