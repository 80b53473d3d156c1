"""The server as a whole, over real sockets: TLS, health, reflection, limits, draining, hostile bytes."""

from __future__ import annotations

import asyncio
import random
import stat
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

import cluster.server
from cluster.compose import Parts
from cluster.rpc.status import error_from_rpc
from cluster.server import SERVICES, RunningServer, running_server
from cluster.startup import load_index
from homeward.config import ServerSettings, Settings
from homeward.errors import Unavailable
from homeward.v1 import records_pb2, search_pb2
from tests.cluster.bare_server import by_template, health, refusal, serving
from tests.cluster.clients import raw_stream, raw_unary, search_stub
from tests.cluster.fakes import FakeEmbedding, fake_photo
from tests.cluster.serving import CASE, opening

MIB = 1024 * 1024
SEARCH = "/homeward.v1.SearchService/Search"
COMPARE = "/homeward.v1.SearchService/Compare"
STREAM = "/homeward.v1.SearchService/SearchStream"


def by_photo(photo: bytes) -> search_pb2.SearchRequest:
    return search_pb2.SearchRequest(context=CASE, photo=photo)


async def test_the_port_that_was_given_is_reported(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, grpc.aio.insecure_channel(server.address) as channel:
        assert not server.address.endswith(":0")
        answer = await search_stub(channel).Search(by_template())
        assert answer.account.method == "exact"


async def test_a_health_port_in_use_is_told_before_anything_serves(tmp_path: Path) -> None:
    async with serving(tmp_path / "one", health_address="127.0.0.1:0") as server:
        with pytest.raises(Unavailable) as refused:
            async with serving(tmp_path / "two", health_address=server.health_address):
                pass
    assert refused.value.code == "ADDRESS_IN_USE"
    assert server.health_address in refused.value.message


async def test_an_old_connection_is_made_anew_and_no_call_is_lost(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, max_connection_age_s=0.2) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        states = [channel.get_state(try_to_connect=True)]

        async def watch() -> None:
            while True:
                await channel.wait_for_state_change(states[-1])
                states.append(channel.get_state())

        watching = asyncio.create_task(watch())
        for _ in range(12):
            assert (await search_stub(channel).Search(by_template(), timeout=10)).search_id
            await asyncio.sleep(0.05)
        watching.cancel()
        assert states.count(grpc.ChannelConnectivity.READY) > 1, states


async def test_a_unix_socket_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    async with serving(tmp_path / "data", address=f"unix:{path}") as server:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        async with grpc.aio.insecure_channel(server.address) as channel:
            assert (await search_stub(channel).Search(by_template())).search_id


async def test_health_and_reflection(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, grpc.aio.insecure_channel(server.address) as channel:
        for service in ("", *SERVICES):
            assert await health(channel, service) == health_pb2.HealthCheckResponse.SERVING
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        answer = await call.read()
        assert {one.name for one in answer.list_services_response.service} >= set(SERVICES)


async def test_reflection_can_be_off(tmp_path: Path) -> None:
    async with (
        serving(tmp_path, reflection=False) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        assert (await refusal(call.read())).code == "NOT_SUPPORTED"


async def test_searches_wait_for_the_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = asyncio.Event()

    async def gated(parts: Parts) -> None:
        await gate.wait()
        await load_index(parts)

    monkeypatch.setattr(cluster.server, "load_index", gated)
    settings = Settings(data_dir=tmp_path, server=ServerSettings(address=f"unix:{tmp_path}/socket"))

    async def run() -> None:
        async with running_server(settings, opening(enrols=False)) as server:
            started.set_result(server)
            await done.wait()

    started: asyncio.Future[RunningServer] = asyncio.get_running_loop().create_future()
    done = asyncio.Event()
    task = asyncio.create_task(run())
    async with grpc.aio.insecure_channel(settings.server.address) as channel:
        await asyncio.wait_for(channel.channel_ready(), 20)
        assert await health(channel) == health_pb2.HealthCheckResponse.NOT_SERVING
        assert (await refusal(search_stub(channel).Search(by_template()))).code == "INDEX_LOADING"
        gate.set()
        await asyncio.wait_for(started, 20)
        assert await health(channel) == health_pb2.HealthCheckResponse.SERVING
        assert (await search_stub(channel).Search(by_template())).search_id
    done.set()
    await task


async def test_a_drain_lets_running_calls_end_and_says_not_serving(tmp_path: Path) -> None:
    embedding = FakeEmbedding()
    embedding.gate = asyncio.Event()
    async with (
        serving(tmp_path, embedding) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        watch: Any = health_pb2_grpc.HealthStub(channel)
        statuses = watch.Watch(health_pb2.HealthCheckRequest())
        assert (await statuses.read()).status == health_pb2.HealthCheckResponse.SERVING
        running = asyncio.ensure_future(search_stub(channel).Search(by_photo(fake_photo("slow"))))
        await asyncio.sleep(0.1)
        draining = asyncio.create_task(server.drain(10))
        assert (await statuses.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        embedding.gate.set()
        assert (await running).search_id
        statuses.cancel()
        await draining


async def test_too_large_a_message_is_refused_and_the_connection_lives(tmp_path: Path) -> None:
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    async with (
        serving(tmp_path, max_message_bytes=32 * MIB) as server,
        grpc.aio.insecure_channel(server.address, options=options) as channel,
    ):
        stub = search_stub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await stub.Search(by_photo(fake_photo("large") + bytes(32 * MIB)))
        assert failed.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert error_from_rpc(failed.value).code == "MESSAGE_TOO_LARGE"
        assert (await stub.Search(by_photo(fake_photo("large") + bytes(31 * MIB)))).search_id


async def test_calls_beyond_the_limit_are_refused(tmp_path: Path) -> None:
    embedding = FakeEmbedding()
    embedding.gate = asyncio.Event()
    async with (
        serving(tmp_path, embedding, max_concurrent_calls=2) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        stub = search_stub(channel)
        calls = [asyncio.ensure_future(stub.Search(by_photo(fake_photo(str(n))))) for n in range(4)]
        done, _ = await asyncio.wait(calls, timeout=2)
        assert len(done) == 2
        for call in done:
            error = call.exception()
            assert isinstance(error, grpc.aio.AioRpcError)
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        embedding.gate.set()
        for call in calls:
            if call not in done:
                assert (await call).search_id


async def test_the_callers_deadline_ends_a_search(tmp_path: Path) -> None:
    embedding = FakeEmbedding()
    embedding.gate = asyncio.Event()
    async with (
        serving(tmp_path, embedding) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        stub = search_stub(channel)
        error = await refusal(stub.Search(by_photo(fake_photo("slow")), timeout=0.2))
        assert error.code == "DEADLINE_EXCEEDED"
        assert (await stub.Search(by_template())).search_id


def _hostile(seed: int, count: int) -> list[bytes]:
    """Noise, and valid requests with bytes flipped, cut out or doubled."""
    chance = random.Random(seed)
    valid = [
        by_template().SerializeToString(),
        by_photo(fake_photo("x", 2)).SerializeToString(),
        search_pb2.SearchRequest(
            context=CASE,
            record_id="0" * 32,
            filter=search_pb2.SearchFilter(
                galleries=["missing"], sexes=[records_pb2.SEX_FEMALE], strict=True
            ),
            min_comparison_score=0.5,
            evidence_limit=2,
            limit=5,
        ).SerializeToString(),
        search_pb2.CompareRequest(
            context=CASE, first=fake_photo("a"), second=fake_photo("b")
        ).SerializeToString(),
        search_pb2.SearchStreamRequest(client_id="1", search=by_template()).SerializeToString(),
    ]
    found = [b"", b"\xff" * 10]
    for _ in range(count):
        raw = bytearray(chance.choice(valid))
        for _ in range(chance.randrange(1, 6)):
            place = chance.randrange(len(raw))
            match chance.randrange(4):
                case 0:
                    raw[place] ^= 1 << chance.randrange(8)
                case 1:
                    del raw[place : place + chance.randrange(1, 9)]
                case 2:
                    raw[place:place] = raw[place : place + chance.randrange(1, 30)]
                case 3:
                    raw[place:place] = chance.randbytes(chance.randrange(1, 9))
            if not raw:
                raw = bytearray(b"\x00")
        found.append(bytes(raw))
    return found


async def outcome(call: Any) -> grpc.StatusCode:
    """The status of a unary call; that its details make an error of ours is checked."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        error_from_rpc(error)
        return error.code()
    return grpc.StatusCode.OK


async def outcomes(call: Any) -> set[int]:
    """The statuses of a stream of answers, and of the stream itself."""
    found: set[int] = set()
    try:
        while (answer := await call.read()) is not grpc.aio.EOF:
            found.add(search_pb2.SearchStreamResponse.FromString(answer).status.code)
    except grpc.aio.AioRpcError as error:
        found.add(error.code().value[0])
    return found


async def test_hostile_bytes_are_the_callers_mistake(tmp_path: Path) -> None:
    allowed = {
        grpc.StatusCode.OK,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.UNAVAILABLE,  # a min_rev that does not exist
    }
    async with serving(tmp_path) as server, grpc.aio.insecure_channel(server.address) as channel:
        for number, raw in enumerate(_hostile(seed=3, count=600)):
            method = (SEARCH, COMPARE)[number % 2]
            assert await outcome(raw_unary(channel, method)(raw, timeout=10)) in allowed, raw.hex()
        for raw in _hostile(seed=4, count=100):
            codes = await outcomes(raw_stream(channel, STREAM)(iter([raw]), timeout=10))
            assert codes <= {code.value[0] for code in allowed}, raw.hex()
        assert (await search_stub(channel).Search(by_template())).search_id


async def test_metrics_are_served_when_asked_for(tmp_path: Path, unused_tcp_port: int) -> None:
    async with (
        serving(tmp_path, metrics_address=f"127.0.0.1:{unused_tcp_port}") as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        await search_stub(channel).Search(by_template())
        reader, writer = await asyncio.open_connection("127.0.0.1", unused_tcp_port)
        writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
        page = (await reader.read()).decode()
        writer.close()
    said = 'homeward_operation_seconds_count{operation="search scan",outcome="OK",process="server"} 1.0'
    assert said in page
