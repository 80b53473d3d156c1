"""The index that answers searches and takes commits: in this process's memory, or on the cluster's shards.

Writers and searchers see no difference. A commit is searchable, and a deletion certain, when `catch_up` has
returned: with shards, every one of them has either taken the change or has been cut off for so long that it
refuses to answer.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from typing import Protocol

from catalogue.store import Catalogue
from cluster.follow import Follower
from cluster.followed import Followed
from cluster.gallery_rows import GalleryRows
from homeward.errors import Unavailable
from homeward.types import CandidateList, Query
from index.columns import Bool, Columns
from index.fallback import search_slots
from index.gallery import MilvusGallery
from index.merge import Partial
from index.router import Router
from index.shard import Shard
from index.shard_types import Pushed

_POLL_S = 0.01
_PUSH_S = 0.8  # a shard that takes longer is waited out: it refuses soon

_logger = logging.getLogger(__name__)


class Live(Followed, Protocol):
    """What of an index the services use. `catch_up` and `search_batch` block; the others are for the loop."""

    scans_elsewhere: bool  # other processes scan: several batches can be on their way

    def search_batch(self, queries: Sequence[Query]) -> list[CandidateList]:
        """The certified lists, in order, of queries that were checked."""
        ...

    async def record_rows(self, record_id: str) -> Columns:
        """The record's rows, by face id."""
        ...

    async def reach(self, rev: int, wait_s: float) -> int:
        """Wait until answers contain the changes up to `rev`, at most `wait_s` seconds; the rev they do."""
        ...


class ServerIndex:
    """`Live` over the shard in this process's memory."""

    scans_elsewhere = False

    def __init__(self, index: Shard, follower: Follower) -> None:
        self._index = index
        self._follower = follower

    def check_loaded(self) -> None:
        """See `Live`."""
        self._follower.check_loaded()

    def catch_up(self, own: Sequence[Pushed] = ()) -> int:
        """See `Live`."""
        return self._follower.catch_up(own)

    def search_batch(self, queries: Sequence[Query]) -> list[CandidateList]:
        """See `Live`."""
        return self._index.search_many(queries)

    async def record_rows(self, record_id: str) -> Columns:
        """See `Live`."""
        return await asyncio.to_thread(self._index.record_rows, record_id)

    async def reach(self, rev: int, wait_s: float) -> int:
        """See `Live`."""
        give_up = time.monotonic() + wait_s
        while self._index.rev < rev and time.monotonic() < give_up:  # noqa: ASYNC110 - the index's writer is a thread
            await asyncio.sleep(_POLL_S)
        return self._index.rev


class ShardedIndex:
    """`Live` over the cluster's shards. Made on the event loop that the router runs on."""

    scans_elsewhere = True

    def __init__(
        self, router: Router, catalogue: Catalogue, rows: GalleryRows, executor: Executor, stale_s: float
    ) -> None:
        self._router = router
        self._catalogue = catalogue
        self._rows = rows
        self._executor = executor
        self._stale_s = stale_s
        self._loop = asyncio.get_running_loop()

    def check_loaded(self) -> None:
        """See `Live`. Milvus answers for what no shard holds yet."""

    def catch_up(self, own: Sequence[Pushed] = ()) -> int:
        """See `Live`."""
        committed = time.monotonic()
        rev = self._catalogue.rev()
        told = asyncio.run_coroutine_threadsafe(self._router.push(own, rev, _PUSH_S), self._loop).result()
        if told.missed:
            # It has polled the change log since, or it refuses: its word is good for `stale_s`.
            _logger.warning("shards that did not take rev %d in time: %s", rev, told.missed)
            time.sleep(max(0.0, committed + self._stale_s + 2 * _POLL_S - time.monotonic()))
        return rev

    def search_batch(self, queries: Sequence[Query]) -> list[CandidateList]:
        """See `Live`."""
        return asyncio.run_coroutine_threadsafe(self._router.search_many(queries), self._loop).result()

    async def record_rows(self, record_id: str) -> Columns:
        """See `Live`."""
        try:
            return await self._router.record_rows(record_id)
        except Unavailable as error:
            if error.code != "SLOT_UNCOVERED":
                raise
            return await self._loop.run_in_executor(self._executor, self._rows.current, [record_id])

    async def reach(self, rev: int, wait_s: float) -> int:
        """See `Live`."""
        newest = await self._loop.run_in_executor(self._executor, self._catalogue.rev)
        if rev <= newest and await self._router.reached(rev, wait_s):
            return max(rev, 0)
        return min(newest, rev - 1)


def milvus_fallback(
    gallery: MilvusGallery, catalogue: Catalogue, queries: Sequence[Query], slots: Bool
) -> list[tuple[Partial, int]]:
    """What Milvus says of the queries for slots without a live replica, held to what the catalogue has."""
    rev = catalogue.rev()

    def exists(faces: Sequence[str]) -> set[str]:
        return set(catalogue.faces(faces))

    return [(search_slots(gallery, query, slots, exists), rev) for query in queries]
