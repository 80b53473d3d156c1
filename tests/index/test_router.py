"""The router against the reference over all rows, whatever happens to the shards meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from pydantic import SecretStr

from homeward.errors import Corrupt, InvalidInput, Overloaded, StoreUnavailable, Unavailable
from homeward.telemetry import Operation, sinks
from homeward.types import CandidateList, Query
from index import reference
from index.columns import Bool, Columns, from_rows
from index.merge import Partial
from index.placement import SLOTS, SlotLists, place, slot_of, slots_by_shard, slots_of
from index.router import Router
from index.router_types import EXACT, MILVUS, MIXED, RouterSettings
from index.shard_map import PlacedShard, ShardMap
from index.shard_service import serving
from index.shard_types import Pushed
from tests.index.random_rows import DIMENSION, World, as_values, hex_id
from tests.index.served_shard import MODEL, ServedShard, until

TOKEN = SecretStr("a token of the tests")
QUICK = RouterSettings(refresh_s=0.02, hedge_s=0.1, shard_timeout_s=2.0, back_off_s=0.1)
NOT_HEDGED = replace(QUICK, hedge_s=60.0)


class Cluster:
    """Shards on loopback, the map that lists them, and a gallery that answers for Milvus."""

    def __init__(self, seed: int, count: int, replicas: int) -> None:
        self.world = World(Random(seed), records=90, faces=300, templates=30)
        self.rows = from_rows(self.world.distinct_rows(300), DIMENSION)
        self.replicas = replicas
        self.shards = {name: ServedShard(name) for name in [f"s{number}" for number in range(count)]}
        self.addresses: dict[str, str] = {}
        self.epoch = 0
        self.map: ShardMap | None = None
        self.map_reads = 0
        self.fallbacks: list[Bool] = []
        self.fallback_rev = 1
        self.store_fails = False
        self.running: dict[str, AsyncExitStack] = {}

    async def start(self, name: str) -> None:
        stack = AsyncExitStack()
        self.addresses[name] = await stack.enter_async_context(
            serving(self.shards[name], "127.0.0.1:0", TOKEN)
        )
        self.running[name] = stack

    async def stop(self, name: str) -> None:
        await self.running.pop(name).aclose()

    async def close(self) -> None:
        for name in list(self.running):
            self.shards[name].open.set()
            await self.stop(name)

    def place(self, wanted: SlotLists | None = None) -> None:
        """A new map in which all shards hold what is wanted of them."""
        placed = tuple(self.placed(name) for name in sorted(self.shards))
        lists = place([shard.info for shard in placed], self.replicas) if wanted is None else wanted
        for name, mask in slots_by_shard(lists).items():
            self.shards[name].hold(mask | self.shards[name].held, self.rows)
        self.publish(placed, lists)

    def publish(self, placed: tuple[PlacedShard, ...], lists: SlotLists) -> None:
        self.epoch += 1
        self.map = ShardMap(self.epoch, MODEL, self.replicas, placed, lists, lists)

    def placed(self, name: str) -> PlacedShard:
        return PlacedShard(
            name, f"node-{name}", 1.0, self.addresses.get(name, "127.0.0.1:1"), self.shards[name].incarnation
        )

    def read_map(self) -> ShardMap | None:
        self.map_reads += 1
        return self.map

    def fall_back(self, queries: Sequence[Query], slots: Bool) -> list[tuple[Partial, int]]:
        if self.store_fails:
            raise StoreUnavailable("no Milvus", store="gallery")
        self.fallbacks.append(slots)
        rows = self.rows.take(slots[slots_of(self.rows.record)])
        return [(reference.partial(query, rows), self.fallback_rev) for query in queries]

    def wanted(self, queries: Sequence[Query], method: str, rev: int = 1) -> list[CandidateList]:
        return [replace(reference.search(query, self.rows, rev=rev), method=method) for query in queries]

    def asked_once(self) -> bool:
        """Whether each slot was asked of one shard or of Milvus since the last look."""
        masks = [mask for shard in self.shards.values() for mask in shard.asked] + self.fallbacks
        self.forget()
        return bool((np.sum(masks, axis=0) == 1).all())

    def forget(self) -> None:
        self.fallbacks.clear()
        for shard in self.shards.values():
            shard.asked.clear()

    def queries(self, count: int = 4) -> list[Query]:
        return [self.world.query() for _ in range(count)]


@asynccontextmanager
async def cluster(seed: int = 1, count: int = 4, replicas: int = 2) -> AsyncIterator[Cluster]:
    made = Cluster(seed, count, replicas)
    try:
        for name in made.shards:
            await made.start(name)
        made.place()
        yield made
    finally:
        await made.close()


@asynccontextmanager
async def routed(
    made: Cluster, settings: RouterSettings = QUICK, token: SecretStr = TOKEN
) -> AsyncIterator[Router]:
    with ThreadPoolExecutor(2) as pool:
        router = Router(
            made.read_map,
            made.fall_back,
            model_id=MODEL,
            dimension=DIMENSION,
            token=token,
            executor=pool,
            settings=settings,
        )
        await router.open()
        try:
            yield router
        finally:
            await router.close()


async def check(made: Cluster, router: Router, method: str, times: int = 5, count: int = 4) -> None:
    """Answers are the reference's, and are marked so."""
    for _ in range(times):
        queries = made.queries(count)
        assert await router.search_many(queries) == made.wanted(queries, method)


@pytest.fixture(autouse=True, scope="module")
def _compiled() -> None:
    """The first scan of a process takes longer than any hedge."""
    world = World(Random(0))
    shard = ServedShard("warm").shard
    shard.upsert(world.distinct_rows(20))
    shard.parts([world.query() for _ in range(20)])


@pytest.mark.parametrize(("count", "replicas"), [(1, 1), (3, 1), (4, 2), (3, 3)])
async def test_answers_are_those_of_one_index(count: int, replicas: int) -> None:
    async with cluster(count, count, replicas) as made, routed(made) as router:
        for _ in range(100):
            await check(made, router, EXACT, times=1, count=1)
            assert made.asked_once()
        assert await router.search_many([]) == []


async def test_a_dead_shard_is_replaced_by_others_and_used_again_when_it_is_back() -> None:
    async with cluster(2) as made, routed(made) as router:
        await check(made, router, EXACT, times=1)
        await made.stop("s1")
        await check(made, router, EXACT)
        made.forget()
        await check(made, router, EXACT, times=1, count=1)
        assert made.asked_once()  # it is left alone
        await made.start("s1")
        made.place()
        async with asyncio.timeout(10):
            while not made.shards["s1"].asked:
                await check(made, router, EXACT, times=1)


async def test_a_dead_shard_at_the_same_address_is_probed_and_used_again() -> None:
    async with cluster(3) as made, routed(made) as router:
        placed = made.addresses["s2"]
        await made.stop("s2")
        await check(made, router, EXACT)
        made.forget()
        stack = AsyncExitStack()
        async with stack:
            await stack.enter_async_context(serving(made.shards["s2"], placed, TOKEN))
            async with asyncio.timeout(10):
                while not made.shards["s2"].asked:
                    await check(made, router, EXACT, times=1)
                    await asyncio.sleep(0.02)


@pytest.mark.parametrize("reason", ["SHARD_STALE", "SHARD_FENCED", "BROKEN"])
async def test_a_shard_that_refuses_is_replaced_by_others(reason: str) -> None:
    async with cluster(4) as made, routed(made) as router:
        made.shards["s0"].refuses = reason
        await check(made, router, EXACT)
        made.shards["s3"].refuses = reason
        await check(made, router, MIXED)
        assert all(mask.any() for mask in made.fallbacks)
        made.shards["s0"].refuses = made.shards["s3"].refuses = ""
        await check(made, router, EXACT)


async def test_milvus_answers_alone_when_there_is_no_shard() -> None:
    async with cluster(5, count=3) as made:
        for name in list(made.shards):
            await made.stop(name)
        async with routed(made) as router:
            await check(made, router, MILVUS)
            made.forget()
            await check(made, router, MILVUS, times=1, count=1)
            assert made.asked_once()
        made.map = None
        async with routed(made) as router:
            await check(made, router, MILVUS)
            made.store_fails = True
            with pytest.raises(StoreUnavailable):
                await router.search_many(made.queries())


async def test_without_replicas_milvus_answers_for_the_slots_of_a_dead_shard() -> None:
    async with cluster(6, count=3, replicas=1) as made, routed(made) as router:
        await made.stop("s1")
        await check(made, router, MIXED)
        made.forget()
        await check(made, router, MIXED, times=1, count=1)
        assert made.asked_once()
        made.store_fails = True
        with pytest.raises(StoreUnavailable):  # never an answer from part of the gallery
            await router.search_many(made.queries())


async def test_the_least_rev_of_all_that_answered_is_told() -> None:
    async with cluster(7, count=3, replicas=1) as made, routed(made) as router:
        for number, shard in enumerate(made.shards.values()):
            shard.shard.advance(10 + number)
        queries = made.queries()
        assert await router.search_many(queries) == made.wanted(queries, EXACT, rev=10)
        await made.stop("s0")
        made.fallback_rev = 4
        assert await router.search_many(queries) == made.wanted(queries, MIXED, rev=4)


async def test_a_slow_shard_is_overtaken_by_its_replicas() -> None:
    events: list[Operation] = []
    async with cluster(8) as made, routed(made) as router:
        made.shards["s1"].open.clear()
        started = asyncio.get_running_loop().time()
        with sinks(events.append):
            await check(made, router, EXACT, times=3)
        assert asyncio.get_running_loop().time() - started < 3 * QUICK.shard_timeout_s / 2
        await until(lambda: made.shards["s1"].cancelled == 3)
        assert [event.outcome for event in events if event.name == "shard hedge"] == ["OK"] * 3
        assert not made.fallbacks


async def test_a_slow_shard_that_answers_first_after_all_counts() -> None:
    async with cluster(9) as made, routed(made) as router:
        for shard in made.shards.values():
            shard.open.clear()
        queries = made.queries()
        search = asyncio.create_task(router.search_many(queries))
        await until(lambda: sum(map(len, (shard.asked for shard in made.shards.values()))) > 4)
        for shard in made.shards.values():
            shard.open.set()
        assert await search == made.wanted(queries, EXACT)


async def test_hedges_are_bounded() -> None:
    async with cluster(10) as made, routed(made, replace(QUICK, hedges_max=0)) as router:
        made.shards["s1"].open.clear()
        search = asyncio.create_task(router.search_many(made.queries()))
        await asyncio.sleep(3 * QUICK.hedge_s)
        assert not search.done()
        made.shards["s1"].open.set()
        await search


async def test_a_silent_shard_is_given_up_after_its_time() -> None:
    settings = replace(NOT_HEDGED, shard_timeout_s=0.3)
    async with cluster(11) as made, routed(made, settings) as router:
        made.shards["s1"].open.clear()
        await check(made, router, EXACT, times=2)
    async with cluster(11, replicas=1) as made, routed(made, settings) as router:
        made.shards["s1"].open.clear()
        await check(made, router, MIXED, times=2)


async def test_slots_that_have_moved_are_found_by_a_newer_map() -> None:
    """Without replicas, and with a map that would not be read again for an hour by itself."""
    async with (
        cluster(12, count=3, replicas=1) as made,
        routed(made, replace(QUICK, refresh_s=3600.0)) as router,
    ):
        for shift in range(1, 4):
            await check(made, router, EXACT, times=2)
            assert made.map is not None
            names = [f"s{(slot + shift) % 3}" for slot in range(SLOTS)]
            lists = tuple((name,) for name in names)
            for name in made.shards:  # the old holders let go at once
                made.shards[name].hold(np.array(names) == name, made.rows)
            made.place(lists)
            await check(made, router, EXACT, times=2)
        assert not made.fallbacks


async def test_an_older_map_and_one_of_another_model_are_not_used() -> None:
    async with cluster(13) as made, routed(made) as router:
        assert made.map is not None
        newest = made.map
        for wrong in (
            replace(newest, epoch=0, shards=(), ready=((),) * SLOTS),
            replace(newest, epoch=99, model_id="test/2"),
            None,
        ):
            made.map = wrong
            reads = made.map_reads
            await until(lambda reads=reads: made.map_reads > reads + 1)  # type: ignore[misc]
            await check(made, router, EXACT, times=1)
        made.map = replace(newest, epoch=98, ready=((),) * SLOTS)
        await until(lambda: made.map_reads > 0)
        async with asyncio.timeout(5):
            while (await router.search_many(made.queries(1)))[0].method != MILVUS:
                pass


async def test_a_map_that_cannot_be_read_leaves_the_old_one_in_use() -> None:
    async with cluster(14) as made:
        read = made.read_map

        def sometimes() -> ShardMap | None:
            found = read()
            if made.map_reads % 2 == 0:
                raise Corrupt("no map") if made.map_reads % 4 else OSError("gone")
            return found

        made.read_map = sometimes  # type: ignore[method-assign]
        async with routed(made) as router:
            await until(lambda: made.map_reads > 6)
            await check(made, router, EXACT)


async def test_a_rev_that_some_replica_has_reached_is_found() -> None:
    async with cluster(15) as made, routed(made) as router:
        for name in ("s0", "s1", "s2"):
            made.shards[name].shard.advance(5)
        queries = made.queries()
        assert await router.search_many(queries, min_rev=5) == made.wanted(queries, EXACT, rev=5)


@pytest.mark.parametrize("dead", [False, True])
async def test_a_rev_that_no_live_replica_has_reached_is_an_error(dead: bool) -> None:
    async with cluster(16) as made, routed(made) as router:
        for name in ("s0", "s1"):
            made.shards[name].shard.advance(5)
        if dead:
            for name in ("s0", "s1"):
                made.shards[name].refuses = "SHARD_STALE"
        made.fallback_rev = 5
        with pytest.raises(Unavailable) as refused:
            await router.search_many(made.queries(), min_rev=5)
        assert refused.value.code == "REV_NOT_REACHED"
        made.map = None


async def test_milvus_must_have_reached_the_rev_too() -> None:
    async with cluster(17) as made:
        made.map = None
        async with routed(made) as router:
            with pytest.raises(Unavailable) as refused:
                await router.search_many(made.queries(), min_rev=2)
            assert refused.value.code == "REV_NOT_REACHED"


async def test_more_than_may_be_in_flight_is_refused_and_not_given_to_milvus() -> None:
    async with cluster(18) as made, routed(made, replace(NOT_HEDGED, in_flight_max=2)) as router:
        for shard in made.shards.values():
            shard.open.clear()
        waiting = [asyncio.create_task(router.search_many(made.queries(1))) for _ in range(2)]
        await until(lambda: all(len(shard.asked) == 2 for shard in made.shards.values()))
        with pytest.raises(Overloaded):
            await router.search_many(made.queries(1))
        for shard in made.shards.values():
            shard.open.set()
        await asyncio.gather(*waiting)
        await check(made, router, EXACT)
        assert not made.fallbacks


async def test_a_shard_that_lies_is_not_believed() -> None:
    """It answers for all it holds, whatever it is asked: records of replicas would stand there twice."""
    async with cluster(19) as made, routed(made) as router:
        made.shards["s2"].lies = True
        everything = Query(made.world.pool()[:3], k=1000)
        assert await router.search_many([everything]) == made.wanted([everything], EXACT)


async def test_a_shard_of_another_model_or_token_is_not_asked() -> None:
    async with cluster(20) as made:
        made.shards["s1"].model_id = "test/2"
        async with routed(made) as router:
            await check(made, router, EXACT)
            assert not made.shards["s1"].asked
        async with routed(made, token=SecretStr("another")) as router:
            await check(made, router, MILVUS)


async def test_a_query_that_makes_no_sense_is_refused_and_costs_no_shard() -> None:
    async with cluster(21) as made, routed(made) as router:
        query = made.world.query()
        for wrong in (replace(query, k=0), replace(query, templates=query.templates * np.float32(1.1))):
            with pytest.raises(InvalidInput):
                await router.search_many([query, wrong])
        with pytest.raises(InvalidInput):
            await router.search_many([replace(query, k=1 << 30)])
        await check(made, router, EXACT, times=1)
        assert not made.fallbacks


async def test_answers_too_large_for_one_message_are_asked_for_in_turn() -> None:
    async with cluster(22) as made, routed(made) as router:
        queries = [replace(query, k=200_000, evidence=3) for query in made.queries(5)]
        assert await router.search_many(queries) == made.wanted(queries, EXACT)
        assert len(made.shards["s0"].asked) == 5


async def test_a_cancelled_search_asks_nobody_any_more() -> None:
    async with cluster(23) as made, routed(made, replace(QUICK, hedge_s=0.02)) as router:
        for shard in made.shards.values():
            shard.open.clear()
        search = asyncio.create_task(router.search_many(made.queries()))
        await until(lambda: sum(map(len, (shard.asked for shard in made.shards.values()))) > 6)
        search.cancel()
        with pytest.raises(asyncio.CancelledError):
            await search
        await until(lambda: all(shard.cancelled == len(shard.asked) for shard in made.shards.values()))


async def test_every_answer_is_right_while_everything_changes() -> None:
    # On a slow machine a search follows so many moves that it alone has many calls under way.
    settings = replace(
        QUICK, hedge_s=0.05, shard_timeout_s=0.2, back_off_s=0.05, fallbacks_max=2, in_flight_max=1024
    )
    async with cluster(24) as made, routed(made, settings) as router:
        changing = asyncio.create_task(_churn(made, Random(24)))
        try:
            for _ in range(40):
                queries = made.queries(2)
                found = await router.search_many(queries)
                assert [replace(one, method="") for one in found] == made.wanted(queries, "")
        finally:
            changing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await changing
        for name, shard in made.shards.items():
            shard.refuses = ""
            shard.open.set()
            if name not in made.running:
                await made.start(name)
        made.place()
        async with asyncio.timeout(10):
            while (await router.search_many(made.queries(1)))[0].method != EXACT:
                pass
        await check(made, router, EXACT)


async def _churn(made: Cluster, chance: Random) -> None:
    """Slots move, shards go stale, silent and away, and come back."""
    names = sorted(made.shards)
    away = ""
    while True:
        await asyncio.sleep(chance.random() * 0.05)
        shard = made.shards[chance.choice(names)]
        kind = chance.randrange(4)
        if kind == 0:
            shard.refuses = chance.choice(("SHARD_STALE", "", ""))
        elif kind == 1:
            if shard.open.is_set() and chance.random() < 0.5:
                shard.open.clear()
            else:
                shard.open.set()
        elif kind == 2:
            if away:
                made.shards[away].incarnation += "'"
                await made.start(away)
                away = ""
            else:
                away = shard.name
                shard.open.set()
                await made.stop(away)
        chosen = [name for name in names if name != away]
        lists = tuple(tuple(chance.sample(chosen, 2)) for _ in range(SLOTS))
        held = slots_by_shard(lists)
        for name in chosen:  # to be ready is to hold it; who has lost it refuses from now on
            made.shards[name].hold(held[name], made.rows)
        made.publish(tuple(made.placed(name) for name in chosen), lists)


async def test_a_records_rows_come_from_any_replica() -> None:
    async with cluster(25) as made, routed(made) as router:
        record = made.rows.take(slice(0, 1))
        record_id = next(record.face_rows()).record_id
        wanted = sorted(map(as_values, (row for row in made.rows.face_rows() if row.record_id == record_id)))
        assert made.map is not None
        first, second = made.map.ready[slot_of(record_id)]

        async def same() -> bool:
            return sorted(map(as_values, (await router.record_rows(record_id)).face_rows())) == wanted

        assert await same()
        assert len(await router.record_rows(hex_id("record", 12345))) == 0
        made.shards[first].refuses = "SHARD_STALE"
        assert await same()
        made.shards[first].refuses = ""
        made.shards[first].open.clear()
        assert await same()
        made.shards[second].refuses = "SHARD_FENCED"
        made.shards[first].open.set()
        assert await same()
        await made.stop(first)
        with pytest.raises(Unavailable) as refused:
            await router.record_rows(record_id)
        assert refused.value.code == "SLOT_UNCOVERED"
        with pytest.raises(InvalidInput):
            await router.record_rows("x")


def pushed_of(rows: Columns, number: int, rev: int) -> Pushed:
    row = rows.take(slice(number, number + 1))
    return Pushed(next(row.face_rows()).record_id, rev, row, ())


async def test_a_push_goes_to_who_holds_or_is_to_hold_the_slots() -> None:
    async with cluster(26) as made, routed(made, NOT_HEDGED) as router:
        assert made.map is not None
        one = pushed_of(made.rows, 0, 5)
        slot = slot_of(one.record_id)
        ready = list(made.map.ready)
        ready[slot] = ready[slot][1:]  # its first is yet to load it
        made.map = replace(made.map, epoch=50, ready=tuple(ready))
        reads = made.map_reads
        await until(lambda: made.map_reads > reads + 1)
        outcome = await router.push([one], 5, 2.0)
        assert outcome.reached == dict.fromkeys(sorted(made.map.wanted[slot]), 5)
        assert outcome.missed == {}
        for name, shard in made.shards.items():
            assert len(shard.pushed) == (name in outcome.reached)
        many = [pushed_of(made.rows, number, 6) for number in range(50)]
        outcome = await router.push(many, 7, 2.0)
        assert set(outcome.reached) == set(made.shards)
        lists = made.map.wanted
        for name, shard in made.shards.items():
            got, rev = shard.pushed[-1]
            assert rev == 7
            assert [each.record_id for each in got] == [
                each.record_id for each in many if name in lists[slot_of(each.record_id)]
            ]


async def test_a_push_tells_who_did_not_acknowledge() -> None:
    async with cluster(27) as made, routed(made, NOT_HEDGED) as router:
        made.shards["s0"].refuses = "LAGS"
        made.shards["s1"].open.clear()
        await made.stop("s2")
        outcome = await router.push((), 9, 0.5)
        assert outcome.reached == {"s3": 9}
        assert outcome.missed == {
            "s0": "REV_NOT_REACHED",
            "s1": "DEADLINE_EXCEEDED",
            "s2": "SHARD_UNREACHABLE",
        }
        made.shards["s1"].open.set()


async def test_whether_a_rev_is_reached_everywhere() -> None:
    async with cluster(28) as made, routed(made, NOT_HEDGED) as router:
        assert await router.reached(3, 2.0)
        made.shards["s0"].refuses = "LAGS"
        assert await router.reached(4, 2.0)  # others have it
        made.shards["s1"].open.clear()
        assert not await router.reached(5, 0.3)  # one of them holds slots alone with the other
        made.shards["s1"].open.set()
        made.shards["s0"].refuses = ""
        assert await router.reached(5, 2.0)
        made.shards["s1"].refuses = made.shards["s0"].refuses = "SHARD_STALE"
        assert await router.reached(6, 2.0)  # Milvus answers for what only these hold


async def test_operators_see_how_the_shards_are() -> None:
    async with cluster(29) as made, routed(made) as router:
        status = await router.status()
        assert (status.epoch, status.uncovered, status.under_replicated) == (1, 0, 0)
        assert [shard.name for shard in status.shards] == ["s0", "s1", "s2", "s3"]
        assert all(shard.up and shard.status is not None for shard in status.shards)
        assert sum(shard.ready_slots for shard in status.shards) == 2 * SLOTS
        await made.stop("s0")
        await made.stop("s3")
        status = await router.status()
        assert [shard.error for shard in status.shards] == ["SHARD_UNREACHABLE", "", "", "SHARD_UNREACHABLE"]
        assert 0 < status.uncovered < SLOTS
