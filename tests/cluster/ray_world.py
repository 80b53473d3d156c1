"""An index on a real Ray cluster over real stores, and the router of a process that never joins Ray."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psutil
from pydantic import SecretStr

from cluster.compose import Parts
from cluster.live import ShardedIndex, milvus_fallback
from cluster.shard_maps import ShardMaps
from cluster.shard_process import IndexModel
from homeward.config import CatalogueSettings, GallerySettings, IndexSettings, Settings
from homeward.types import Query
from index import reference
from index.columns import Columns, from_rows, hex_ids, member
from index.router import Router
from index.shard_map import PlacedShard, ShardMap
from tests.cluster.fakes import DIMENSION, MODEL_ID
from tests.cluster.people import delete_from_catalogue, enrol, random_people
from tests.cluster.ray_driver import RayDriver, ray_driver
from tests.cluster.ray_nodes import RayCluster, RayNode
from tests.cluster.serving import opening

INDEX_MODEL = IndexModel(MODEL_ID, DIMENSION)
PLACED_S = 240.0  # a shard imports for seconds, and many more on a busy machine


@dataclass(slots=True)
class RayWorld:
    """The stores with what was enrolled, and the ways to the shards."""

    cluster: RayCluster
    driver: RayDriver
    parts: Parts
    router: Router
    live: ShardedIndex
    maps: ShardMaps
    states: list[Columns]  # what was enrolled, before and after each deletion
    certain: int = 0  # of the states the first that an answer begun now may show
    methods: Counter[str] = field(default_factory=Counter)  # of all searches so far

    async def scale(self, count: int) -> None:
        """Have so many shards."""
        assert len(await asyncio.to_thread(self.driver.scale, count)) == count

    async def placed(self, ready: int, *, among: Collection[str], without: Collection[str] = ()) -> ShardMap:
        """The map, once every slot has so many ready replicas, these shards alone have any, none of them a
        process of `without`, and the router knows it."""
        give_up = time.monotonic() + PLACED_S
        while time.monotonic() < give_up:
            found = await asyncio.to_thread(self.maps.read)
            if found is not None and found.epoch <= (await self.router.status()).epoch:
                holders = {name for names in found.ready for name in names}
                processes = {shard.incarnation for shard in found.shards}
                whole = all(len(names) == ready for names in found.ready) and not found.redundancy().missing
                if whole and holders == set(among) and processes.isdisjoint(without):
                    return found
            await asyncio.sleep(0.1)
        raise AssertionError(f"the shards did not get their slots; the map is {found}")

    async def entered(self, names: Collection[str]) -> None:
        """Wait until these shards alone are entered: others have left for good."""
        give_up = time.monotonic() + PLACED_S
        while {entry.name for entry in await asyncio.to_thread(self.maps.entries)} != set(names):
            assert time.monotonic() < give_up, "shards did not leave"
            await asyncio.sleep(0.1)

    async def check(self, seed: int, methods: Collection[str] = ("exact",)) -> None:
        """Answers are the reference's, and say how they were found, which must be one of `methods`."""
        first, columns = self.certain, self.states[-1]
        chosen = columns.template[seed % len(columns) :: 131][:4]
        queries = [Query(probe[None], 9) for probe in chosen]
        answers = await self.router.search_many(queries)
        possible = self.states[first:]
        for query, found in zip(queries, answers, strict=True):
            wanted = [reference.search(query, state) for state in possible]
            assert found.candidates in [one.candidates for one in wanted]
            assert (
                found.records_searched in [one.records_searched for one in wanted] or "milvus" in found.method
            )
            assert found.method in methods
            self.methods[found.method] += 1

    async def delete(self, number: int = 0) -> None:
        """Delete the record of some row; no answer that is begun after the return may show it."""
        columns = self.states[-1]
        record = hex_ids(columns.record)[number]
        self.states.append(columns.take(~member(columns.record, frozenset({record}))))
        await asyncio.to_thread(delete_from_catalogue, self.parts, record)
        await asyncio.to_thread(self.live.catch_up)
        self.certain = len(self.states) - 1

    def on(self, node: RayNode, shard_map: ShardMap | None) -> list[str]:
        """Incarnations of the shards that run on the node."""
        assert shard_map is not None
        pids = {process.pid for process in node.processes()}
        return [one.incarnation for one in shard_map.shards if process_at(one.address) in pids]

    def searching(self, methods: Collection[str] = ("exact",)) -> Searching:
        """Searches that go on, one after the other, until they are stopped."""
        return Searching(self, methods)


class Searching:
    """Searches in the background while the context lasts; at its end the first failure is raised."""

    def __init__(self, world: RayWorld, methods: Collection[str]) -> None:
        self.count = 0
        self._world = world
        self._methods = methods
        self._done = asyncio.Event()

    async def __aenter__(self) -> Searching:
        self._task = asyncio.create_task(self._search())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._done.set()
        await self._task

    async def _search(self) -> None:
        while not self._done.is_set():
            await self._world.check(self.count, self._methods)
            self.count += 1
            await asyncio.sleep(0.02)


def kill_process(shard: PlacedShard) -> None:
    """kill -9 of the process that listens at the shard's address."""
    os.kill(process_at(shard.address), signal.SIGKILL)


def process_at(address: str) -> int:
    """Id of the process that listens there. Raises `LookupError`."""
    port = int(address.rpartition(":")[2])
    for one in psutil.net_connections("tcp"):
        if one.laddr and one.status == psutil.CONN_LISTEN and one.laddr.port == port and one.pid is not None:
            return one.pid
    raise LookupError(f"nobody listens at {address}")


@asynccontextmanager
async def ray_world(
    cluster: RayCluster, folder: Path, catalogue: CatalogueSettings, gallery: GallerySettings, people: int
) -> AsyncIterator[RayWorld]:
    """Enrol random people in empty stores, and open the ways to a cluster that has no shards yet."""
    settings = Settings(
        data_dir=folder,
        catalogue=catalogue,
        gallery=gallery,
        index=IndexSettings(
            where="shards",
            token=SecretStr(secrets.token_hex(16)),
            folder=folder / "originals",
            shard_cpus=0.5,
            lost_s=3.0,
            threads=1,
        ),
    )
    async with AsyncExitStack() as stack:
        parts = await stack.enter_async_context(opening()(settings))
        rows, _ = await asyncio.to_thread(enrol, parts, random_people(people, 7))
        executor = stack.enter_context(ThreadPoolExecutor(8))
        router = Router(
            ShardMaps(parts.catalogue, MODEL_ID).read,
            partial(milvus_fallback, parts.gallery, parts.catalogue),
            model_id=MODEL_ID,
            dimension=DIMENSION,
            token=settings.index.token,
            executor=executor,
        )
        await router.open()
        stack.push_async_callback(router.close)
        yield RayWorld(
            cluster=cluster,
            driver=stack.enter_context(ray_driver(cluster, settings, INDEX_MODEL)),
            parts=parts,
            router=router,
            live=ShardedIndex(router, parts.catalogue, parts.rows, executor, settings.index.stale_s),
            maps=ShardMaps(parts.catalogue, MODEL_ID),
            states=[from_rows(rows, DIMENSION)],
        )
