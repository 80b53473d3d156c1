"""Reads what a candidate list shows: the faces that speak, with record and photo, in one query.

It runs once in every search, on the way of its answer: rows are taken by position, and nothing is read that
is not shown.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from catalogue import reading
from catalogue.sql import chunks
from catalogue.tables import faces, record_photos, records
from catalogue.types import ShownFace, ShownRecord
from homeward.face_message import write_face
from homeward.types import Attributes, DateRange, RecordKey, Sex

_FACE = (faces.c.face_id, faces.c.record_id, faces.c.sha256, faces.c.shown)
_TAKEN = (record_photos.c.taken_earliest, record_photos.c.taken_latest, record_photos.c.taken_verified)
_KEY = (records.c.agency, records.c.gallery, records.c.external_reference)
_ATTRIBUTES = (
    records.c.born_earliest,
    records.c.born_latest,
    records.c.born_verified,
    records.c.sex,
    records.c.sex_verified,
    records.c.event_earliest,
    records.c.event_latest,
    records.c.event_verified,
    records.c.event_place,
    records.c.case_reference,
    records.c.provenance,
    records.c.legal_basis,
)
_ALL = (
    sa.select(*_FACE, *_TAKEN, *_KEY, *_ATTRIBUTES)
    .select_from(faces)
    .join(
        record_photos,
        sa.and_(record_photos.c.record_id == faces.c.record_id, record_photos.c.sha256 == faces.c.sha256),
    )
    .join(records, records.c.record_id == faces.c.record_id)
)
_IDS = "face_ids"
# PostgreSQL gets one array: the statement is the same for any number of faces, and stays prepared.
_OF_ARRAY = _ALL.where(faces.c.face_id == sa.any_(sa.bindparam(_IDS, type_=postgresql.ARRAY(sa.Text()))))
_OF_LIST = _ALL.where(faces.c.face_id.in_(sa.bindparam(_IDS, expanding=True)))


def read_shown(connection: sa.Connection, face_ids: Iterable[str]) -> dict[str, ShownRecord]:
    """The records, by id, of those of the faces that exist, with these faces."""
    if connection.dialect.name == "postgresql":
        rows = connection.execute(_OF_ARRAY, {_IDS: list(face_ids)}).fetchall()
    else:
        rows = [row for some in chunks(face_ids) for row in connection.execute(_OF_LIST, {_IDS: some})]
    messages = _messages(connection, [row[0] for row in rows if row[3] is None])
    found: dict[str, ShownRecord] = {}
    for row in rows:
        face_id, record_id, sha256, message = row[:4]
        if message is None and (message := messages.get(face_id)) is None:
            continue  # deleted a moment ago
        record = found.get(record_id)
        if record is None:
            record = ShownRecord(record_id, RecordKey(*row[7:10]), _attributes(*row[10:]), {})
            found[record_id] = record
        record.faces[face_id] = ShownFace(face_id, sha256, message, _range(row[4], row[5], row[6]))
    return found


def _messages(connection: sa.Connection, face_ids: Iterable[str]) -> dict[str, bytes]:
    """Of faces that the first version wrote."""
    return {
        face.face_id: write_face(face).SerializeToString(deterministic=True)
        for face in reading.read_faces(connection, faces.c.face_id, face_ids)
    }


def _attributes(*row: Any) -> Attributes:
    born, sex, verified, event, texts = row[0:3], row[3], row[4], row[5:8], row[8:12]
    return Attributes(_range(*born), Sex(sex), bool(verified), _range(*event), *texts)


def _range(earliest: date | None, latest: date | None, verified: bool) -> DateRange | None:
    if earliest is None or latest is None:
        return None
    return DateRange(earliest, latest, verified)
