"""Who is to be asked for which slots: follows the shard map, keeps a client per shard, probes lost ones."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Collection, Iterator
from concurrent.futures import Executor

import numpy as np

from homeward.errors import HomewardError
from homeward.telemetry import Level, Reading
from index.columns import Bool
from index.placement import SLOTS
from index.shard_client import ShardClient
from index.shard_map import PlacedShard, ShardMap, assign

Route = tuple[dict[str, Bool], Bool]  # the slots (SLOTS,) to ask of each shard, and those without any

_READ_S = 1.0  # how long a search waits for the map that it needs
_KEPT_ROUTES = 64

_logger = logging.getLogger(__name__)


class ShardRoutes:
    """The newest shard map and its clients. For one event loop.

    `read_map` blocks and runs on `executor`; None and errors leave the map known before in use, for
    shards themselves refuse what they must not answer any more. A map of another model is not used.
    """

    def __init__(
        self,
        read_map: Callable[[], ShardMap | None],
        *,
        executor: Executor,
        model_id: str,
        refresh_s: float,
        connect: Callable[[PlacedShard], ShardClient],
    ) -> None:
        self._read_map = read_map
        self._executor = executor
        self._refresh_s = refresh_s
        self._connect = connect
        self._map = ShardMap.empty(model_id, 1)
        self._clients: dict[str, ShardClient] = {}
        self._routes: dict[frozenset[str], Route] = {}
        self._reading: asyncio.Task[None] | None = None
        self._follower: asyncio.Task[None] | None = None
        self._others: set[asyncio.Task[None]] = set()  # that probe or close a client
        self._probed: set[ShardClient] = set()

    @property
    def map(self) -> ShardMap:
        """The newest that was read; of epoch 0 and without shards before."""
        return self._map

    async def open(self) -> None:
        """Read the map, if it can be read, and follow it from now on."""
        await self._read_shared()
        self._follower = asyncio.create_task(self._follow(), name="follow-shard-map")

    async def close(self) -> None:
        """Let running calls end, then close the channels."""
        tasks = [task for task in (self._follower, self._reading) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for name in list(self._clients):
            self._close(name)
        await asyncio.gather(*self._others, return_exceptions=True)

    def client(self, name: str) -> ShardClient | None:
        """The shard's, if it is a member that listens."""
        return self._clients.get(name)

    def clients(self) -> list[ShardClient]:
        """Those of all members that listen, by name."""
        return [self._clients[name] for name in sorted(self._clients)]

    def route(self, without: Collection[str] = ()) -> Route:
        """Each slot to the first of its ready replicas that is up and not one of `without`."""
        usable = frozenset(
            name for name, client in self._clients.items() if client.up and name not in without
        )
        if usable not in self._routes:
            if len(self._routes) >= _KEPT_ROUTES:
                self._routes.clear()
            self._routes[usable] = assign(self._map, usable)
        return self._routes[usable]

    def readings(self) -> Iterator[Reading]:
        """How the shards are, from any thread. One that holds nothing of what it is to hold is silent too:
        the controller has given it up."""
        shard_map, clients = self._map, dict(self._clients)
        usable = {name for name, client in clients.items() if client.up}
        answering = {name for names in shard_map.ready for name in names} & usable
        idle = {shard.name for shard in shard_map.shards} - {
            name for names in shard_map.wanted for name in names
        }
        up = answering | (idle & usable)
        yield Reading(Level.SHARDS, len(up), "up")
        yield Reading(Level.SHARDS, len(shard_map.shards) - len(up), "silent")
        uncovered = int(assign(shard_map, usable)[1].sum())
        yield Reading(Level.SLOTS, SLOTS - uncovered, "covered")
        yield Reading(Level.SLOTS, uncovered, "uncovered")
        yield Reading(Level.MISSING_REPLICAS, shard_map.redundancy().missing)

    async def refresh(self, epoch: int) -> None:
        """Read the map at once unless one newer than `epoch` is known; waits for it, but not long."""
        if self._map.epoch > epoch:
            return
        was_reading = self._reading is not None and not self._reading.done()
        await self._read_shared()
        if was_reading and self._map.epoch <= epoch:  # begun before there was a reason to
            await self._read_shared()

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self._refresh_s)
            for client in self._clients.values():
                if client.is_probe_due and client not in self._probed:
                    self._probed.add(client)
                    self._start(self._probe(client))
            await self._read_shared()

    async def _read_shared(self) -> None:
        """Searches that need the map at the same time share one reading of it."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read(), name="read-shard-map")
        await asyncio.wait({self._reading}, timeout=_READ_S)

    async def _read(self) -> None:
        try:
            read = await asyncio.get_running_loop().run_in_executor(self._executor, self._read_map)
        except Exception as error:  # noqa: BLE001 - whatever it is, the map known stays in use
            said = error.message if isinstance(error, HomewardError) else type(error).__name__
            _logger.warning("the shard map cannot be read (%s); the one known stays in use", said)
            return
        if read is None or read.epoch <= self._map.epoch:
            return
        if read.model_id != self._map.model_id:
            _logger.error(
                "the shard map is of %s, this server's model is %s", read.model_id, self._map.model_id
            )
            return
        self._use(read)

    def _use(self, shard_map: ShardMap) -> None:
        listening = {shard.name: shard for shard in shard_map.shards if shard.address and shard.incarnation}
        for name, client in list(self._clients.items()):
            if name not in listening or not _is_same_process(listening[name], client.placed):
                self._close(name)
        for name, shard in listening.items():
            if name not in self._clients:
                self._clients[name] = self._connect(shard)
        self._map = shard_map
        self._routes.clear()

    async def _probe(self, client: ShardClient) -> None:
        try:
            with contextlib.suppress(HomewardError):  # it stays aside
                await client.status()
        finally:
            self._probed.discard(client)

    def _close(self, name: str) -> None:
        self._start(self._clients.pop(name).close())

    def _start(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._others.add(task)
        task.add_done_callback(self._others.discard)


def _is_same_process(one: PlacedShard, other: PlacedShard) -> bool:
    return (one.address, one.incarnation) == (other.address, other.incarnation)


def members_of(shard_map: ShardMap, slots: Bool) -> set[str]:
    """Names of the shards that are wanted for any of the slots (SLOTS,), or ready for it."""
    return {
        name
        for slot in np.flatnonzero(slots).tolist()
        for names in (shard_map.wanted[slot], shard_map.ready[slot])
        for name in names
    }


def whole() -> Bool:
    """(SLOTS,) all slots."""
    return np.ones(SLOTS, np.bool_)
