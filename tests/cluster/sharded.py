"""A Homeward whose index lies on shards, all in one process: real ports, real following, the fake model."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial

from cluster.compose import Parts
from cluster.follow import Follower
from cluster.live import milvus_fallback
from cluster.server import OpenParts
from cluster.shard_control import ShardControl
from cluster.shard_maps import ShardEntry, ShardMaps
from cluster.shard_node import ShardNode
from homeward.config import IndexSettings, Settings
from index.router import Router
from index.router_types import RouterSettings
from index.shard import Shard
from index.shard_map import ShardMap
from index.shard_service import serving
from tests.cluster.serving import opening

INDEX = IndexSettings(where="shards", replicas=2, poll_s=0.05, stale_s=1.0, lost_s=2.0)


@dataclass(slots=True)
class Running:
    """One shard."""

    node: ShardNode
    index: Shard
    follower: Follower
    stack: AsyncExitStack


@dataclass(slots=True)
class Farm:
    """The shards around one server's stores."""

    parts: Parts
    maps: ShardMaps
    control: ShardControl
    retired: list[str] = field(default_factory=list)
    shards: dict[str, Running] = field(default_factory=dict)

    async def start(self, name: str, machine: str = "") -> None:
        """Start a shard's process, or start it again."""
        parts = self.parts
        stack = AsyncExitStack()
        index = Shard(parts.embedding.dimension, threads=1)
        stack.callback(index.close)
        follower = Follower(parts.catalogue, parts.rows, index)
        incarnation = secrets.token_hex(4)
        node = ShardNode(
            name=name,
            incarnation=incarnation,
            maps=ShardMaps(parts.catalogue, parts.embedding.model_id),
            follower=follower,
            index=index,
            settings=parts.settings,
        )
        node.open()
        stack.push_async_callback(node.close)
        address = await stack.enter_async_context(serving(node, "127.0.0.1:0", None))
        entry = ShardEntry(name, machine or f"node-{name}", 1.0, address, incarnation)
        await asyncio.to_thread(self.maps.enter, entry)
        self.shards[name] = Running(node, index, follower, stack)

    async def stop(self, name: str) -> None:
        """End a shard's process."""
        await self.shards.pop(name).stack.aclose()

    async def left(self, count: int) -> None:
        """Wait until so many shards have left for good."""
        while len(self.retired) < count:  # noqa: ASYNC110 - another thread appends
            await asyncio.sleep(0.05)

    async def placed(
        self, ready: int = 2, *, among: set[str] | None = None, wait_s: float = 60.0
    ) -> ShardMap:
        """The map, once every slot has so many ready replicas (and these shards alone have any), and the
        server knows it."""
        give_up = time.monotonic() + wait_s
        while time.monotonic() < give_up:
            found = await asyncio.to_thread(self.maps.read)
            ready_ones = {name for names in found.ready for name in names} if found else set()
            whole = found is not None and all(len(names) >= ready for names in found.ready)
            if found is not None and whole and among in (None, ready_ones):
                router = self.parts.router
                assert router is not None
                if (await router.status()).epoch >= found.epoch:
                    return found
            await asyncio.sleep(0.05)
        raise AssertionError("the shards did not get their slots")


def opening_sharded(farms: list[Farm], shards: int = 3, index: IndexSettings = INDEX) -> OpenParts:
    """As `opening`, with an index on shards; the farm is appended to `farms`."""

    @asynccontextmanager
    async def open_parts(settings: Settings) -> AsyncIterator[Parts]:
        settings = settings.model_copy(update={"index": index})
        async with AsyncExitStack() as stack:
            plain = await stack.enter_async_context(opening()(settings))
            executor = stack.enter_context(ThreadPoolExecutor(8))
            model = plain.embedding
            router = Router(
                ShardMaps(plain.catalogue, model.model_id).read,
                partial(milvus_fallback, plain.gallery, plain.catalogue),
                model_id=model.model_id,
                dimension=model.dimension,
                token=None,
                executor=executor,
                settings=RouterSettings(refresh_s=0.05, hedge_s=0.2, back_off_s=0.2),
            )
            await router.open()
            stack.push_async_callback(router.close)
            parts = replace(plain, router=router)
            retired: list[str] = []
            maps = ShardMaps(plain.catalogue, model.model_id)
            control = ShardControl(
                maps,
                settings,
                dimension=model.dimension,
                retire=retired.append,
                executor=executor,
                clock=time.monotonic,
            )
            stack.push_async_callback(control.close)
            task = asyncio.create_task(control.run())
            farm = Farm(parts, ShardMaps(plain.catalogue, model.model_id), control, retired)
            farms.append(farm)
            try:
                for number in range(shards):
                    await farm.start(f"shard-{number}")
                yield parts
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                for name in list(farm.shards):
                    await farm.stop(name)

    return open_parts
