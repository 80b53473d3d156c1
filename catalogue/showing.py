"""Reads what a candidate list shows: the faces that speak, with their records, in one query.

It runs once in every search, on the way of its answer: rows are taken by position, and nothing is read that
is not shown.
"""

from __future__ import annotations

from collections.abc import Iterable

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from catalogue import reading
from catalogue.sql import chunks
from catalogue.tables import faces, records
from catalogue.types import ShownRecord, StoredRecord
from homeward.shown import as_candidate, as_evidence, retaken
from homeward.types import DateRange, RecordKey

_ALL = sa.select(
    faces.c.face_id,
    faces.c.record_id,
    faces.c.as_evidence,
    records.c.as_candidate,
    records.c.agency,
    records.c.gallery,
    records.c.external_reference,
).join_from(faces, records, records.c.record_id == faces.c.record_id)
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
    unmade = {row[1] for row in rows if row[2] is None or row[3] is None}
    whole = reading.read_records(connection, unmade) if unmade else {}
    found: dict[str, ShownRecord] = {}
    for face_id, record_id, evidence, candidate, *key in rows:
        parts = _made(whole.get(record_id), face_id) if record_id in unmade else (candidate, evidence)
        if parts is None:
            continue  # deleted a moment ago
        record = found.get(record_id)
        if record is None:
            found[record_id] = record = ShownRecord(record_id, RecordKey(*key), parts[0], {})
        record.faces[face_id] = parts[1]
    return found


def rewrite_taken(connection: sa.Connection, record_id: str, sha256: str, taken: DateRange | None) -> None:
    """Have the faces of the record's photo shown as taken then."""
    mine = sa.and_(faces.c.record_id == record_id, faces.c.sha256 == sha256)
    query = sa.select(faces.c.face_id, faces.c.as_evidence).where(mine, faces.c.as_evidence.is_not(None))
    for face_id, evidence in connection.execute(query).fetchall():
        connection.execute(
            sa.update(faces).where(faces.c.face_id == face_id).values(as_evidence=retaken(evidence, taken))
        )


def _made(record: StoredRecord | None, face_id: str) -> tuple[bytes, bytes] | None:
    """The parts of a record and a face that an earlier version wrote."""
    for photo in () if record is None else record.photos:
        for face in photo.faces:
            if face.face_id == face_id:
                assert record is not None
                return as_candidate(record.attributes), as_evidence(face, photo.note.taken)
    return None
