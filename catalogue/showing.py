"""Reads what a candidate list shows: the faces that speak, with their records' facts, in one query.

It runs once in every search, on the way of its answer: rows are taken by position, and nothing is read that
is not shown.
"""

from __future__ import annotations

from collections.abc import Iterable

import sqlalchemy as sa

from catalogue import reading
from catalogue.rows import face_of
from catalogue.sql import chunks
from catalogue.tables import faces
from catalogue.types import ShownRecord, StoredRecord
from homeward.shown import as_candidate, as_evidence
from homeward.types import Attributes, DateRange, RecordKey

_ALL = sa.select(faces.c.face_id, faces.c.record_id, faces.c.as_candidate, faces.c.as_evidence)
_IDS = "face_ids"
# PostgreSQL gets one text: the statement is the same for any number of faces, stays prepared, and nothing is
# made of them one by one.
_OF_TEXT = _ALL.where(
    faces.c.face_id == sa.any_(sa.func.string_to_array(sa.bindparam(_IDS, type_=sa.Text()), ","))
)
_OF_LIST = _ALL.where(faces.c.face_id.in_(sa.bindparam(_IDS, expanding=True)))


def read_shown(connection: sa.Connection, face_ids: Iterable[str]) -> dict[str, ShownRecord]:
    """The records, by id, of those of the faces that exist, with these faces."""
    if connection.dialect.name == "postgresql":
        rows = connection.execute(_OF_TEXT, {_IDS: ",".join(face_ids)}).fetchall()
    else:
        rows = [row for some in chunks(face_ids) for row in connection.execute(_OF_LIST, {_IDS: some})]
    unmade = {row[1] for row in rows if row[2] is None or row[3] is None}
    whole = reading.read_records(connection, unmade) if unmade else {}
    found: dict[str, ShownRecord] = {}
    for face_id, record_id, candidate, evidence in rows:
        parts = _made(whole.get(record_id), face_id) if record_id in unmade else (candidate, evidence)
        if parts is None:
            continue  # deleted a moment ago
        record = found.get(record_id)
        if record is None:
            found[record_id] = record = ShownRecord(record_id, parts[0], {})
        record.faces[face_id] = parts[1]
    return found


def rewrite_facts(connection: sa.Connection, record_id: str, key: RecordKey, attributes: Attributes) -> None:
    """Have the record's faces shown with these."""
    mine = faces.c.record_id == record_id
    connection.execute(sa.update(faces).where(mine).values(as_candidate=as_candidate(key, attributes)))


def rewrite_taken(connection: sa.Connection, record_id: str, sha256: str, taken: DateRange | None) -> None:
    """Have the faces of the record's photo shown as taken then."""
    query = sa.select(faces).where(faces.c.record_id == record_id, faces.c.sha256 == sha256)
    for row in connection.execute(query).mappings().fetchall():
        evidence = as_evidence(face_of(dict(row)), taken)
        connection.execute(
            sa.update(faces).where(faces.c.face_id == row["face_id"]).values(as_evidence=evidence)
        )


def _made(record: StoredRecord | None, face_id: str) -> tuple[bytes, bytes] | None:
    """The parts of a record and a face that an earlier version wrote."""
    for photo in () if record is None else record.photos:
        for face in photo.faces:
            if face.face_id == face_id:
                assert record is not None
                return as_candidate(record.key, record.attributes), as_evidence(face, photo.note.taken)
    return None
