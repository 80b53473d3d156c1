"""Searches over all shards from inside a gRPC server: the certified answer, as if one index had given it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor

import numpy as np
from pydantic import SecretStr

from homeward.errors import DeadlineExceeded, HomewardError, InvalidInput, Overloaded, Unavailable
from homeward.ids import check_id
from homeward.status import status_code
from homeward.telemetry import Operation, Reading, emit
from homeward.types import CandidateList, Query
from index.columns import Bool, Columns
from index.fan_out import MOVED, Answer, FanOut, Hedges, cancelled
from index.merge import Partial, merge
from index.placement import SLOTS, slot_of
from index.reference import check_query
from index.router_types import EXACT, MILVUS, MIXED, PushOutcome, RouterSettings, RouterStatus, ShardHealth
from index.shard_client import Asked, ShardClient
from index.shard_map import PlacedShard, ShardMap
from index.shard_routes import ShardRoutes, members_of
from index.shard_types import Pushed

Fallback = Callable[[Sequence[Query], Bool], Sequence[tuple[Partial, int]]]

_BEHIND = frozenset({"REV_NOT_REACHED", DeadlineExceeded.code})
_ANSWER_BYTES = 64 << 20  # of the queries that are asked at once
_CANDIDATE_BYTES, _FACE_BYTES = 48, 80


class Router:
    """For one event loop, between `open` and `close`.

    `read_map` reads the newest shard map; `fallback` answers queries for slots (SLOTS,) by Milvus: per
    query the part and the rev it contains. Both block, and run on `executor` and `fallback_executor`.
    """

    def __init__(
        self,
        read_map: Callable[[], ShardMap | None],
        fallback: Fallback,
        *,
        model_id: str,
        dimension: int,
        token: SecretStr | None,
        executor: Executor,
        fallback_executor: Executor | None = None,
        settings: RouterSettings | None = None,
    ) -> None:
        self._fallback = fallback
        self._dimension = dimension
        self._fallback_executor = fallback_executor or executor
        self._settings = chosen = settings or RouterSettings()
        self._hedges = Hedges(chosen.hedges_max)
        self._fallbacks = threading.Semaphore(chosen.fallbacks_max)

        def connect(placed: PlacedShard) -> ShardClient:
            return ShardClient(
                placed,
                token,
                model_id=model_id,
                dimension=dimension,
                in_flight_max=chosen.in_flight_max,
                back_off_s=chosen.back_off_s,
            )

        self._routes = ShardRoutes(
            read_map, executor=executor, model_id=model_id, refresh_s=chosen.refresh_s, connect=connect
        )

    async def open(self) -> None:
        """Read the shard map and follow it. Without one, Milvus answers."""
        await self._routes.open()

    async def close(self) -> None:
        """Let running calls end, then close the channels."""
        await self._routes.close()

    async def search_many(self, queries: Sequence[Query], min_rev: int = 0) -> list[CandidateList]:
        """The certified lists, in order; `method` says whether Milvus had to answer for some slots.

        Raises `InvalidInput` and its kinds for a query that makes no sense; `Unavailable`
        (REV_NOT_REACHED) when no live replica of a slot holds the changes up to `min_rev`; `Overloaded`;
        and, where a slot has no live replica, what `fallback` raises.
        """
        for query in queries:
            check_query(query, self._dimension)
        found: list[CandidateList] = []
        for group in _groups(queries):
            found += await self._search(group, min_rev)
        return found

    async def record_rows(self, record_id: str) -> Columns:
        """The record's rows, by face id; empty for a record without any.

        Raises `Unavailable` (SLOT_UNCOVERED) when no live replica holds its slot.
        """
        slot = slot_of(check_id(record_id, "record_id"))
        tried: set[str] = set()
        running: set[asyncio.Task[Columns]] = set()
        try:
            while (client := self._next_replica(slot, tried)) or running:
                if client is not None:
                    tried.add(client.placed.name)
                    running.add(asyncio.create_task(client.rows(record_id, self._settings.shard_timeout_s)))
                done, running = await asyncio.wait(
                    running,
                    timeout=self._settings.hedge_s if client else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for task in done:
                    try:
                        return task.result()
                    except HomewardError as error:
                        if isinstance(error, InvalidInput):
                            raise
                        if error.code in MOVED:
                            await self._routes.refresh(self._routes.map.epoch)
        finally:
            await cancelled(*running)
        raise Unavailable("no shard that holds this record answers; try again shortly", code="SLOT_UNCOVERED")

    async def push(self, pushed: Sequence[Pushed], rev: int, deadline_s: float) -> PushOutcome:
        """Tell what was committed to the shards that hold its slots or are to hold them; without records
        (a deletion) tell all shards to reach `rev`. Waits at most `deadline_s` seconds for each."""
        touched = np.zeros(SLOTS, np.bool_)
        touched[[slot_of(one.record_id) for one in pushed]] = True
        names = members_of(self._routes.map, touched)
        clients = [one for one in self._routes.clients() if not pushed or one.placed.name in names]
        told = [self._records_of(client, pushed) for client in clients]
        answers = await asyncio.gather(
            *(client.push(records, rev, deadline_s) for client, records in zip(clients, told, strict=True)),
            return_exceptions=True,
        )
        reached: dict[str, int] = {}
        missed: dict[str, str] = {}
        for client, answer in zip(clients, answers, strict=True):
            name = client.placed.name
            if isinstance(answer, HomewardError):
                missed[name] = str(answer.code)
            elif isinstance(answer, BaseException):
                raise answer
            elif answer < rev:
                missed[name] = "REV_NOT_REACHED"
            else:
                reached[name] = answer
        return PushOutcome(rev, reached, missed)

    async def reached(self, rev: int, wait_s: float) -> bool:
        """Whether every slot has a replica that holds the changes up to `rev`, or none that answers, so
        that Milvus does. Tells the shards to reach it, and waits at most `wait_s` seconds."""
        shard_map = self._routes.map
        calls = {
            asyncio.create_task(client.push((), rev, wait_s)): shard_map.ready_of(client.placed.name)
            for client in self._routes.clients()
        }
        running = set(calls)
        covered = np.any([np.zeros(SLOTS, np.bool_), *calls.values()], axis=0)
        reached = np.zeros(SLOTS, np.bool_)
        behind = np.zeros(SLOTS, np.bool_)
        try:
            while running and (covered & ~reached).any():
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    error = task.exception()
                    if error is None and task.result() >= rev:
                        reached |= calls[task]
                    elif error is None or (isinstance(error, HomewardError) and error.code in _BEHIND):
                        behind |= calls[task]
                    elif not isinstance(error, HomewardError):
                        raise error
        finally:
            await cancelled(*calls)
        return not (behind & ~reached).any()

    def readings(self) -> Iterator[Reading]:
        """How the shards are, as far as this server knows without asking; from any thread."""
        return self._routes.readings()

    async def status(self) -> RouterStatus:
        """How the shards are; asks each."""
        shard_map = self._routes.map
        return RouterStatus(
            epoch=shard_map.epoch,
            shards=tuple(await asyncio.gather(*(self._health(shard) for shard in shard_map.shards))),
            uncovered=int(self._routes.route()[1].sum()),
            under_replicated=shard_map.redundancy().missing,
        )

    async def _search(self, queries: Sequence[Query], min_rev: int) -> list[CandidateList]:
        chosen = self._settings
        fan_out = FanOut(
            self._routes,
            Asked.of(queries, min_rev),
            self._fall_back,
            self._hedges,
            shard_timeout_s=chosen.shard_timeout_s,
            hedge_s=chosen.hedge_s,
        )
        answers = await fan_out.answers()
        method = EXACT
        if any(answer.by_milvus for answer in answers):
            method = MILVUS if all(answer.by_milvus for answer in answers) else MIXED
        return [
            merge(
                [answer.parts[at] for answer in answers],
                query,
                rev=min(answer.revs[at] for answer in answers),
                method=method,
            )
            for at, query in enumerate(queries)
        ]

    async def _fall_back(self, asked: Asked, slots: Bool) -> Answer:
        if not self._fallbacks.acquire(blocking=False):
            raise Overloaded("too many searches wait for Milvus; try again shortly", queue="fallback")
        started = time.perf_counter()
        outcome, reason = "CANCELLED", ""
        try:
            job = self._fallback_executor.submit(self._fallback, asked.queries, slots)
            # Milvus works on, even if the caller has gone.
            job.add_done_callback(lambda _: self._fallbacks.release())
            found = await asyncio.wrap_future(job)
            revs = tuple(rev for _, rev in found)
            if min(revs) < asked.min_rev:
                raise Unavailable(
                    f"the gallery holds the changes up to rev {min(revs)}, not yet {asked.min_rev}",
                    code="REV_NOT_REACHED",
                    rev=min(revs),
                )
            outcome = "OK"
            return Answer(tuple(part for part, _ in found), revs, by_milvus=True)
        except HomewardError as error:
            outcome, reason = status_code(type(error)).name, str(error.code)
            raise
        finally:
            emit(Operation("shard fallback", outcome, time.perf_counter() - started, reason=reason))

    async def _health(self, shard: PlacedShard) -> ShardHealth:
        client = self._routes.client(shard.name)
        status, error = None, "SHARD_LOST"
        if client is not None:
            try:
                status, error = await client.status(), ""
            except HomewardError as failed:
                error = str(failed.code)
        return ShardHealth(
            name=shard.name,
            node=shard.node,
            address=shard.address,
            up=client is not None and client.up,
            ready_slots=int(self._routes.map.ready_of(shard.name).sum()),
            status=status,
            error=error,
        )

    def _next_replica(self, slot: int, tried: set[str]) -> ShardClient | None:
        """The best replica of the slot not tried yet; one that is left alone only for want of others."""
        clients = [self._routes.client(name) for name in self._routes.map.ready[slot] if name not in tried]
        return next(iter(sorted((one for one in clients if one), key=lambda one: not one.up)), None)

    def _records_of(self, client: ShardClient, pushed: Sequence[Pushed]) -> list[Pushed]:
        """Those of slots that the shard holds or is to hold."""
        shard_map, name = self._routes.map, client.placed.name
        slots = [slot_of(one.record_id) for one in pushed]
        return [
            one
            for one, slot in zip(pushed, slots, strict=True)
            if name in shard_map.wanted[slot] or name in shard_map.ready[slot]
        ]


def _groups(queries: Sequence[Query]) -> Iterator[Sequence[Query]]:
    """Queries whose answers fit one message together."""
    start = size = 0
    for at, query in enumerate(queries):
        mine = 2 * query.k * (_CANDIDATE_BYTES + query.evidence * _FACE_BYTES)
        if at > start and size + mine > _ANSWER_BYTES:
            yield queries[start:at]
            start, size = at, 0
        size += mine
    if start < len(queries):
        yield queries[start:]
