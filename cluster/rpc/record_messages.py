"""Records of the catalogue as messages."""

from __future__ import annotations

from catalogue.types import StoredPhoto, StoredRecord
from cluster.rpc.convert import (
    write_attributes,
    write_choice,
    write_time,
)
from homeward.face_message import write_face
from homeward.shown import write_date_range, write_key
from homeward.v1 import records_pb2


def write_record(record: StoredRecord, model_id: str) -> records_pb2.Record:
    """The record with the faces of the model that is in use; templates of others are never compared."""
    return records_pb2.Record(
        record_id=record.record_id,
        key=write_key(record.key),
        attributes=write_attributes(record.attributes),
        photos=[write_photo(photo, model_id) for photo in record.photos],
        etag=record.etag,
        searchable=record.searchable,
        unsearchable_reason=record.unsearchable_reason,
        created_at=write_time(record.created_at),
        updated_at=write_time(record.updated_at),
        rev=record.updated_rev,
        load=record.load,
    )


def write_photo(photo: StoredPhoto, model_id: str) -> records_pb2.Photo:
    """One photo of a record and what became of it."""
    return records_pb2.Photo(
        sha256=photo.sha256,
        media_type=photo.media_type,
        width=photo.width,
        height=photo.height,
        taken=write_date_range(photo.note.taken),
        choice=write_choice(photo.note.choice),
        ordinal=photo.note.ordinal,
        provenance=photo.note.provenance,
        outcome=photo.outcome,
        faces=[write_face(face, face.face_id) for face in photo.faces if face.model_id == model_id],
        faces_seen=photo.faces_seen,
    )
