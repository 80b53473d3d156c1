"""Searches, commits and deletions over shards, while shards come, go, lag and die."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from homeward.errors import StoreUnavailable
from homeward.types import Query
from homeward.v1 import search_pb2
from index import reference
from index.columns import concatenate
from tests.cluster.children import Client, enrolling, serving
from tests.cluster.fakes import DIMENSION, fake_photo, fake_template
from tests.cluster.serving import CASE
from tests.cluster.sharded import Farm, opening_sharded

CHILDREN = [f"child {number}" for number in range(24)]


@asynccontextmanager
async def sharded(tmp_path: Path, shards: int = 3) -> AsyncIterator[tuple[Farm, Client]]:
    """A server over shards that hold their slots, with the children enrolled."""
    farms: list[Farm] = []
    async with serving(tmp_path, open_parts=opening_sharded(farms, shards)) as (_, client):
        (farm,) = farms
        await farm.placed(min(2, shards))
        await asyncio.gather(*(client.enrol(enrolling(name, [fake_photo(name)])) for name in CHILDREN))
        yield farm, client


async def check(farm: Farm, client: Client, method: str = "exact") -> None:
    """Answers equal the reference over the gallery, and say how they were found."""
    everything = concatenate(list(farm.parts.gallery.iterate()), DIMENSION)
    for name in CHILDREN[::5]:
        template = fake_template(fake_photo(name), 0)
        answer = await client.search.Search(
            search_pb2.SearchRequest(
                context=CASE,
                template=search_pb2.Template(
                    values=template.tolist(), model_id=farm.parts.embedding.model_id
                ),
                limit=7,
            )
        )
        wanted = reference.search(Query(template[None], 7), everything)
        found = [(one.record_id, one.comparison_score) for one in answer.lists[0].candidates]
        assert found == [(one.record_id, one.score) for one in wanted.candidates]
        assert answer.account.records == wanted.records_searched
        assert answer.account.method == method


async def test_shards_answer_as_one_index_does(tmp_path: Path) -> None:
    async with sharded(tmp_path) as (farm, client):
        await check(farm, client)
        held = [shard.index.rows for shard in farm.shards.values()]
        assert sum(held) == 2 * len(CHILDREN)


async def test_a_lost_shard_costs_no_answer_and_its_slots_move(tmp_path: Path) -> None:
    async with sharded(tmp_path) as (farm, client):
        await farm.stop("shard-1")
        await check(farm, client)
        await farm.placed(among={"shard-0", "shard-2"})
        await check(farm, client)
        await farm.start("shard-1")
        await farm.placed(among={"shard-0", "shard-1", "shard-2"})
        await check(farm, client)


async def test_without_any_shard_milvus_answers_and_the_answer_says_so(tmp_path: Path) -> None:
    async with sharded(tmp_path) as (farm, client):
        for name in list(farm.shards):
            await farm.stop(name)
        await check(farm, client, method="milvus")
        answer = await client.enrol(enrolling("late", [fake_photo("late")]))
        assert answer.record.record_id in await client.found(fake_photo("late"))


async def test_shards_join_and_leave_while_searches_go_on(tmp_path: Path) -> None:
    async with sharded(tmp_path, shards=2) as (farm, client):
        done = asyncio.Event()

        async def search() -> int:
            count = 0
            while not done.is_set():
                await check(farm, client)
                count += 1
            return count

        searching = asyncio.create_task(search())
        await farm.start("shard-2")
        await farm.start("shard-3")
        await farm.placed(among={f"shard-{number}" for number in range(4)})
        for name in ("shard-2", "shard-3"):
            await asyncio.to_thread(farm.maps.set_leaving, name, True)
        await farm.placed(among={"shard-0", "shard-1"})
        await asyncio.wait_for(farm.left(2), 30)
        for name in farm.retired:
            await farm.stop(name)
        done.set()
        assert await searching > 2


async def test_a_deletion_waits_out_a_shard_that_cannot_hear_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sharded(tmp_path) as (farm, client):
        photo = fake_photo(CHILDREN[0])
        found = await client.found(photo)
        record = max(found, key=lambda one: found[one])
        for shard in farm.shards.values():  # cut off: neither pushes nor polls get through

            def cut_off(*_: object) -> int:
                raise StoreUnavailable("cut off")

            monkeypatch.setattr(shard.follower, "_catch_up", cut_off)
        await client.delete(record)
        for shard in farm.shards.values():
            assert len(shard.index.record_rows(record)) in (0, 1)  # some still hold the row, and refuse
        template = fake_template(photo, 0)
        lists = await asyncio.to_thread(farm.parts.live.search_batch, [Query(template[None], 5)])
        assert record not in {one.record_id for one in lists[0].candidates}
        assert lists[0].method == "milvus"
