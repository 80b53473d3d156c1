"""One enrolment at one server and the searches for it at another, and one deletion and what is seen then."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import grpc

from benchmarks.fresh_people import Person
from benchmarks.serve_clients import CONTEXT
from homeward.v1 import enrolment_pb2, records_pb2, search_pb2
from homeward.v1.enrolment_pb2_grpc import EnrolmentServiceStub
from homeward.v1.search_pb2_grpc import SearchServiceStub

if TYPE_CHECKING:
    from homeward.v1.enrolment_pb2_grpc import EnrolmentServiceAsyncStub
    from homeward.v1.search_pb2_grpc import SearchServiceAsyncStub

PROMISED_S = 1.0  # a search that begins later must show an enrolment, whatever rev it asks for
_K = 5
_GIVE_UP_S = 30.0
_TIMEOUT_S = 120.0
_DELETERS = 8
_AGAIN_S = (0.0, 0.1, 0.5)  # after a deletion's reply: when it is searched for


class Server:
    """One of the servers, as a client sees it."""

    def __init__(self, channel: grpc.aio.Channel, model_id: str) -> None:
        self._enrolment = cast("EnrolmentServiceAsyncStub", EnrolmentServiceStub(channel))
        self._search = cast("SearchServiceAsyncStub", SearchServiceStub(channel))
        self._model_id = model_id

    async def enrol(self, number: int, person: Person) -> enrolment_pb2.EnrolRecordResponse:
        """Enrol the person under that number."""
        return await self._enrolment.EnrolRecord(
            enrolment_pb2.EnrolRecordRequest(
                request_id=str(uuid.uuid4()),
                key=records_pb2.RecordKey(
                    agency="benchmark", gallery="found", external_reference=f"{number}/{uuid.uuid4()}"
                ),
                photos=[
                    enrolment_pb2.PhotoUpload(
                        content=person.photo, choice=records_pb2.FACE_CHOICE_MOST_CENTRAL
                    )
                ],
            ),
            timeout=_TIMEOUT_S,
        )

    async def delete(self, record: str) -> None:
        """Delete the record."""
        request = enrolment_pb2.DeleteRecordRequest(
            request_id=str(uuid.uuid4()), record_id=record, requester="benchmarks", reason="measured"
        )
        await self._enrolment.DeleteRecord(request, timeout=_TIMEOUT_S)

    async def shows(self, person: Person, record: str, min_rev: int = 0) -> bool:
        """Whether a search with the person's template shows the record."""
        answer = await self._search.Search(
            search_pb2.SearchRequest(
                context=CONTEXT,
                template=search_pb2.Template(values=person.template.tolist(), model_id=self._model_id),
                limit=_K,
                min_rev=min_rev,
            ),
            timeout=_TIMEOUT_S,
        )
        return record in {one.record_id for one in answer.lists[0].candidates}


@dataclass(slots=True)
class Seen:
    """What all pairs found."""

    pairs: int = 0
    enrol_s: list[float] = field(default_factory=list)
    asked_s: list[float] = field(default_factory=list)  # from the reply until the first search that shows it
    shown_s: list[float] = field(default_factory=list)  # until that search's answer
    demanded_s: list[float] = field(default_factory=list)  # until the answer that had to contain the rev
    missed_late: int = 0  # begun after `PROMISED_S`, and did not show it
    missed_on_demand: int = 0
    not_enrolled: dict[str, int] = field(default_factory=dict)  # by reason
    left: set[str] = field(default_factory=set)  # ids of records that were not deleted again
    deletions: int = 0
    deleted_searches: int = 0
    deleted_seen: int = 0


async def enrol_and_find(seen: Seen, at: Server, other: Server, number: int, person: Person) -> str | None:
    """Enrol at one server, and search at the other from the reply on: without a rev until the record shows,
    and with the write's; its id. None when the photo was refused."""
    started = time.perf_counter()
    answer = await at.enrol(number, person)
    replied = time.perf_counter()
    record = answer.record.record_id
    seen.left.add(record)
    code = answer.outcomes[0].code
    if code != "ENROLLED":
        seen.not_enrolled[code] = seen.not_enrolled.get(code, 0) + 1
        return None
    seen.pairs += 1
    seen.enrol_s.append(replied - started)

    async def on_demand() -> None:
        try:
            found = await other.shows(person, record, answer.rev)
        except grpc.aio.AioRpcError:
            found = False
        seen.missed_on_demand += not found
        seen.demanded_s.append(time.perf_counter() - replied)

    async def by_itself() -> None:
        while (asked := time.perf_counter()) < replied + _GIVE_UP_S:
            if await other.shows(person, record):
                seen.asked_s.append(asked - replied)
                seen.shown_s.append(time.perf_counter() - replied)
                break
            if asked > replied + PROMISED_S:
                seen.missed_late += 1
                break

    await asyncio.gather(on_demand(), by_itself())
    return record


async def delete_and_look(
    seen: Seen, at: Server, servers: tuple[Server, Server], person: Person, record: str
) -> None:
    """Delete at one server; from the reply on neither may show the record."""
    await at.delete(record)
    replied = time.perf_counter()
    seen.deletions += 1
    seen.left.discard(record)
    for after in _AGAIN_S:
        await asyncio.sleep(max(0.0, replied + after - time.perf_counter()))
        shown = await asyncio.gather(*(server.shows(person, record) for server in servers))
        seen.deleted_searches += len(shown)
        seen.deleted_seen += sum(shown)


async def delete_all(seen: Seen, at: Server) -> None:
    """Delete what is left."""

    async def caller() -> None:
        while seen.left:
            await at.delete(seen.left.pop())

    await asyncio.gather(*(caller() for _ in range(_DELETERS)))


@asynccontextmanager
async def connected(addresses: tuple[str, str], model_id: str) -> AsyncIterator[tuple[Server, Server]]:
    """Both servers, while the context lasts."""
    async with AsyncExitStack() as stack:
        first, second = [
            Server(await stack.enter_async_context(grpc.aio.insecure_channel(one)), model_id)
            for one in addresses
        ]
        yield first, second
