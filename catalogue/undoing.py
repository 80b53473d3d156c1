"""Takes back what a bulk load brought, record by record, and nothing else.

Unlike a deletion it leaves no tombstone: the archive may be loaded again.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa

from catalogue import sql
from catalogue.engine import Revs
from catalogue.enrolling import log_change
from catalogue.erasing import add_erasures, without_live
from catalogue.plan import why_unsearchable
from catalogue.rows import Values
from catalogue.tables import faces, photos, record_photos, records
from catalogue.types import Item, Store, WriteResult


def undo_some(revs: Revs, load: str, limit: int, now: datetime) -> int:
    """Take back up to `limit` records or what the load added to them; how many those were."""
    connection = revs.connection
    own = sa.union(
        sa.select(records.c.record_id).where(records.c.load == load),
        sa.select(record_photos.c.record_id).where(record_photos.c.load == load),
    ).subquery()
    query = sa.select(own.c.record_id).order_by(own.c.record_id).limit(limit)
    found = list(connection.execute(query).scalars())
    pending: list[Item] = []
    for record_id in found:
        pending += _take_back(revs, record_id, load, now)
    add_erasures(connection, pending, now)
    return len(found)


def _take_back(revs: Revs, record_id: str, load: str, now: datetime) -> list[Item]:
    connection = revs.connection
    row = dict(
        connection.execute(sa.select(records).where(records.c.record_id == record_id)).mappings().one()
    )
    held = connection.execute(sa.select(record_photos).where(record_photos.c.record_id == record_id))
    of_record = {found["sha256"]: dict(found) for found in held.mappings()}
    brought = {sha256 for sha256, photo in of_record.items() if photo["load"] == load}
    gone = _take_photos(connection, record_id, row["agency"], brought)
    left = {sha256: photo for sha256, photo in of_record.items() if sha256 not in brought}
    rev = revs.take()
    whole = row["load"] == load and not left
    if whole:
        connection.execute(sa.delete(records).where(records.c.record_id == record_id))
    else:
        heir = _heir(left) if row["load"] == load else row["load"]
        _leave(connection, {**row, "load": heir}, left, rev, now)
    removed = tuple(sorted(item.item for item in gone if item.store is Store.GALLERY))
    log_change(connection, WriteResult(record_id, rev, rev, deleted=whole, removed_faces=removed), now)
    return gone


def _take_photos(connection: sa.Connection, record_id: str, agency: str, brought: set[str]) -> list[Item]:
    """Remove these photos of the record; its face rows, and the photos that nothing refers to any more."""
    if not brought:
        return []
    of_record = faces.c.record_id == record_id
    found = sa.select(faces.c.face_id, faces.c.sha256).where(of_record)
    gone = [
        Item(Store.GALLERY, record_id, face_id)
        for face_id, sha256 in connection.execute(found).all()
        if sha256 in brought
    ]
    sql.delete_in(connection, faces, faces.c.face_id, [item.item for item in gone])
    for chunk in sql.chunks(sorted(brought)):
        connection.execute(
            sa.delete(record_photos).where(
                record_photos.c.record_id == record_id, record_photos.c.sha256.in_(chunk)
            )
        )
    last = without_live(
        connection, [Item(Store.PHOTOS, record_id, sha256, agency) for sha256 in sorted(brought)]
    )
    for chunk in sql.chunks(item.item for item in last):
        connection.execute(sa.delete(photos).where(photos.c.agency == agency, photos.c.sha256.in_(chunk)))
    return gone + last


def _leave(
    connection: sa.Connection,
    row: Values,
    left: dict[str, dict[str, Any]],
    rev: int,
    now: datetime,
) -> None:
    """The record stays with what others brought."""
    faces_left = sa.select(sa.func.count()).where(faces.c.record_id == row["record_id"])
    searchable = bool(connection.execute(faces_left).scalar_one())
    connection.execute(
        sa.update(records)
        .where(records.c.record_id == row["record_id"])
        .values(
            load=row["load"],
            searchable=searchable,
            unsearchable_reason="" if searchable else why_unsearchable(left),
            version=rev,
            updated_rev=rev,
            updated_at=now,
        )
    )


def _heir(left: dict[str, dict[str, Any]]) -> str:
    """Whose a record is that the load had created: of the load that brought the first of what is left, or of
    nobody if an enrolment brought any of it."""
    photos_ = sorted(left.values(), key=lambda photo: photo["position"])
    return "" if any(not photo["load"] for photo in photos_) else str(photos_[0]["load"])
