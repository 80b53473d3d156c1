"""What every call goes through, over a real socket with a servicer of the test's own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from prometheus_client import CollectorRegistry

from cluster.rpc.interceptors import CallInterceptor, seconds_left
from cluster.rpc.status import error_from_rpc
from homeward.call_context import REQUEST_ID_KEY, current_ids
from homeward.errors import DeadlineExceeded, HomewardError, InvalidInput, Overloaded
from homeward.logs import LogSink
from homeward.metrics import PrometheusSink
from homeward.telemetry import Operation, sinks
from homeward.v1 import search_pb2, search_pb2_grpc
from tests.cluster.clients import raw_stream, raw_unary, search_stub

SEARCH = "/homeward.v1.SearchService/Search"
STREAM = "/homeward.v1.SearchService/SearchStream"


class Servicer(search_pb2_grpc.SearchServiceServicer):
    """Does what the case reference says."""

    def __init__(self) -> None:
        self.cancelled = asyncio.Event()
        self.left: float | None = None

    async def Search(self, request: search_pb2.SearchRequest, context: Any) -> search_pb2.SearchResponse:
        self.left = seconds_left(context, 5.0)
        match request.context.case_reference:
            case "overloaded":
                raise Overloaded("try later", retry_after_s=2.0)
            case "bug":
                raise RuntimeError("secret")
            case "slow":
                try:
                    await asyncio.sleep(30)
                except asyncio.CancelledError:
                    self.cancelled.set()
                    raise
        return search_pb2.SearchResponse(search_id=current_ids())

    async def Compare(self, request: search_pb2.CompareRequest, context: Any) -> search_pb2.CompareResponse:
        return search_pb2.CompareResponse()

    async def SearchStream(
        self, requests: AsyncIterator[search_pb2.SearchStreamRequest], context: Any
    ) -> AsyncIterator[search_pb2.SearchStreamResponse]:
        async for item in requests:
            if item.client_id == "bug":
                raise RuntimeError("secret")
            yield search_pb2.SearchStreamResponse(client_id=item.client_id)


@asynccontextmanager
async def serving(deadline_s: float = 10.0) -> AsyncIterator[tuple[Servicer, grpc.aio.Channel]]:
    server = grpc.aio.server(interceptors=[CallInterceptor(deadline_s)])
    servicer = Servicer()
    search_pb2_grpc.add_SearchServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield servicer, channel
    finally:
        await server.stop(0)


def asking(case: str) -> search_pb2.SearchRequest:
    return search_pb2.SearchRequest(context=search_pb2.SearchContext(case_reference=case))


async def refusal(channel: grpc.aio.Channel, case: str, **options: Any) -> HomewardError:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await search_stub(channel).Search(asking(case), **options)
    return error_from_rpc(failed.value)


async def test_errors_arrive_as_what_they_were() -> None:
    async with serving() as (_, channel):
        error = await refusal(channel, "overloaded")
        assert isinstance(error, Overloaded)
        assert error.retry_after_s == 2.0
        error = await refusal(channel, "bug")
        assert "secret" not in error.message
        assert error.details["incident"] in error.message


async def test_bytes_that_are_no_message_are_the_callers_mistake() -> None:
    async with serving() as (_, channel):
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await raw_unary(channel, SEARCH)(b"\xff\xff\xff")
        error = error_from_rpc(failed.value)
        assert isinstance(error, InvalidInput)
        assert error.code == "MESSAGE_MALFORMED"
        call = raw_stream(channel, STREAM)(iter([b"\x0a\x01a", b"\xff\xff"]))
        assert search_pb2.SearchStreamResponse.FromString(await call.read()).client_id == "a"
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await call.read()
        assert failed.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_call_without_deadline_gets_the_servers() -> None:
    async with serving(deadline_s=0.1) as (servicer, channel):
        error = await refusal(channel, "slow")
        assert isinstance(error, DeadlineExceeded)
        assert servicer.cancelled.is_set()


async def test_the_callers_deadline_counts() -> None:
    async with serving(deadline_s=0.01) as (servicer, channel):
        error = await refusal(channel, "slow", timeout=0.3)
        assert isinstance(error, DeadlineExceeded)
        async with asyncio.timeout(5):
            await servicer.cancelled.wait()
        assert servicer.left is not None
        assert 0 < servicer.left <= 0.3


async def test_a_caller_that_leaves_stops_the_work() -> None:
    async with serving() as (servicer, channel):
        call = search_stub(channel).Search(asking("slow"))
        await asyncio.sleep(0.1)
        call.cancel()
        async with asyncio.timeout(5):
            await servicer.cancelled.wait()


@pytest.mark.parametrize("given", ["abc-1", "", "x" * 65, "a b"])
async def test_a_request_id_is_taken_or_made(given: str) -> None:
    async with serving() as (_, channel):
        call = search_stub(channel).Search(asking(""), metadata=((REQUEST_ID_KEY, given),))
        answer = await call
        trailing = dict(await call.trailing_metadata())
        assert answer.search_id == trailing[REQUEST_ID_KEY]
        assert (answer.search_id == given) == (given == "abc-1")
        assert answer.search_id


async def test_every_call_is_counted_and_logged_without_its_content(caplog: pytest.LogCaptureFixture) -> None:
    events: list[Operation] = []
    registry = CollectorRegistry()
    logger = logging.getLogger("test")
    with caplog.at_level(logging.INFO), sinks(events.append, LogSink(logger), PrometheusSink(registry)):
        async with serving() as (_, channel):
            stub = search_stub(channel)
            await stub.Search(asking("case of a child"))
            await refusal(channel, "overloaded")
            await refusal(channel, "bug")
            stream = stub.SearchStream(iter([search_pb2.SearchStreamRequest(client_id="bug")]))
            with pytest.raises(grpc.aio.AioRpcError):
                await stream.read()
    assert [(event.outcome, event.reason) for event in events] == [
        ("OK", ""),
        ("RESOURCE_EXHAUSTED", "OVERLOADED"),
        ("INTERNAL", "INTERNAL"),
        ("INTERNAL", "INTERNAL"),
    ]
    assert all(event.incident for event in events[2:])
    assert "case of a child" not in caplog.text
    assert "secret" not in caplog.text
    labels = {"operation": f"rpc {SEARCH}", "outcome": "OK"}
    assert registry.get_sample_value("homeward_operation_seconds_count", labels) == 1
