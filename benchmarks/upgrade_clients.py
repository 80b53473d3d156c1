"""Clients of `benchmarks.upgrade`: they search all the time, enrol and delete, and measure rank 1."""

from __future__ import annotations

import asyncio
import io
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from math import hypot
from typing import TYPE_CHECKING, cast

import grpc
from PIL import Image

from benchmarks.serve_clients import CONTEXT
from homeward.ids import record_id
from homeward.types import RecordKey
from homeward.v1 import enrolment_pb2, records_pb2, search_pb2
from homeward.v1.enrolment_pb2_grpc import EnrolmentServiceStub
from homeward.v1.search_pb2_grpc import SearchServiceStub

if TYPE_CHECKING:
    from homeward.v1.enrolment_pb2_grpc import EnrolmentServiceAsyncStub
    from homeward.v1.search_pb2_grpc import SearchServiceAsyncStub

AGENCY, GALLERY = "bench", "missing"
PAUSE_S = 0.25  # between a client's searches: they watch, and leave the cores to the work
_AT_A_TIME = 8


@dataclass(slots=True)
class Watched:
    """What clients that never stop saw."""

    searches: int = 0
    failed: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    models: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Probe:
    """A photo of somebody who is enrolled with another one."""

    identity: str
    photo: bytes


@asynccontextmanager
async def searching(addresses: Sequence[str], probes: Sequence[Probe]) -> AsyncIterator[Watched]:
    """Search at every server by a client of its own while the context lasts."""
    watched = Watched()
    stop = asyncio.Event()

    async def client(number: int, address: str) -> None:
        async with grpc.aio.insecure_channel(address) as channel:
            stub = cast("SearchServiceAsyncStub", SearchServiceStub(channel))
            while not stop.is_set():
                probe = probes[number % len(probes)]
                number += len(addresses)
                request = search_pb2.SearchRequest(context=CONTEXT, photo=probe.photo, limit=5)
                watched.searches += 1
                try:
                    answer = await stub.Search(request, timeout=60)
                    watched.models[answer.account.model_id] += 1
                    if not any(one.candidates for one in answer.lists):
                        watched.errors["NO_CANDIDATE"] += 1
                        watched.failed += 1
                except grpc.aio.AioRpcError as error:
                    if error.code() is not grpc.StatusCode.INVALID_ARGUMENT:  # NO_FACE: an answer of its own
                        watched.failed += 1
                        watched.errors[f"{error.code().name} {error.details()}"[:200]] += 1
                await asyncio.sleep(PAUSE_S)

    tasks = [asyncio.create_task(client(at, address)) for at, address in enumerate(addresses)]
    try:
        yield watched
    finally:
        stop.set()
        await asyncio.gather(*tasks)


async def rank1(address: str, probes: Sequence[Probe]) -> dict[str, float]:
    """The share of probes whose own record comes first; the most central face of each counts, and a probe
    without a face is a miss, as in `benchmarks.accuracy`."""
    turns = asyncio.Semaphore(_AT_A_TIME)
    async with grpc.aio.insecure_channel(address) as channel:
        stub = cast("SearchServiceAsyncStub", SearchServiceStub(channel))

        async def one(probe: Probe) -> tuple[bool, bool]:
            request = search_pb2.SearchRequest(context=CONTEXT, photo=probe.photo, limit=1)
            async with turns:
                try:
                    answer = await stub.Search(request, timeout=60)
                except grpc.aio.AioRpcError as error:
                    if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
                        return False, False
                    raise
            found = _central(answer, probe.photo).candidates
            return bool(found) and found[0].key.external_reference == probe.identity, True

        answers = await asyncio.gather(*map(one, probes))
    return {
        "probes": len(answers),
        "rank1": sum(first for first, _ in answers) / len(answers),
        "probes_without_face": sum(not seen for _, seen in answers),
    }


async def enrol(address: str, photos: Sequence[tuple[str, bytes]]) -> list[str]:
    """Enrol one record for each; their ids."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = cast("EnrolmentServiceAsyncStub", EnrolmentServiceStub(channel))
        for reference, photo in photos:
            await stub.EnrolRecord(
                enrolment_pb2.EnrolRecordRequest(
                    request_id=f"enrol {reference}",
                    key=records_pb2.RecordKey(agency=AGENCY, gallery=GALLERY, external_reference=reference),
                    photos=[
                        enrolment_pb2.PhotoUpload(content=photo, choice=records_pb2.FACE_CHOICE_MOST_CENTRAL)
                    ],
                ),
                timeout=120,
            )
    return [name_of(reference) for reference, _ in photos]


async def delete(address: str, references: Sequence[str]) -> list[str]:
    """Delete these records; their ids."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = cast("EnrolmentServiceAsyncStub", EnrolmentServiceStub(channel))
        for reference in references:
            await stub.DeleteRecord(
                enrolment_pb2.DeleteRecordRequest(
                    request_id=f"delete {reference}",
                    record_id=name_of(reference),
                    requester="benchmarks",
                    reason="measuring an upgrade",
                ),
                timeout=120,
            )
    return [name_of(reference) for reference in references]


def name_of(reference: str) -> str:
    """The id of a record of this benchmark."""
    return record_id(RecordKey(AGENCY, GALLERY, reference))


def _central(answer: search_pb2.SearchResponse, photo: bytes) -> search_pb2.CandidateList:
    width, height = Image.open(io.BytesIO(photo)).size

    def apart(one: search_pb2.CandidateList) -> float:
        box = one.face.box
        return hypot(box.x + box.width / 2 - width / 2, box.y + box.height / 2 - height / 2)

    return min(answer.lists, key=apart)
