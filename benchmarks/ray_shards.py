"""The index of given stores on shards of a real Ray cluster on loopback, one node for each."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from benchmarks.stores import Stores
from catalogue.open import open_catalogue
from cluster.shard_maps import ShardMaps
from cluster.shard_process import IndexModel
from homeward.config import IndexSettings, Settings
from index.shard_map import ShardMap
from tests.cluster.ray_driver import ray_driver
from tests.cluster.ray_nodes import RayCluster, ray_cluster

_LOADED_S = 1800.0


@dataclass(frozen=True, slots=True)
class Shards:
    """Shards that hold every slot."""

    count: int
    threads: int  # of each
    environment: dict[str, str]  # of the servers that ask them
    start_s: float  # the actors, once Ray runs
    load_s: float  # from then until every slot was held


@asynccontextmanager
async def running_shards(
    stores: Stores, model: IndexModel, folder: Path, count: int, replicas: int = 1
) -> AsyncIterator[Shards]:
    """Have the index on so many shards while the context lasts, each slot on `replicas` of them. A process
    of its own starts them: whoever searches never joins Ray."""
    threads = max(1, len(os.sched_getaffinity(0)) // count)  # all shards share this machine's cores
    token = secrets.token_hex(32)
    settings = Settings(
        data_dir=folder / "data",
        catalogue=stores.catalogue,
        gallery=stores.gallery,
        photos=stores.photos,
        index=IndexSettings(where="shards", token=SecretStr(token), replicas=replicas, threads=threads),
    )
    environment = {
        "HOMEWARD_INDEX__WHERE": "shards",
        "HOMEWARD_INDEX__TOKEN": token,
        "HOMEWARD_INDEX__REPLICAS": str(replicas),
    }
    with ray_cluster(workers=count - 1, cpus=1) as cluster:
        start_s, load_s = await asyncio.to_thread(_scale, cluster, settings, model, count)
        yield Shards(count, threads, environment, start_s, load_s)


def _scale(cluster: RayCluster, settings: Settings, model: IndexModel, count: int) -> tuple[float, float]:
    catalogue = open_catalogue(settings.catalogue, settings.data_dir)
    try:
        maps = ShardMaps(catalogue, model.model_id)
        for gone in maps.entries():  # of another run over the same stores
            maps.forget(gone.name)
        started = time.monotonic()
        with ray_driver(cluster, settings, model) as driver:
            driver.scale(count)
        there = time.monotonic()
        processes = {entry.incarnation for entry in maps.entries()}
        while not _hold_all(maps.read(), processes):
            if time.monotonic() > there + _LOADED_S:
                raise TimeoutError(f"the shards do not hold all slots within {_LOADED_S:.0f} s")
            time.sleep(0.2)
        return there - started, time.monotonic() - there
    finally:
        catalogue.close()


def _hold_all(found: ShardMap | None, processes: set[str]) -> bool:
    """Whether the map is of these processes, and says that they hold all that they are to hold."""
    return (
        found is not None
        and {shard.incarnation for shard in found.shards} == processes
        and not found.redundancy().missing
        and not found.redundancy().uncovered
    )
