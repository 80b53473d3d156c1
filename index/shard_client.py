"""One shard as gRPC servers see it: the channel, whether it answered lately, and what it is asked."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import cast

import grpc
from pydantic import SecretStr

from homeward.call_context import Metadata, call_metadata
from homeward.errors import (
    Corrupt,
    DeadlineExceeded,
    HomewardError,
    Overloaded,
    PermissionRefused,
    Unavailable,
)
from homeward.internal_port import bearer, internal_channel
from homeward.status import error_from_rpc, status_code
from homeward.telemetry import Operation, emit
from homeward.types import Query
from homeward.v1 import shard_pb2, shard_pb2_grpc
from index.columns import Bool, Columns
from index.merge import Partial
from index.rows_rpc import read_rows_answer, read_status, write_pushed
from index.shard_map import PlacedShard
from index.shard_rpc import read_found, write_query, write_slots
from index.shard_service import ANSWER_MAX_BYTES
from index.shard_types import Pushed, ShardStatus

PROBE_S = 1.0
_DRAIN_S = 10.0
_ASIDE_MOST = 10  # back-offs, for a shard that answers probes and is silent again when asked to search

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Asked:
    """Queries to ask of several shards."""

    queries: Sequence[Query]
    messages: Sequence[shard_pb2.ShardQuery]
    min_rev: int

    @classmethod
    def of(cls, queries: Sequence[Query], min_rev: int) -> Asked:
        """Raises `InvalidInput` for what cannot travel."""
        return cls(queries, [write_query(query) for query in queries], min_rev)


class ShardClient:
    """A channel to one process of a shard. For one event loop.

    Methods raise what the shard raised; `Unavailable`, `DeadlineExceeded` or whatever its status means
    when it did not answer; `Corrupt` for an answer that is none.
    """

    def __init__(
        self,
        placed: PlacedShard,
        token: SecretStr | None,
        *,
        model_id: str,
        dimension: int,
        in_flight_max: int,
        back_off_s: float,
    ) -> None:
        self.placed = placed
        self._called = f"shard {placed.name} at {placed.address}"
        self._token = bearer(token)
        self._model_id = model_id
        self._dimension = dimension
        self._in_flight_max = in_flight_max
        self._back_off_s = back_off_s
        self._channel = internal_channel(placed.address, max_answer_bytes=ANSWER_MAX_BYTES)
        # The generated stub is one class for both kinds of channel; its types are two.
        self._stub = cast(
            "shard_pb2_grpc.ShardServiceAsyncStub", shard_pb2_grpc.ShardServiceStub(self._channel)
        )
        self._in_flight = 0
        self._failures = 0  # since the last answer that took work
        self._probe_at: float | None = None

    @property
    def _metadata(self) -> Metadata:
        return (*self._token, *call_metadata())

    @property
    def up(self) -> bool:
        """Whether it answered when last asked anything; optimistic before."""
        return self._probe_at is None

    @property
    def is_probe_due(self) -> bool:
        """Whether the back-off after a failure is over."""
        return self._probe_at is not None and time.monotonic() >= self._probe_at

    async def search(self, asked: Asked, slots: Bool, timeout_s: float) -> tuple[tuple[Partial, ...], int]:
        """What the rows of these slots (SLOTS,) say of each query, and the rev at which they say it."""
        if self._in_flight >= self._in_flight_max:
            raise Overloaded(
                f"shard {self.placed.name} has {self._in_flight} searches waiting; try again shortly",
                queue="shard",
            )
        request = shard_pb2.SearchSlotsRequest(
            queries=asked.messages, slots=write_slots(slots), min_rev=asked.min_rev, model_id=self._model_id
        )
        self._in_flight += 1
        try:
            async with self._call("shard search"):
                answer = await self._stub.SearchSlots(request, timeout=timeout_s, metadata=self._metadata)
                parts, rev = read_found(answer, asked.queries, slots)
                self._failures = 0
                if rev < asked.min_rev:
                    raise Unavailable(
                        f"shard {self.placed.name} holds the changes up to rev {rev}, not {asked.min_rev}",
                        code="REV_NOT_REACHED",
                        rev=rev,
                    )
                return parts, rev
        finally:
            self._in_flight -= 1

    async def rows(self, record_id: str, timeout_s: float) -> Columns:
        """The record's rows, by face id."""
        request = shard_pb2.GetRowsRequest(record_id=bytes.fromhex(record_id), model_id=self._model_id)
        async with self._call("shard rows"):
            answer = await self._stub.GetRows(request, timeout=timeout_s, metadata=self._metadata)
            return read_rows_answer(answer, record_id, self._dimension)

    async def push(self, pushed: Sequence[Pushed], rev: int, timeout_s: float) -> int:
        """Tell what was committed; the rev that the shard has reached then."""
        request = shard_pb2.PushRequest(
            records=[write_pushed(one) for one in pushed], rev=rev, model_id=self._model_id
        )
        async with self._call("shard push", waits=True):
            answer = await self._stub.Push(request, timeout=timeout_s, metadata=self._metadata)
            return answer.rev

    async def status(self, timeout_s: float = PROBE_S) -> ShardStatus:
        """How the shard is."""
        async with self._call("shard status"):
            answer = await self._stub.GetShardStatus(
                shard_pb2.GetShardStatusRequest(), timeout=timeout_s, metadata=self._metadata
            )
            return read_status(answer)

    async def close(self) -> None:
        """Let running calls end, then close the channel."""
        await self._channel.close(grace=_DRAIN_S)

    @asynccontextmanager
    async def _call(self, name: str, *, waits: bool = False) -> AsyncIterator[None]:
        """Tell how a call ended; set the shard aside if it did not answer. One that `waits` for something
        may well be late."""
        started = time.perf_counter()
        outcome, reason = "CANCELLED", ""
        try:
            try:
                yield
            except grpc.aio.AioRpcError as failed:
                raise self._meant(failed, waits=waits) from failed
            except grpc.aio.UsageError as failed:
                raise self._gone() from failed
            except asyncio.CancelledError as failed:
                # A channel that closes cancels its calls as if their callers had.
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                raise self._gone() from failed
            self._probe_at = None
            outcome = "OK"
        except HomewardError as error:
            outcome, reason = status_code(type(error)).name, str(error.code)
            if isinstance(error, Corrupt | PermissionRefused):
                _logger.error("shard %s: %s", self.placed.name, error.message)  # noqa: TRY400 - it says all
            raise
        finally:
            emit(Operation(name, outcome, time.perf_counter() - started, reason=reason))

    def _meant(self, failed: grpc.aio.AioRpcError, *, waits: bool) -> HomewardError:
        error = error_from_rpc(failed)
        is_late = error.code == DeadlineExceeded.code
        if error.code == "SERVER_UNREACHABLE" or (is_late and not waits):
            if self.up:
                _logger.warning("%s is left alone for a while: %s", self._called, error.message)
            self._probe_at = time.monotonic() + self._back_off_s * min(2**self._failures, _ASIDE_MOST)
            self._failures = min(self._failures + 1, 16)
        elif not is_late:
            self._probe_at = None
        if error.code == "SERVER_UNREACHABLE":
            return Unavailable(f"{self._called} does not answer ({error.message})", code="SHARD_UNREACHABLE")
        return error

    def _gone(self) -> Unavailable:
        return Unavailable(f"{self._called} has left", code="SHARD_UNREACHABLE")
