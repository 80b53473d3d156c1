"""Requests and answers of EnrolmentService."""

from __future__ import annotations

import hashlib
from dataclasses import fields

from google.protobuf.message import Message

from catalogue.types import WriteResult
from cluster.enrolment_types import (
    Delete,
    Deleted,
    Enrol,
    Enrolled,
    RequestName,
    StoreErasure,
    Update,
)
from cluster.prepare import Outcome, Upload
from cluster.rpc.convert import (
    read_attributes,
    read_key,
    read_photo_note,
    write_time,
)
from cluster.rpc.fields import invalid, request_id, text
from cluster.rpc.record_messages import write_record
from homeward.face_message import write_face
from homeward.ids import check_id, face_id
from homeward.types import Attributes
from homeward.v1 import enrolment_pb2

# What "sex" means in a mask: a fact changes together with whether it is verified.
_MASK = {field.name: (field.name,) for field in fields(Attributes)} | {"sex": ("sex", "sex_verified")}
_VERSION_DIGITS = 18


def read_name(message: Message, name: str, scope: str) -> RequestName:
    """Name a write by its request_id and what it holds. Serialised deterministically, fields in order."""
    checked = request_id(name)
    digest = hashlib.sha256(message.DESCRIPTOR.full_name.encode() + b"\0")
    digest.update(message.SerializeToString(deterministic=True))
    return RequestName(checked, digest.hexdigest(), scope)


def read_etag(etag: str, field: str = "etag") -> int | None:
    """The version that an etag stands for; None without one."""
    if not etag:
        return None
    if not (etag.isascii() and etag.isdigit() and len(etag) <= _VERSION_DIGITS):
        raise invalid(field, "is no etag of this server; read the record again and use its etag")
    return int(etag)


def read_enrol(
    message: enrolment_pb2.EnrolRecordRequest, *, scope: str, max_photos: int, model_id: str
) -> Enrol:
    """Check everything but the photos' pixels."""
    if not message.photos:
        raise invalid("photos", "is empty; a record begins with at least one photo")
    if len(message.photos) > max_photos:
        raise invalid("photos", f"has {len(message.photos)} photos; send at most {max_photos} in one call")
    return Enrol(
        name=read_name(message, message.request_id, scope),
        key=read_key(message.key),
        attributes=read_attributes(message.attributes),
        uploads=tuple(
            Upload(photo.content, read_photo_note(photo, f"photos[{position}]"))
            for position, photo in enumerate(message.photos)
        ),
        version=read_etag(message.etag),
        reinstate=message.reinstate,
        encode=lambda outcomes, result: _answer(outcomes, result, model_id).SerializeToString(),
    )


def read_update(message: enrolment_pb2.UpdateRecordRequest, *, scope: str) -> Update:
    """Check record, mask and the attributes that the mask names."""
    mask: set[str] = set()
    for path in message.update_mask.paths:
        if path not in _MASK:
            known = ", ".join(sorted(_MASK))
            raise invalid("update_mask", f"names {path[:64]!r}; an update can name {known}")
        mask.update(_MASK[path])
    if not mask:
        raise invalid("update_mask", "is empty; name the attributes to change")
    return Update(
        name=read_name(message, message.request_id, scope),
        record_id=check_id(message.record_id, "record_id"),
        attributes=read_attributes(message.attributes),
        mask=frozenset(mask),
        version=read_etag(message.etag),
    )


def read_delete(message: enrolment_pb2.DeleteRecordRequest, *, scope: str) -> Delete:
    """Who deletes and why must be said: it is all that stays."""
    return Delete(
        name=read_name(message, message.request_id, scope),
        record_id=check_id(message.record_id, "record_id"),
        requester=text(message.requester, "requester", required=True),
        reason=text(message.reason, "reason", required=True),
    )


def write_enrolled(enrolled: Enrolled, model_id: str) -> enrolment_pb2.EnrolRecordResponse:
    """The answer that was stored, with the record as it is now."""
    response = enrolment_pb2.EnrolRecordResponse.FromString(enrolled.answer)
    response.record.CopyFrom(write_record(enrolled.record, model_id))
    return response


def write_deleted(deleted: Deleted) -> enrolment_pb2.DeleteRecordResponse:
    """Store by store, whether the bytes are gone."""
    return enrolment_pb2.DeleteRecordResponse(
        rev=deleted.rev, erasures=[_erasure(each) for each in deleted.erasures]
    )


def _erasure(erasure: StoreErasure) -> enrolment_pb2.StoreErasure:
    if erasure.pending_until is None:
        return enrolment_pb2.StoreErasure(store=erasure.store, erased=True)
    return enrolment_pb2.StoreErasure(
        store=erasure.store, erasure_pending_until=write_time(erasure.pending_until)
    )


def _answer(
    outcomes: tuple[Outcome, ...], result: WriteResult, model_id: str
) -> enrolment_pb2.EnrolRecordResponse:
    return enrolment_pb2.EnrolRecordResponse(
        outcomes=[_outcome(outcome, result.record_id, model_id) for outcome in outcomes],
        rev=result.rev,
        created=result.created,
    )


def _outcome(outcome: Outcome, record: str, model_id: str) -> enrolment_pb2.PhotoOutcome:
    ids = {face.ordinal: face_id(record, outcome.sha256, model_id, face.ordinal) for face in outcome.chosen}
    return enrolment_pb2.PhotoOutcome(
        sha256=outcome.sha256,
        code=outcome.code,
        message=outcome.message,
        faces=[write_face(face, ids.get(face.ordinal, "")) for face in outcome.seen],
        face_ids=list(ids.values()),
    )
