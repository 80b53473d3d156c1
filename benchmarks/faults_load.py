"""Searches at a steady rate, whatever becomes of them, while records are enrolled and deleted."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import grpc
import numpy as np

from benchmarks.faults_truth import K, Life, Truth
from benchmarks.open_loop import Answer, searching
from catalogue.store import Catalogue
from catalogue.types import WriteResult
from cluster.demo.distractors import Distractor
from cluster.live import ShardedIndex
from homeward.types import Float32
from homeward.v1 import enrolment_pb2, search_pb2
from homeward.v1.enrolment_pb2_grpc import EnrolmentServiceStub
from index.columns import from_rows
from index.gallery import MilvusGallery
from index.shard_types import Pushed

if TYPE_CHECKING:
    from homeward.v1.enrolment_pb2_grpc import EnrolmentServiceAsyncStub

TIMEOUT_S = 20.0
WRITE_S = 2.0  # between writes: an enrolment, a deletion, an enrolment, ...
_DELETED_RANKS = 5  # of a probe's list, so that a deletion shows
_DELETED_PROBES = 32
_CONTEXT = search_pb2.SearchContext(
    case_reference="benchmark", purpose="measuring faults", requester="benchmarks.faults"
)


@dataclass(slots=True)
class Writer:
    """Enrols, with stores and a way to the shards of its own as another server would, and deletes through the
    server. Goes on with the next load where it stopped."""

    catalogue: Catalogue
    gallery: MilvusGallery
    live: ShardedIndex
    newcomers: Iterator[Distractor]
    truth: Truth
    here: list[str] = field(default_factory=list)  # newcomers that can be deleted
    chance: random.Random = field(default_factory=lambda: random.Random(3))
    enrolled: int = 0
    deleted: int = 0
    errors: list[str] = field(default_factory=list)

    async def run(self, channel: grpc.aio.Channel) -> None:
        """Write until cancelled."""
        stub = cast("EnrolmentServiceAsyncStub", EnrolmentServiceStub(channel))
        for number, newcomer in enumerate(self.newcomers):
            await asyncio.sleep(WRITE_S)
            await self._enrol(newcomer)
            await asyncio.sleep(WRITE_S)
            await self._delete(stub, self._newcomer() if number % 3 == 2 else self._candidate())

    def _newcomer(self) -> str:
        return self.here.pop(self.chance.randrange(len(self.here))) if self.here else self._candidate()

    def _candidate(self) -> str:
        """One of the first of some probe's list."""
        best = self.truth.best(self.chance.randrange(_DELETED_PROBES))
        return next(
            one for one in best[self.chance.randrange(_DELETED_RANKS) :] if one not in self.truth.lives
        )

    async def _enrol(self, newcomer: Distractor) -> None:
        record = newcomer.rows[0].record_id
        life = self.truth.lives[record]
        life.comes = time.monotonic()
        try:
            await asyncio.to_thread(self._write, record, newcomer)
        except Exception as error:  # noqa: BLE001 - it is told, and the record may or may not be there
            self.errors.append(f"enrolling: {type(error).__name__}: {error}")
            return
        life.there = time.monotonic()
        self.enrolled += 1
        self.here.append(record)

    def _write(self, record: str, newcomer: Distractor) -> None:
        self.gallery.upsert(newcomer.rows)
        (result,) = self.catalogue.apply([newcomer.write])
        if not isinstance(result, WriteResult):
            raise result
        rows = from_rows(newcomer.rows, len(newcomer.rows[0].template))
        self.live.catch_up([Pushed(record, result.rev, rows, ())])

    async def _delete(self, stub: EnrolmentServiceAsyncStub, record: str) -> None:
        life = self.truth.lives.setdefault(record, Life())
        life.goes = time.monotonic()
        request = enrolment_pb2.DeleteRecordRequest(
            request_id=f"faults-{record}", record_id=record, requester="benchmarks.faults", reason="a test"
        )
        try:
            await stub.DeleteRecord(request, timeout=TIMEOUT_S)
        except grpc.aio.AioRpcError as failed:
            self.errors.append(f"deleting: {failed.code().name}: {failed.details()}")
            return
        life.gone = time.monotonic()
        self.deleted += 1


@asynccontextmanager
async def loaded(
    address: str, requests: Sequence[search_pb2.SearchRequest], writer: Writer, rate: float
) -> AsyncIterator[list[Answer]]:
    """Search, so many times a second and the requests in turns, and write while the context lasts. Yields the
    answers so far; at the end those under way are waited for."""
    options = [("grpc.max_receive_message_length", 32 << 20)]
    async with (
        grpc.aio.insecure_channel(address, options=options) as channel,
        searching(channel, requests, rate, TIMEOUT_S) as answers,
    ):
        writing = asyncio.create_task(writer.run(channel))
        try:
            yield answers
        finally:
            writing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await writing


def searches(probes: Float32, model_id: str) -> list[search_pb2.SearchRequest]:
    """Requests by template."""
    return [
        search_pb2.SearchRequest(
            context=_CONTEXT,
            template=search_pb2.Template(values=probe.tolist(), model_id=model_id),
            limit=K,
        )
        for probe in probes
    ]


def near(probes: Float32, count: int, seed: int) -> Float32:
    """(count, d) templates close to the probes in turns, each a little further away than the one before."""
    generator = np.random.default_rng(seed)
    base = probes[np.arange(count) % len(probes)].astype(np.float64)
    noise = generator.standard_normal(base.shape)
    noise *= np.linspace(0.05, 0.4, count)[:, np.newaxis] / np.linalg.norm(noise, axis=1, keepdims=True)
    drawn = base + noise
    found: Float32 = (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)
    return found
