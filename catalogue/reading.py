"""Reads records, photos, faces, the change log and the counts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import sqlalchemy as sa

from catalogue import rows, sql
from catalogue.rows import Values
from catalogue.tables import (
    changes,
    counter,
    erasures,
    faces,
    intents,
    photos,
    record_photos,
    records,
    tombstones,
)
from catalogue.types import Counts, FacePlace, Store, StoredFace, StoredPhoto, StoredRecord
from homeward.types import Change

_PHOTO_FACTS = (photos.c.media_type, photos.c.width, photos.c.height, photos.c.bytes)


def read_records(connection: sa.Connection, record_ids: Iterable[str]) -> dict[str, StoredRecord]:
    """Those of the records that exist."""
    found = sql.select_in(connection, sa.select(records), records.c.record_id, record_ids)
    return {record.record_id: record for record in _whole(connection, found)}


def list_records(
    connection: sa.Connection,
    *,
    agency: str | None,
    gallery: str | None,
    searchable: bool | None,
    after: str,
    limit: int,
) -> list[StoredRecord]:
    """Up to `limit` records beyond `after`, in record id order."""
    query = sa.select(records).where(records.c.record_id > after)
    if agency is not None:
        query = query.where(records.c.agency == agency)
    if gallery is not None:
        query = query.where(records.c.gallery == gallery)
    if searchable is not None:
        query = query.where(records.c.searchable == sa.literal(searchable))
    query = query.order_by(records.c.record_id).limit(limit)
    return _whole(connection, [dict(row) for row in connection.execute(query).mappings()])


def read_faces(connection: sa.Connection, column: sa.Column[str], values: Iterable[str]) -> list[StoredFace]:
    """Face rows by their face ids or record ids, in order of record, photo, model, ordinal."""
    found = [rows.face_of(row) for row in sql.select_in(connection, sa.select(faces), column, values)]
    return sorted(found, key=lambda face: (face.record_id, face.sha256, face.model_id, face.ordinal))


def face_places(connection: sa.Connection, after: str, limit: int) -> list[FacePlace]:
    """Up to `limit` face rows beyond `after`, in face id order."""
    query = (
        sa.select(faces.c.face_id, faces.c.record_id, faces.c.sha256, faces.c.model_id)
        .where(faces.c.face_id > after)
        .order_by(faces.c.face_id)
        .limit(limit)
    )
    return [FacePlace(*row) for row in connection.execute(query)]


def referenced_photos(connection: sa.Connection, agency: str, after: str, limit: int) -> list[str]:
    """Up to `limit` sha256 of an agency that records refer to, ascending, beyond `after`."""
    query = (
        sa.select(photos.c.sha256)
        .where(photos.c.agency == agency, photos.c.sha256 > after)
        .order_by(photos.c.sha256)
        .limit(limit)
    )
    return list(connection.execute(query).scalars())


def read_changes(connection: sa.Connection, rev: int, limit: int) -> list[Change]:
    """Up to `limit` changes after `rev`, oldest first."""
    query = (
        sa.select(changes.c.rev, changes.c.record_id, changes.c.deleted, changes.c.at)
        .where(changes.c.rev > rev)
        .order_by(changes.c.rev)
        .limit(limit)
    )
    return [Change(*row) for row in connection.execute(query)]


def read_agencies(connection: sa.Connection) -> list[str]:
    """Agencies that have records."""
    return list(connection.execute(sa.select(records.c.agency).distinct()).scalars())


def read_deleted(connection: sa.Connection, record_ids: Iterable[str]) -> list[str]:
    """Those of the records that have a tombstone."""
    query = sa.select(tombstones.c.record_id)
    return [row["record_id"] for row in sql.select_in(connection, query, tombstones.c.record_id, record_ids)]


def read_counts(connection: sa.Connection) -> Counts:
    """How much there is, in one state of the catalogue."""

    def count(table: sa.Table, *conditions: sa.ColumnElement[bool]) -> sa.ScalarSelect[int]:
        return sa.select(sa.func.count()).select_from(table).where(*conditions).scalar_subquery()

    row = connection.execute(
        sa.select(
            count(records),
            count(records, records.c.searchable == sa.true()),
            count(photos),
            count(faces),
            count(tombstones),
            count(erasures, erasures.c.store == Store.GALLERY.value),
            count(erasures, erasures.c.store == Store.PHOTOS.value),
            sa.select(sa.func.count(sa.distinct(intents.c.intent))).scalar_subquery(),
            sa.select(counter.c.rev).scalar_subquery(),
        )
    ).one()
    return Counts(*row)


def _whole(connection: sa.Connection, found: Sequence[Values]) -> list[StoredRecord]:
    """Records with their photos and faces."""
    record_ids = [row["record_id"] for row in found]
    by_photo: dict[tuple[str, str], list[StoredFace]] = defaultdict(list)
    for face in read_faces(connection, faces.c.record_id, record_ids):
        by_photo[face.record_id, face.sha256].append(face)
    by_record: dict[str, list[StoredPhoto]] = defaultdict(list)
    joined = sa.select(record_photos, *_PHOTO_FACTS).join(photos)
    held = sql.select_in(connection, joined, record_photos.c.record_id, record_ids)
    for row in sorted(held, key=lambda row: int(row["position"])):
        photo = rows.photo_of(row, by_photo[row["record_id"], row["sha256"]])
        by_record[row["record_id"]].append(photo)
    return [rows.record_of(row, by_record[row["record_id"]]) for row in found]
