"""One shard's process without its port and without Ray: holds its slots, follows, answers while it may.

It answers for slots that it holds whole, while the shard map lists this very process, and while it has heard
of every change within the last second: a shard that is cut off refuses, so that it cannot show a deleted
child. Whoever asked goes to a replica then.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from cluster.follow import Follower
from cluster.shard_maps import ShardMaps
from cluster.snapshot_writer import SnapshotWriter
from homeward.batching import MicroBatcher
from homeward.config import Settings
from homeward.errors import HomewardError, Unavailable
from homeward.telemetry import Level, Reading
from homeward.types import Query
from index.columns import Bool, Columns
from index.index_readings import index_readings
from index.merge import Partial
from index.placement import SLOTS, slot_of
from index.reference import check_query
from index.shard import Shard
from index.shard_map import ShardMap, may_serve
from index.shard_types import Pushed, ShardStatus

_REACH_S = 2.0  # how long a search waits for its rev before a replica is asked
_POLL_S = 0.01

_Asked = tuple[Sequence[Query], Bool]
_Found = tuple[Sequence[Partial], int]
_logger = logging.getLogger(__name__)


class ShardNode:
    """`index.shard_types.Served` over one `Shard`. For one event loop, between `open` and `close`."""

    def __init__(
        self,
        *,
        name: str,
        incarnation: str,
        maps: ShardMaps,
        follower: Follower,
        index: Shard,
        settings: Settings,
    ) -> None:
        self.model_id = maps.model_id
        self.dimension = index.dimension
        self._name = name
        self._incarnation = incarnation
        self._maps = maps
        self._follower = follower
        self._index = index
        self._settings = settings.index
        self._snapshots: SnapshotWriter | None = None
        self._map = ShardMap.empty(maps.model_id, settings.index.replicas)
        self._stopping = threading.Event()
        self._scanning = ThreadPoolExecutor(1, thread_name_prefix="scan")
        self._storing = ThreadPoolExecutor(4, thread_name_prefix="store")
        self._threads = [
            threading.Thread(target=self._run, args=(work, every_s), name=work.__name__, daemon=True)
            for work, every_s in (
                (self._follow, settings.index.poll_s),
                (self._arrange, settings.index.poll_s),
                (self._snapshot, settings.index.snapshot_interval_s),
            )
            if every_s
        ]
        self._batcher: MicroBatcher[_Asked, _Found] = MicroBatcher(
            self._scan,
            executor=self._scanning,
            batch_max=settings.search.batch_max,
            queue_max=settings.search.queue_max,
            name="shard",
            weigh=lambda asked: sum(len(query.templates) for query in asked[0]),
            weight_max=settings.search.batch_max,
        )

    def write_snapshots(self, writer: SnapshotWriter) -> None:
        """Have this shard's share of the snapshots written from `open` on."""
        self._snapshots = writer

    def open(self) -> None:
        """Begin to follow and to load what the shard map wants."""
        for thread in self._threads:
            thread.start()

    async def close(self) -> None:
        """Finish what was accepted and stop."""
        self._stopping.set()
        await self._batcher.close()
        loop = asyncio.get_running_loop()
        for thread in self._threads:
            await loop.run_in_executor(None, thread.join)
        self._scanning.shutdown()
        self._storing.shutdown()

    async def search(self, queries: Sequence[Query], slots: Bool, min_rev: int) -> _Found:
        """See `Served`."""
        for query in queries:  # a batch is shared with strangers: one bad query must not cost them theirs
            check_query(query, self.dimension)
        self._check(slots)
        await self._reach(min_rev)
        return await self._batcher.submit((queries, slots))

    async def rows(self, record_id: str) -> tuple[Columns, int]:
        """See `Served`."""
        wanted = np.zeros(SLOTS, np.bool_)
        wanted[slot_of(record_id)] = True
        self._check(wanted)
        rev = self._index.rev
        columns = await asyncio.get_running_loop().run_in_executor(
            self._storing, self._index.record_rows, record_id
        )
        self._check(wanted)
        return columns, rev

    async def push(self, pushed: Sequence[Pushed], rev: int) -> int:
        """See `Served`."""
        if self._follower.cursor >= rev:
            return self._follower.cursor
        self._follower.tell(pushed)  # at once: it may be waited for by whoever holds these threads up
        return await asyncio.get_running_loop().run_in_executor(self._storing, self._follower.catch_up)

    def status(self) -> ShardStatus:
        """See `Served`."""
        return ShardStatus(
            name=self._name,
            incarnation=self._incarnation,
            epoch=self._map.epoch,
            held=self._follower.held,
            rows=self._index.rows,
            records=self._index.records,
            rev=self._index.rev,
            lag_seconds=max(0.0, time.monotonic() - self._follower.confirmed_at),
            model_id=self.model_id,
            dimension=self.dimension,
        )

    def readings(self) -> Iterator[Reading]:
        """For metrics; from any thread."""
        held, shard_map = self._follower.held, self._map
        wanted, ready = shard_map.wanted_of(self._name), shard_map.ready_of(self._name)
        states = {"ready": held & ready, "loading": wanted & ~ready, "leaving": held & ~wanted & ~ready}
        yield from index_readings(self._index, states, self._follower.confirmed_at)
        yield Reading(Level.READY, float(may_serve(shard_map, self._name, self._incarnation)))

    def _scan(self, batch: Sequence[_Asked]) -> list[_Found | Exception]:
        """Those that ask for the same slots share a pass."""
        together: defaultdict[bytes, list[int]] = defaultdict(list)
        for number, (_, slots) in enumerate(batch):
            together[slots.tobytes()].append(number)
        answers: list[_Found | Exception] = [Unavailable("no answer")] * len(batch)
        for numbers in together.values():
            slots = batch[numbers[0]][1]
            try:
                self._check(slots)
                parts, rev = self._index.parts([query for at in numbers for query in batch[at][0]], slots)
                self._check(slots)  # a slot may have been given up meanwhile
            except HomewardError as error:
                for at in numbers:
                    answers[at] = error
                continue
            start = 0
            for at in numbers:
                stop = start + len(batch[at][0])
                answers[at] = (parts[start:stop], rev)
                start = stop
        return answers

    def _check(self, slots: Bool) -> None:
        if not may_serve(self._map, self._name, self._incarnation):
            raise Unavailable("the shard map does not list this process", code="SHARD_FENCED")
        if (slots & ~self._follower.held).any():
            raise Unavailable("not all of these slots are held here", code="SLOTS_NOT_HELD")
        behind = time.monotonic() - self._follower.confirmed_at
        if behind > self._settings.stale_s:
            raise Unavailable(f"this shard has not heard of changes for {behind:.1f} s", code="SHARD_STALE")

    async def _reach(self, rev: int) -> None:
        give_up = time.monotonic() + _REACH_S
        while self._index.rev < rev:
            if time.monotonic() > give_up:
                raise Unavailable(
                    f"the shard holds the changes up to rev {self._index.rev}, not yet {rev}",
                    code="REV_NOT_REACHED",
                )
            await asyncio.sleep(_POLL_S)

    def _run(self, work: Callable[[], None], every_s: float) -> None:
        """Repeat a step until the node closes; a failure is told and tried again."""
        while not self._stopping.wait(every_s):
            try:
                work()
            except HomewardError as error:
                _logger.warning("%s: %s", self._name, error.message)
            except Exception:
                _logger.exception("%s", self._name)

    def _follow(self) -> None:
        self._follower.poll()

    def _snapshot(self) -> None:
        while self._snapshots is not None and not self._stopping.is_set() and self._snapshots.step():
            pass

    def first_slots(self) -> Bool:
        """(SLOTS,) those that this shard is the first ready replica of: its share of the snapshots."""
        return np.array([names[:1] == (self._name,) for names in self._map.ready], np.bool_)

    def _arrange(self) -> None:
        """Read the shard map; hold what it wants, and let go of what it does not."""
        read = self._maps.read()
        if read is None or read.epoch < self._map.epoch:
            return
        if read.epoch > self._map.epoch:
            self._index.set_cohorts(_cohorts(read, self._name))
            self._map = read
        wanted, ready = read.wanted_of(self._name), read.ready_of(self._name)
        held = self._follower.held
        self._follower.drop_slots(held & ~wanted & ~ready)
        missing = np.flatnonzero(wanted & ~held)
        if missing.size:
            some = np.zeros(SLOTS, np.bool_)
            some[missing] = True
            self._follower.load_slots(some)
            _logger.info("%s holds %d more slots", self._name, missing.size)


def _cohorts(shard_map: ShardMap, name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """(SLOTS,) numbers of the different lists of replicas that this shard's slots have: those that are asked
    of it together, as long as all replicas are up and when one is down."""
    numbers: dict[tuple[str, ...], int] = {}
    return np.array(
        [numbers.setdefault(names if name in names else (), len(numbers)) for names in shard_map.wanted],
        np.int64,
    )
