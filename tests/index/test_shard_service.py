"""The port of a shard: the same answers as in process, the token, limits, and bytes that are no message."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Sequence
from random import Random
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from homeward.errors import (
    HomewardError,
    InvalidInput,
    NotSupported,
    Overloaded,
    TemplateInvalid,
    Unavailable,
)
from homeward.internal_port import bearer
from homeward.status import error_from_rpc
from homeward.types import Query
from homeward.v1 import shard_pb2
from index.columns import Bool, from_rows
from index.merge import Partial
from index.placement import SLOTS
from index.rows_rpc import read_rows, write_pushed, write_rows
from index.shard_client import Asked, ShardClient
from index.shard_map import PlacedShard
from index.shard_rpc import write_query, write_slots
from index.shard_service import REQUEST_MAX_BYTES, serving
from index.shard_types import Pushed
from tests.index.random_rows import DIMENSION, World, as_values, hex_id
from tests.index.served_shard import MODEL, ServedShard, until

TOKEN = SecretStr("a token of the tests")
ALL = np.ones(SLOTS, np.bool_)
METHODS = ("SearchSlots", "GetRows", "Push", "GetShardStatus")


def filled(seed: int) -> tuple[ServedShard, World]:
    world = World(Random(seed), records=30, faces=90)
    served = ServedShard("a")
    served.hold(ALL, from_rows(world.distinct_rows(90), DIMENSION))
    return served, world


def client_of(
    address: str, *, token: SecretStr | None = TOKEN, model_id: str = MODEL, in_flight_max: int = 8
) -> ShardClient:
    return ShardClient(
        PlacedShard("a", "n", 1.0, address, "a-1"),
        token,
        model_id=model_id,
        dimension=DIMENSION,
        in_flight_max=in_flight_max,
        back_off_s=0.1,
    )


async def test_answers_are_those_of_the_shard() -> None:
    served, world = filled(1)
    async with serving(served, "127.0.0.1:0", TOKEN) as address:
        client = client_of(address)
        for _ in range(30):
            queries = [world.query() for _ in range(3)]
            slots = np.random.default_rng(world.chance.randrange(99)).random(SLOTS) < 0.7
            found, rev = await client.search(Asked.of(queries, 0), slots, 5)
            wanted, _ = served.shard.parts(queries, slots)
            assert list(found) == wanted
            assert rev == 1
        record = hex_id("record", 3)
        rows = await client.rows(record, 5)
        assert list(map(as_values, rows.face_rows())) == list(
            map(as_values, served.shard.record_rows(record).face_rows())
        )
        assert len(await client.rows(hex_id("record", 99), 5)) == 0
        assert await client.push([Pushed(record, 7, rows, (hex_id("face", 1),))], 9, 5) == 9
        ((pushed,), rev) = served.pushed[0]
        assert (pushed.record_id, pushed.rev, pushed.removed_faces, rev) == (
            record,
            7,
            (hex_id("face", 1),),
            9,
        )
        status = await client.status()
        assert (status.name, status.rows, status.rev, status.model_id) == ("a", served.shard.rows, 9, MODEL)
        assert status.held.all()
        await client.close()


async def test_errors_arrive_with_their_type_and_code() -> None:
    served, world = filled(2)
    query = world.query()
    async with serving(served, "127.0.0.1:0", TOKEN) as address:
        client = client_of(address)

        async def refused(queries: Sequence[Query] = (query,), *, min_rev: int = 0) -> HomewardError:
            with pytest.raises(HomewardError) as error:
                await client.search(Asked.of(queries, min_rev), ALL, 5)
            return error.value

        for reason in ("SHARD_STALE", "SHARD_FENCED"):
            served.refuses = reason
            error = await refused()
            assert isinstance(error, Unavailable)
            assert error.code == reason
        served.refuses = "BROKEN"
        assert (await refused()).code == "INTERNAL"
        served.refuses = ""
        assert (await refused(min_rev=5)).code == "REV_NOT_REACHED"
        assert (await refused(min_rev=-1)).code == "MESSAGE_INVALID"
        served.held = ~ALL
        assert (await refused()).code == "SLOTS_NOT_HELD"
        served.held = ALL
        assert isinstance(await refused([Query(np.ones((1, DIMENSION), np.float32), k=1)]), TemplateInvalid)
        assert isinstance(await refused([Query(world.pool()[:1], k=1 << 30)]), InvalidInput)
        assert is_up(client)  # it answered, whatever it said
        other = client_of(address, model_id="test/2")
        with pytest.raises(Unavailable) as differs:
            await other.rows(hex_id("record", 1), 5)
        assert differs.value.code == "MODEL_DIFFERS"
        await other.close()
        await client.close()


async def test_a_shard_that_says_too_low_a_rev_is_not_believed() -> None:
    served, world = filled(3)

    async def search(queries: Sequence[Query], slots: Bool, min_rev: int) -> tuple[Sequence[Partial], int]:
        return served.shard.parts(queries, slots)

    served.search = search  # type: ignore[method-assign]
    async with serving(served, "127.0.0.1:0", TOKEN) as address:
        client = client_of(address)
        with pytest.raises(Unavailable) as refused:
            await client.search(Asked.of([world.query()], 2), ALL, 5)
        assert refused.value.code == "REV_NOT_REACHED"
        await client.close()


@pytest.mark.parametrize("shown", [None, SecretStr("another token"), SecretStr("")])
async def test_a_wrong_token_is_refused(shown: SecretStr | None) -> None:
    served, _ = filled(4)
    async with (
        serving(served, "127.0.0.1:0", TOKEN) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        for method in METHODS:
            call: Any = channel.unary_unary(f"/homeward.v1.ShardService/{method}")
            with pytest.raises(grpc.aio.AioRpcError, match="HOMEWARD_INDEX__TOKEN") as refused:
                await call(b"", metadata=bearer(shown))
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert not served.asked


async def test_a_port_off_loopback_wants_a_token() -> None:
    served, world = filled(5)
    with pytest.raises(InvalidInput, match="HOMEWARD_INDEX__TOKEN") as refused:
        async with serving(served, "0.0.0.0:0", None):
            pass
    assert refused.value.code == "TOKEN_REQUIRED"
    async with serving(served, "127.0.0.1:0", None) as address:
        client = client_of(address, token=None)
        await client.search(Asked.of([world.query()], 0), ALL, 5)
        with pytest.raises(Unavailable) as taken:
            async with serving(served, address, None):
                pass
        assert taken.value.code == "ADDRESS_IN_USE"
        await client.close()


async def test_a_message_that_is_too_large_is_refused() -> None:
    served, world = filled(6)
    async with serving(served, "127.0.0.1:0", TOKEN) as address:
        client = client_of(address)
        many = Query(np.repeat(world.pool()[:1], REQUEST_MAX_BYTES // 32 + 1, axis=0), k=1)
        with pytest.raises(InvalidInput) as refused:
            await client.search(Asked.of([many], 0), ALL, 30)
        assert refused.value.code == "MESSAGE_TOO_LARGE"
        await client.search(Asked.of([world.query()], 0), ALL, 5)
        await client.close()


async def test_more_than_may_be_in_flight_is_refused() -> None:
    served, world = filled(7)
    served.open.clear()
    async with serving(served, "127.0.0.1:0", TOKEN) as address:
        client = client_of(address, in_flight_max=2)
        asked = Asked.of([world.query()], 0)
        waiting = [asyncio.create_task(client.search(asked, ALL, 5)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await client.search(asked, ALL, 5)
        served.open.set()
        await asyncio.gather(*waiting)
        await client.search(asked, ALL, 5)
        await client.close()


async def test_a_cancelled_search_ends_at_the_shard() -> None:
    served, world = filled(8)
    served.open.clear()
    async with serving(served, "127.0.0.1:0", TOKEN) as address:
        client = client_of(address)
        search = asyncio.create_task(client.search(Asked.of([world.query()], 0), ALL, 5))
        await until(lambda: bool(served.asked))
        search.cancel()
        with pytest.raises(asyncio.CancelledError):
            await search
        await until(lambda: served.cancelled == 1)
        assert is_up(client)
        await client.close()
        with pytest.raises(Unavailable):  # and not as if this test had been cancelled
            await client.search(Asked.of([world.query()], 0), ALL, 5)


async def test_a_shard_that_is_not_there_is_left_alone_until_it_answers() -> None:
    served, world = filled(9)
    async with serving(served, "127.0.0.1:0", TOKEN) as address:
        client = client_of(address)
        await client.status()
    with pytest.raises(Unavailable) as refused:
        await client.search(Asked.of([world.query()], 0), ALL, 2)
    assert refused.value.code == "SHARD_UNREACHABLE"
    assert not is_up(client)
    await asyncio.sleep(0.15)
    assert client.is_probe_due
    async with serving(served, address, TOKEN):
        for _ in range(100):
            with contextlib.suppress(HomewardError):
                await client.status()
                break
            await asyncio.sleep(0.05)
        assert is_up(client)
        served.open.clear()
        with pytest.raises(HomewardError) as late:
            await client.push((), 5, 0.1)
        assert late.value.code == "DEADLINE_EXCEEDED"
        assert is_up(client)  # a push waits for the change log
        with pytest.raises(HomewardError):
            await client.search(Asked.of([world.query()], 0), ALL, 0.1)
        assert not is_up(client)
    await client.close()


def is_up(client: ShardClient) -> bool:
    return client.up


class _Background:
    """A shard in a thread of its own, for tests that hypothesis calls many times."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._main(),))

    def __enter__(self) -> str:
        self._thread.start()
        assert self._ready.wait(30)
        return self._address

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _main(self) -> None:
        served, _ = filled(self._seed)
        async with serving(served, "127.0.0.1:0", TOKEN) as self._address:
            self._ready.set()
            await self._stop.wait()


def test_any_bytes_get_an_answer_or_a_typed_error() -> None:
    world = World(Random(10), records=30, faces=90)
    columns = from_rows(world.rows(2), DIMENSION)
    pushed = Pushed(hex_id("record", 3), 1, columns.take(slice(0, 0)), (hex_id("face", 1),))
    valid = {
        "SearchSlots": shard_pb2.SearchSlotsRequest(
            queries=[write_query(world.query()) for _ in range(2)], slots=write_slots(ALL), model_id=MODEL
        ),
        "GetRows": shard_pb2.GetRowsRequest(record_id=bytes.fromhex(hex_id("record", 3))),
        "Push": shard_pb2.PushRequest(
            records=[write_pushed(pushed), shard_pb2.PushedRecord(rows=write_rows(columns))], rev=2
        ),
        "GetShardStatus": shard_pb2.GetShardStatusRequest(),
    }
    assert read_rows(valid["Push"].records[1].rows).dimension == DIMENSION  # type: ignore[attr-defined]
    with _Background(10) as address, grpc.insecure_channel(address) as channel:

        @settings(max_examples=300, deadline=None)
        @given(data=st.data(), method=st.sampled_from(METHODS))
        def check(data: st.DataObject, method: str) -> None:
            raw = bytearray(valid[method].SerializeToString())
            for _ in range(data.draw(st.integers(0, 3)) if raw else 0):
                at = data.draw(st.integers(0, len(raw) - 1))
                raw[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
            call: Any = channel.unary_unary(f"/homeward.v1.ShardService/{method}")
            sent = bytes(raw) if raw else data.draw(st.binary(max_size=50))
            with contextlib.suppress(InvalidInput, Unavailable):
                try:
                    call(sent, timeout=10, metadata=bearer(TOKEN))
                except grpc.RpcError as error:
                    raise error_from_rpc(error) from error

        check()


def test_numbers_at_their_limits_get_an_answer_or_a_typed_error() -> None:
    """Filters and facts with any 64-bit number: a shard takes what a message can hold."""
    world = World(Random(11), records=30, faces=90)
    numbers = st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3)
    spans = st.none() | st.builds(shard_pb2.DayRange, first=numbers, last=numbers)
    codes = st.lists(numbers, max_size=3)
    with _Background(11) as address, grpc.insecure_channel(address) as channel:
        call: Any = channel.unary_unary("/homeward.v1.ShardService/SearchSlots")

        @settings(max_examples=200, deadline=None)
        @given(
            k=st.integers(1, 1 << 20) | numbers,
            evidence=st.integers(0, 1 << 20) | numbers,
            wanted=st.builds(
                shard_pb2.ShardFilter,
                galleries=codes,
                agencies=codes,
                sexes=codes,
                places=codes,
                born=spans,
                event=spans,
                strict=st.booleans(),
            ),
            facts=st.builds(
                shard_pb2.ShardFacts,
                sex=numbers,
                born=spans,
                taken=spans,
                age_from=st.none() | st.floats(),
                age_to=st.none() | st.floats(),
            ),
            min_score=st.none() | st.floats(),
        )
        def check(
            k: int,
            evidence: int,
            wanted: shard_pb2.ShardFilter,
            facts: shard_pb2.ShardFacts,
            min_score: float | None,
        ) -> None:
            query = write_query(Query(world.pool()[:2], k=1))
            query.k, query.evidence = k, evidence
            query.filter.CopyFrom(wanted)
            query.facts.CopyFrom(facts)
            if min_score is not None:
                query.min_score = min_score
            request = shard_pb2.SearchSlotsRequest(queries=[query])
            with contextlib.suppress(InvalidInput):
                try:
                    call(request.SerializeToString(), timeout=10, metadata=bearer(TOKEN))
                except grpc.RpcError as error:
                    raise error_from_rpc(error) from error

        check()


async def test_a_method_that_there_is_not_is_told_so() -> None:
    served, _ = filled(12)
    async with (
        serving(served, "127.0.0.1:0", TOKEN) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        call: Any = channel.unary_unary("/homeward.v1.ShardService/Nothing")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(b"", metadata=bearer(TOKEN))
        assert isinstance(error_from_rpc(refused.value), NotSupported)
