"""A shard's or the controller's process, from opening the stores to closing them; Ray only starts it."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from catalogue.open import open_catalogue
from cluster.compose import open_index, snapshot_source
from cluster.follow import Follower
from cluster.gallery_rows import GalleryRows
from cluster.open_snapshots import open_snapshots
from cluster.shard_control import ShardControl
from cluster.shard_maps import ShardEntry, ShardMaps
from cluster.shard_node import ShardNode
from cluster.snapshot_writer import SnapshotWriter
from homeward.clock import SystemClock
from homeward.config import Settings
from homeward.errors import HomewardError
from homeward.observed import observed
from homeward.telemetry import watching
from index.open import open_gallery
from index.shard_service import serving
from index.warm_up import compile_kernels

_ENTRY_S = 2.0  # between looks at its own entry

# What a server commits it tells within this, as a rule; under load the gallery takes longer to answer.
_TOLD_S = 0.2

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class IndexModel:
    """Of whose templates an index is."""

    model_id: str
    dimension: int


@asynccontextmanager
async def serving_shard(
    settings: Settings, model: IndexModel, name: str, node: str, host: str
) -> AsyncIterator[ShardEntry]:
    """Open the stores, listen on a port of `host`, enter the shard; serve while the context lasts."""
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        stack.enter_context(observed(settings, name))
        store = stack.enter_context(ThreadPoolExecutor(2, thread_name_prefix="open"))
        catalogue = await loop.run_in_executor(store, open_catalogue, settings.catalogue, settings.data_dir)
        stack.callback(catalogue.close)
        gallery = await loop.run_in_executor(
            store, open_gallery, settings.gallery, settings.data_dir, model.model_id, model.dimension
        )
        stack.callback(gallery.close)
        await loop.run_in_executor(store, compile_kernels)
        index = open_index(settings, model.dimension)
        stack.callback(index.close)
        maps = ShardMaps(catalogue, model.model_id)
        rows = GalleryRows(catalogue, gallery, model.model_id, model.dimension)
        snapshots = await loop.run_in_executor(
            store, open_snapshots, settings, catalogue, model.model_id, model.dimension
        )
        source = snapshot_source(settings, snapshots)
        follower = Follower(catalogue, rows, index, source, told_s=_TOLD_S)
        incarnation = secrets.token_hex(8)
        shard = ShardNode(
            name=name,
            incarnation=incarnation,
            maps=maps,
            follower=follower,
            index=index,
            settings=settings,
        )
        if settings.index.snapshot_interval_s:
            shard.write_snapshots(
                SnapshotWriter(
                    snapshots,
                    index,
                    catalogue,
                    lambda: follower.held,
                    name,
                    model_id=model.model_id,
                    settings=settings.index,
                    clock=SystemClock(),
                    share=shard.first_slots,
                )
            )
        stack.enter_context(watching(shard.readings))
        shard.open()
        stack.push_async_callback(shard.close)
        address = await stack.enter_async_context(
            serving(shard, f"{host}:{settings.index.ports or 0}", settings.index.token)
        )
        entry = ShardEntry(name, node, settings.index.shard_weight, address, incarnation)
        await loop.run_in_executor(store, maps.enter, entry)
        staying = asyncio.create_task(_stay_entered(maps, entry, store), name="stay-entered")
        try:
            yield entry
        finally:
            staying.cancel()
            await asyncio.gather(staying, return_exceptions=True)


async def _stay_entered(maps: ShardMaps, entry: ShardEntry, executor: Executor) -> None:
    """Enter the shard again should its entry go, with that of a process before it or for a moment's silence:
    without one it would run for nobody. A newer process of the same shard stays as it entered itself."""

    def look() -> None:
        if all(one.name != entry.name for one in maps.entries()):
            maps.enter(entry)
            _logger.warning("%s was entered no more, and is again", entry.name)

    while True:
        await asyncio.sleep(_ENTRY_S)
        try:
            await asyncio.get_running_loop().run_in_executor(executor, look)
        except HomewardError as error:
            _logger.warning("%s: %s", entry.name, error.message)


@asynccontextmanager
async def controlling(
    settings: Settings, model: IndexModel, retire: Callable[[str], None]
) -> AsyncIterator[ShardControl]:
    """Write the shard map while the context lasts."""
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        stack.enter_context(observed(settings, "shard-controller"))
        store = stack.enter_context(ThreadPoolExecutor(2, thread_name_prefix="store"))
        catalogue = await loop.run_in_executor(store, open_catalogue, settings.catalogue, settings.data_dir)
        stack.callback(catalogue.close)
        control = ShardControl(
            ShardMaps(catalogue, model.model_id),
            settings,
            dimension=model.dimension,
            retire=retire,
            executor=store,
            clock=time.monotonic,
        )
        stack.push_async_callback(control.close)
        task = asyncio.create_task(control.run(), name="control")
        try:
            yield control
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
