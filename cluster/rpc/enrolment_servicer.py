"""EnrolmentService over an `Enrolment`. Errors are raised; the interceptor makes statuses of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import grpc

from cluster.enrolment import Enrolment
from cluster.rpc.convert import read_key
from cluster.rpc.enrolment_messages import (
    read_delete,
    read_enrol,
    read_update,
    write_deleted,
    write_enrolled,
)
from cluster.rpc.fields import KEY_CHARS, invalid, text
from cluster.rpc.record_messages import write_record
from homeward.config import EnrolSettings
from homeward.ids import check_id, check_sha256, record_id
from homeward.v1 import enrolment_pb2, enrolment_pb2_grpc

DEFAULT_PAGE = 100
TOKEN_CHARS = 512

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"  # generic in the stubs alone


class EnrolmentServicer(enrolment_pb2_grpc.EnrolmentServiceServicer):
    """Brings children in, changes what is known of them, and takes them out."""

    def __init__(self, settings: EnrolSettings, current: Callable[[], Enrolment]) -> None:
        """`current`: asked once per call, for the model may be switched between two."""
        self._settings = settings
        self._current = current

    async def EnrolRecord(
        self, request: enrolment_pb2.EnrolRecordRequest, context: _Context
    ) -> enrolment_pb2.EnrolRecordResponse:
        """One child with 1..n photos."""
        enrolment = self._current()
        command = read_enrol(
            request,
            scope=_scope(context),
            max_photos=self._settings.max_photos,
            model_id=enrolment.model_id,
        )
        return write_enrolled(await enrolment.enrol(command), enrolment.model_id)

    async def UpdateRecord(
        self, request: enrolment_pb2.UpdateRecordRequest, context: _Context
    ) -> enrolment_pb2.UpdateRecordResponse:
        """The attributes that the mask names."""
        enrolment = self._current()
        updated = await enrolment.update(read_update(request, scope=_scope(context)))
        return enrolment_pb2.UpdateRecordResponse(
            record=write_record(updated.record, enrolment.model_id), rev=updated.rev
        )

    async def GetRecord(
        self,
        request: enrolment_pb2.GetRecordRequest,
        context: _Context,
    ) -> enrolment_pb2.GetRecordResponse:
        """By id, or by the agency's own reference."""
        match request.WhichOneof("name"):
            case "record_id":
                name = check_id(request.record_id, "record_id")
            case "key":
                name = record_id(read_key(request.key))
            case _:
                raise invalid("name", "is missing; give record_id or key")
        enrolment = self._current()
        stored = await enrolment.get(name)
        return enrolment_pb2.GetRecordResponse(record=write_record(stored, enrolment.model_id))

    async def ListRecords(
        self,
        request: enrolment_pb2.ListRecordsRequest,
        context: _Context,
    ) -> enrolment_pb2.ListRecordsResponse:
        """A page of records in record id order."""
        enrolment = self._current()
        page = await enrolment.list(
            agency=text(request.agency, "agency", limit=KEY_CHARS),
            gallery=text(request.gallery, "gallery", limit=KEY_CHARS),
            searchable=request.searchable if request.HasField("searchable") else None,
            limit=min(request.page_size or DEFAULT_PAGE, self._settings.max_page),
            page_token=text(request.page_token, "page_token", limit=TOKEN_CHARS),
        )
        return enrolment_pb2.ListRecordsResponse(
            records=[write_record(record, enrolment.model_id) for record in page.records],
            next_page_token=page.next_page_token,
        )

    async def GetPhoto(
        self,
        request: enrolment_pb2.GetPhotoRequest,
        context: _Context,
    ) -> enrolment_pb2.GetPhotoResponse:
        """The bytes as they were given."""
        content, media_type = await self._current().photo(
            check_id(request.record_id, "record_id"), check_sha256(request.sha256, "sha256")
        )
        return enrolment_pb2.GetPhotoResponse(content=content, media_type=media_type)

    async def GetCrop(
        self,
        request: enrolment_pb2.GetCropRequest,
        context: _Context,
    ) -> enrolment_pb2.GetCropResponse:
        """The aligned face, made anew from the stored photo."""
        png = await self._current().crop(check_id(request.face_id, "face_id"))
        return enrolment_pb2.GetCropResponse(png=png)

    async def DeleteRecord(
        self, request: enrolment_pb2.DeleteRecordRequest, context: _Context
    ) -> enrolment_pb2.DeleteRecordResponse:
        """At the reply no search returns the child."""
        return write_deleted(await self._current().delete(read_delete(request, scope=_scope(context))))


def _scope(context: _Context) -> str:
    """Who is authenticated: callers with different certificates do not share request ids."""
    names = context.auth_context().get("x509_common_name", ())
    return b"".join(list(names)[:1]).decode("utf-8", "backslashreplace")
