"""A client's view of enrolment in tests, and whether all stores of a server tell the same of it."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import grpc
import pytest

from cluster.compose import Parts
from cluster.rpc.status import error_from_rpc
from cluster.server import OpenParts, RunningServer, running_server
from homeward.config import ServerSettings, Settings
from homeward.errors import HomewardError
from homeward.types import FaceRow
from homeward.v1 import enrolment_pb2, operations_pb2, records_pb2, search_pb2
from homeward.v1.enrolment_pb2_grpc import EnrolmentServiceStub
from homeward.v1.operations_pb2_grpc import OperationsServiceStub
from index.columns import INTEGER_COLUMNS, Columns
from tests.cluster.clients import search_stub
from tests.cluster.fakes import MODEL_ID, FakeEmbedding, fake_template
from tests.cluster.serving import CASE, opening

if TYPE_CHECKING:  # the generator writes these names into the type stubs only
    from homeward.v1.enrolment_pb2_grpc import EnrolmentServiceAsyncStub
    from homeward.v1.operations_pb2_grpc import OperationsServiceAsyncStub

GONE = ("NOT_FOUND", "RECORD_DELETED")
_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class Client:
    """The three services over one channel."""

    enrolment: EnrolmentServiceAsyncStub
    operations: OperationsServiceAsyncStub
    search: Any

    async def enrol(self, request: enrolment_pb2.EnrolRecordRequest) -> enrolment_pb2.EnrolRecordResponse:
        return await self.enrolment.EnrolRecord(request)

    async def get(self, record: str) -> records_pb2.Record:
        answer = await self.enrolment.GetRecord(enrolment_pb2.GetRecordRequest(record_id=record))
        return answer.record

    async def delete(self, record: str, request_id: str = "") -> enrolment_pb2.DeleteRecordResponse:
        return await self.enrolment.DeleteRecord(deletion(record, request_id))

    async def found(self, photo: bytes, ordinal: int = 0, **filters: Any) -> dict[str, float]:
        """Record ids and scores that a search with that face's own template gives."""
        values = fake_template(photo, ordinal).tolist()
        answer = await self.search.Search(
            search_pb2.SearchRequest(
                context=CASE,
                template=search_pb2.Template(values=values, model_id=MODEL_ID),
                limit=1000,
                filter=search_pb2.SearchFilter(**filters),
            )
        )
        return {one.record_id: one.comparison_score for one in answer.lists[0].candidates}

    async def checks(self, *, mend: bool = False) -> dict[str, operations_pb2.Check]:
        answer = await self.operations.Diagnose(operations_pb2.DiagnoseRequest(mend=mend))
        return {check.name: check for check in answer.checks}


def client_of(channel: grpc.aio.Channel) -> Client:
    """The stubs in their asyncio form."""
    return Client(
        cast("EnrolmentServiceAsyncStub", EnrolmentServiceStub(channel)),
        cast("OperationsServiceAsyncStub", OperationsServiceStub(channel)),
        search_stub(channel),
    )


@asynccontextmanager
async def serving(
    folder: Path, embedding: FakeEmbedding | None = None, open_parts: OpenParts | None = None
) -> AsyncIterator[tuple[RunningServer, Client]]:
    """A server over a socket, with the embedded stores in `folder`."""
    settings = Settings(data_dir=folder, server=ServerSettings(address="127.0.0.1:0"))
    async with (
        running_server(settings, open_parts or opening(embedding)) as running,
        grpc.aio.insecure_channel(running.address) as channel,
    ):
        yield running, client_of(channel)


def upload(content: bytes, **what: Any) -> enrolment_pb2.PhotoUpload:
    return enrolment_pb2.PhotoUpload(content=content, **what)


def key(reference: str, agency: str = "agency-a", gallery: str = "missing") -> records_pb2.RecordKey:
    return records_pb2.RecordKey(agency=agency, gallery=gallery, external_reference=reference)


def enrolling(
    name: str, photos: Iterable[bytes | enrolment_pb2.PhotoUpload], **what: Any
) -> enrolment_pb2.EnrolRecordRequest:
    """A request about the child `name`; its request id is new unless it is given."""
    what.setdefault("request_id", f"enrol-{next(_numbers)}")
    what.setdefault("key", key(name))
    uploads = [upload(photo) if isinstance(photo, bytes) else photo for photo in photos]
    return enrolment_pb2.EnrolRecordRequest(photos=uploads, **what)


def deletion(record: str, request_id: str = "") -> enrolment_pb2.DeleteRecordRequest:
    return enrolment_pb2.DeleteRecordRequest(
        request_id=request_id or f"delete-{next(_numbers)}",
        record_id=record,
        requester="officer 7",
        reason="the family asked",
    )


async def refusal(call: Any) -> tuple[grpc.StatusCode, HomewardError]:
    """Status and error of a call that must fail."""
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call
    return failed.value.code(), error_from_rpc(failed.value)


def rows_of(columns: Iterable[Columns]) -> dict[str, FaceRow]:
    return {row.face_id: row for part in columns for row in part.face_rows()}


def check_agreement(parts: Parts) -> int:
    """Catalogue, gallery, index and photo store hold the same children; how many rows that are."""
    rows = check_stores(parts)
    parts.follower.catch_up()
    records = {row.record_id for row in rows.values()}
    indexed = rows_of(parts.index.record_rows(record) for record in records)
    assert parts.index.rows == len(rows)
    _same_rows(indexed, rows)
    return len(rows)


def check_stores(parts: Any) -> dict[str, FaceRow]:
    """As `check_agreement` without an index: `parts` has a catalogue, a gallery and photos."""
    catalogue = parts.catalogue
    gallery = rows_of(parts.gallery.iterate())
    wanted = {face.face_id: (face.record_id, face.sha256) for face in catalogue.all_faces()}
    assert {one: (row.record_id, row.photo_sha256) for one, row in gallery.items()} == wanted
    records = {row.record_id for row in gallery.values()}
    facts = {record: catalogue.row_source(record) for record in records}
    for row in gallery.values():
        columns = facts[row.record_id][row.photo_sha256]
        assert all(
            getattr(row, name) == getattr(columns, name) for name in INTEGER_COLUMNS if name != "ordinal"
        )
    agencies = {*parts.photos.agencies(), *catalogue.agencies()}
    for agency in agencies:
        stored = list(parts.photos.list(agency, None, 100_000))
        assert stored == list(catalogue.referenced_photos(agency))
        for sha256 in stored:
            parts.photos.get(agency, sha256)
    assert catalogue.pending_erasures() == []
    return gallery


def _same_rows(some: dict[str, FaceRow], others: dict[str, FaceRow]) -> None:
    assert some.keys() == others.keys()
    for face, row in some.items():
        assert all(getattr(row, name) == getattr(others[face], name) for name in INTEGER_COLUMNS)
        assert row.template.tobytes() == others[face].template.tobytes()
