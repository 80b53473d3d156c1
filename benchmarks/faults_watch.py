"""How the shards really are, moment by moment: what the shard map says, held to who listens."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.open_loop import Answer
from cluster.shard_maps import ShardMaps
from homeward.errors import HomewardError
from index.placement import slots_by_shard
from index.shard_map import ShardMap

_LOOK_S = 0.1
_LISTENS = "0A"  # a socket's state in /proc/net/tcp


@dataclass(frozen=True, slots=True)
class Look:
    """One moment."""

    at: float
    epoch: int
    shards: int  # that live
    uncovered: int  # slots that no living shard is ready for
    missing: int  # (slot, replica) pairs on different nodes that there could be and are not


@dataclass(slots=True)
class Watch:
    """All moments so far."""

    looks: list[Look] = field(default_factory=list)

    async def whole(self, since: float, wait_s: float, shards: int = 0) -> float | None:
        """Wait for the first moment from then on with all replicas that there can be, and so many shards;
        None if there is none in time."""
        give_up = time.monotonic() + wait_s
        while time.monotonic() < give_up:
            for look in self.looks:
                if look.at >= since and not look.missing and look.shards >= shards:
                    return look.at
            await asyncio.sleep(_LOOK_S)
        return None

    def was_uncovered(self, answer: Answer) -> bool:
        """Whether some slot had no living shard all the while, as far as was seen."""
        during = [look for look in self.looks if answer.started <= look.at <= answer.ended]
        return bool(during) and all(look.uncovered for look in during)


@contextlib.asynccontextmanager
async def watching(maps: ShardMaps, replicas: int, nodes: Callable[[], int]) -> AsyncIterator[Watch]:
    """Look all the time while the context lasts; `nodes` tells how many nodes there are."""
    watch = Watch()

    async def look() -> None:
        while True:
            with contextlib.suppress(HomewardError):
                watch.looks.append(await asyncio.to_thread(_look, maps, replicas, nodes()))
            await asyncio.sleep(_LOOK_S)

    task = asyncio.create_task(look())
    try:
        yield watch
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def listening_ports() -> set[int]:
    """TCP ports that somebody listens on."""
    found = set()
    for name in ("tcp", "tcp6"):
        for line in Path("/proc/net", name).read_text(encoding="ascii").splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTENS:
                found.add(int(fields[1].rpartition(":")[2], 16))
    return found


def _look(maps: ShardMaps, replicas: int, nodes: int) -> Look:
    at = time.monotonic()
    shard_map = maps.read() or ShardMap.empty(maps.model_id, replicas)
    ports = listening_ports()
    living = [
        shard
        for shard in shard_map.shards
        if shard.address and int(shard.address.rpartition(":")[2]) in ports
    ]
    ready = slots_by_shard(shard_map.ready)
    by_node: dict[str, list[np.ndarray[tuple[int, ...], np.dtype[np.bool_]]]] = {}
    for shard in living:
        if shard.name in ready:
            by_node.setdefault(shard.node, []).append(ready[shard.name])
    held = np.zeros(len(shard_map.ready), np.int64)
    for masks in by_node.values():
        held += np.any(masks, axis=0)
    wanted = min(replicas, nodes)
    missing = int(np.maximum(wanted - held, 0).sum())
    return Look(at, shard_map.epoch, len(living), int((held == 0).sum()), missing)
