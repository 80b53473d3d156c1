"""SearchService over a `Searcher`."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol, TypeAlias, TypeVar

import grpc
from google.rpc import status_pb2

from cluster.rpc.fields import SHORT_CHARS, text
from cluster.rpc.interceptors import seconds_left
from cluster.rpc.search_messages import read_context, read_search, write_answer, write_comparison, write_times
from cluster.rpc.status import code_of, status_of
from cluster.search_types import Comparison, SearchAnswer, SearchContext, SearchRequest
from homeward.call_context import CallContext, enter_item
from homeward.config import Settings
from homeward.errors import DeadlineExceeded, HomewardError, InvalidInput
from homeward.telemetry import CallEnded, emit
from homeward.v1 import search_pb2, search_pb2_grpc

Result = TypeVar("Result")

_TIMES_BYTES = 256  # that are added at last
REPLY_S = 0.25  # kept of the deadline for the search itself, when it waits for a rev

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"  # generic in the stubs alone


class Searches(Protocol):
    """A `Searcher`, or what chooses one for each call."""

    async def search(
        self, request: SearchRequest, wait_s: float, write: Callable[[SearchAnswer], Result]
    ) -> tuple[SearchAnswer, Result]: ...

    async def compare(
        self, context: SearchContext, photos: tuple[bytes, bytes], ordinals: tuple[int | None, int | None]
    ) -> Comparison: ...


class SearchServicer(search_pb2_grpc.SearchServiceServicer):
    """Candidate lists for people to review."""

    def __init__(self, settings: Settings, searcher: Searches) -> None:
        self._settings = settings
        self._searcher = searcher

    async def Search(self, request: search_pb2.SearchRequest, context: _Context) -> search_pb2.SearchResponse:
        """One probe."""
        return await self._search(request, context, seconds_left(context, self._deadline_s))

    async def SearchStream(
        self, requests: AsyncIterator[search_pb2.SearchStreamRequest], context: _Context
    ) -> AsyncIterator[search_pb2.SearchStreamResponse]:
        """Many probes, answered as they are ready; a bad one costs itself alone.

        At most `stream_in_flight` are worked on or wait for the client to take their answer.
        """
        free = asyncio.Semaphore(self._settings.search.stream_in_flight)
        answers: asyncio.Queue[search_pb2.SearchStreamResponse | Exception | None] = asyncio.Queue()
        running: set[asyncio.Task[None]] = set()

        async def answer(item: search_pb2.SearchStreamRequest, number: int) -> None:
            answers.put_nowait(await self._item(item, context, enter_item(number)))

        async def read() -> None:
            try:
                number = 0
                async for item in requests:
                    await free.acquire()
                    task = asyncio.create_task(answer(item, number))
                    number += 1
                    running.add(task)
                    task.add_done_callback(running.discard)
                await asyncio.gather(*running)
                answers.put_nowait(None)
            except Exception as error:  # noqa: BLE001 - raised below, to the stream's client
                answers.put_nowait(error)

        reader = asyncio.create_task(read())
        try:
            while (response := await answers.get()) is not None:
                if isinstance(response, Exception):
                    raise response
                yield response
                free.release()
        finally:
            for task in (reader, *running):
                task.cancel()

    async def Compare(
        self, request: search_pb2.CompareRequest, context: _Context
    ) -> search_pb2.CompareResponse:
        """Two photos."""
        made = await self._searcher.compare(
            read_context(request.context, *_caller(context)),
            (request.first, request.second),
            (
                request.first_ordinal if request.HasField("first_ordinal") else None,
                request.second_ordinal if request.HasField("second_ordinal") else None,
            ),
        )
        return write_comparison(made)

    @property
    def _deadline_s(self) -> float:
        return self._settings.server.deadline_s

    async def _search(
        self, request: search_pb2.SearchRequest, context: _Context, left_s: float
    ) -> search_pb2.SearchResponse:
        answer, message = await self._searcher.search(
            read_search(request, *_caller(context)), max(0.0, left_s - REPLY_S), self._written
        )
        write_times(answer, message)
        return message

    def _written(self, answer: SearchAnswer) -> search_pb2.SearchResponse:
        message = write_answer(answer)
        most = self._settings.server.max_message_bytes
        if message.ByteSize() + _TIMES_BYTES > most:
            raise InvalidInput(
                f"the answer has more than {most} bytes; ask for fewer candidates, less evidence or one face",
                code="ANSWER_TOO_LARGE",
                field="limit",
            )
        return message

    async def _item(
        self, item: search_pb2.SearchStreamRequest, context: _Context, call: CallContext
    ) -> search_pb2.SearchStreamResponse:
        started = time.perf_counter()
        status, reason, incident = status_pb2.Status(), "", ""
        found: search_pb2.SearchResponse | None = None
        try:
            text(item.client_id, "client_id")
            async with asyncio.timeout(self._deadline_s):
                found = await self._search(item.search, context, self._deadline_s)
        except TimeoutError:
            status, incident = status_of(DeadlineExceeded("the probe was not answered in time"))
        except Exception as error:  # noqa: BLE001 - one bad item never ends the stream
            status, incident = status_of(error)
            reason = str(error.code) if isinstance(error, HomewardError) else "INTERNAL"
        emit(
            CallEnded(
                "search item",
                code_of(status).name,
                time.perf_counter() - started,
                request_id=call.request_id,
                reason=reason,
                incident=incident,
                case=call.case,
                stages=call.stages,
            )
        )
        return search_pb2.SearchStreamResponse(
            client_id=item.client_id[:SHORT_CHARS], status=status, search=found
        )


def _caller(context: _Context) -> tuple[str, str]:
    """The name in the client's certificate, where it showed one, and its network address."""
    names = context.auth_context().get("x509_common_name", ())
    name = b"".join(list(names)[:1])
    with contextlib.suppress(UnicodeDecodeError):
        return name.decode(), context.peer()
    return name.hex(), context.peer()
