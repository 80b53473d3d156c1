"""The controller's loop: asks every shard how it is, and writes the next shard map when something changed.

What it decides is in `cluster.shard_keeping`, what it knows is in the catalogue: a controller that is started
anew goes on where the last one stopped, and of two at once one is refused. While none runs, searches and
following go on with the map there is.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Executor

from cluster.shard_keeping import ShardKeeper
from cluster.shard_maps import ShardEntry, ShardMaps
from homeward.config import Settings
from homeward.errors import Conflict, HomewardError
from index.placement import ShardInfo
from index.shard_client import ShardClient
from index.shard_map import PlacedShard, ShardMap
from index.shard_types import ShardStatus

_STEP_S = 0.25
_ASK_S = 2.0
_ASKED_MAX = 4
_MISSES = 3  # steps without an answer before a shard counts as lost
_LINGER_S = 2.0  # servers that do not know yet that a shard leaves are told so by the shard itself

_logger = logging.getLogger(__name__)


class ShardControl:
    """For one event loop. `retire(name)` ends the process of a shard that has left; it may block."""

    def __init__(
        self,
        maps: ShardMaps,
        settings: Settings,
        *,
        dimension: int,
        retire: Callable[[str], None],
        executor: Executor,
        clock: Callable[[], float],
    ) -> None:
        self._maps = maps
        self._settings = settings.index
        self._dimension = dimension
        self._retire = retire
        self._executor = executor
        self._clock = clock
        self._keeper: ShardKeeper | None = None
        self._clients: dict[str, ShardClient] = {}
        self._missed: dict[str, int] = {}
        self._drained_at: dict[str, float] = {}
        self._ending: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Step until cancelled; a failure is told and tried again."""
        while True:
            await asyncio.sleep(_STEP_S)
            try:
                await self.step()
            except Conflict as error:
                _logger.warning("%s; going on from what it wrote", error.message)
                self._keeper = None
            except HomewardError as error:
                _logger.warning("placing shards: %s", error.message)
            except Exception:  # the loop must go on, whatever one step met
                _logger.exception("placing shards")

    async def close(self) -> None:
        """Close the channels. A shard that is just being ended ends."""
        await asyncio.gather(*self._ending.values())
        for client in self._clients.values():
            await client.close()

    async def step(self) -> ShardMap | None:
        """Look once; the map, if a new one was written."""
        loop = asyncio.get_running_loop()
        entries = await loop.run_in_executor(self._executor, self._maps.entries)
        leaving = await loop.run_in_executor(self._executor, self._maps.leaving)
        newest = await loop.run_in_executor(self._executor, self._maps.read)
        if self._keeper is None or (newest is not None and newest.epoch > self._keeper.map.epoch):
            self._keeper = ShardKeeper(
                newest or ShardMap.empty(self._maps.model_id, self._settings.replicas),
                now=self._clock(),
                replicas=self._settings.replicas,
                grace_s=self._settings.lost_s,
            )
        keeper = self._keeper
        answers = await asyncio.gather(*(self._ask(entry) for entry in entries))
        now = self._clock()
        for entry, status in zip(entries, answers, strict=True):
            self._tell(keeper, entry, status, now)
        members = {entry.name for entry in entries}
        for name in {shard.name for shard in keeper.map.shards} - members:
            keeper.removed(name)
        for name in members & {shard.name for shard in keeper.map.shards}:
            (keeper.draining if name in leaving else keeper.staying)(name)
        decided = keeper.decide(now=now)
        if decided is not None:
            await loop.run_in_executor(self._executor, self._maps.write, decided)
        for entry in entries:
            if entry.name in leaving and keeper.is_drained(entry.name):
                self._drained_at.setdefault(entry.name, now)
                if entry.name not in self._ending and now - self._drained_at[entry.name] >= _LINGER_S:
                    self._ending[entry.name] = asyncio.create_task(self._end(entry))
            else:
                self._drained_at.pop(entry.name, None)
        return decided

    def _tell(self, keeper: ShardKeeper, entry: ShardEntry, status: ShardStatus | None, now: float) -> None:
        if status is None or status.incarnation != entry.incarnation:
            self._missed[entry.name] = self._missed.get(entry.name, 0) + 1
            if self._missed[entry.name] >= _MISSES:
                keeper.lost(entry.name, now=now, incarnation=entry.incarnation)
            return
        self._missed[entry.name] = 0
        keeper.joined(ShardInfo(entry.name, entry.node, entry.weight), entry.address, entry.incarnation)
        keeper.reported(entry.name, entry.incarnation, status.epoch, status.held)

    async def _ask(self, entry: ShardEntry) -> ShardStatus | None:
        client = self._clients.get(entry.name)
        if client is None or client.placed.incarnation != entry.incarnation:
            if client is not None:
                await client.close()
            client = self._clients[entry.name] = ShardClient(
                PlacedShard(entry.name, entry.node, entry.weight, entry.address, entry.incarnation),
                self._settings.token,
                model_id=self._maps.model_id,
                dimension=self._dimension,
                in_flight_max=_ASKED_MAX,
                back_off_s=_STEP_S,
            )
        try:
            async with asyncio.timeout(_ASK_S):
                return await client.status()
        except (HomewardError, TimeoutError):
            return None

    async def _end(self, entry: ShardEntry) -> None:
        """End the process of a shard that has left, and forget it; beside the steps, for Ray may be slow to
        end it. Done again by whoever follows, if this controller ends meanwhile."""
        try:
            await asyncio.to_thread(self._retire, entry.name)
            await asyncio.get_running_loop().run_in_executor(self._executor, self._forget, entry)
            _logger.info("shard %s has left", entry.name)
        except Exception:
            _logger.exception("ending shard %s", entry.name)
        finally:
            del self._ending[entry.name]

    def _forget(self, entry: ShardEntry) -> None:
        if entry in self._maps.entries():  # else a new process has entered itself
            self._maps.forget(entry.name)
