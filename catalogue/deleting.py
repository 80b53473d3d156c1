"""Tombstones: a deleted child stays deleted, and no word of it stays behind."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

import sqlalchemy as sa

from catalogue import load_reading, sql
from catalogue.checks import check_name, check_request
from catalogue.engine import Revs
from catalogue.enrolling import load_requests, log_change
from catalogue.erasing import add_erasures, without_live
from catalogue.plan import answer, check_version, replay, request_row
from catalogue.tables import (
    erasures,
    faces,
    photos,
    record_photos,
    records,
    requests,
    tombstones,
)
from catalogue.types import Deletion, Item, Store, Tombstone, WriteResult
from homeward.errors import NotFound
from homeward.ids import check_id


def delete(revs: Revs, deletion: Deletion, now: datetime) -> WriteResult:
    """Replace a record by its tombstone; see `Catalogue.delete`."""
    connection = revs.connection
    record_id = check_id(deletion.record_id, "record_id")
    check_name(deletion.reason, "reason")
    check_name(deletion.requester, "requester")
    if deletion.request is not None:
        check_request(deletion.request)
        done = replay(load_requests(connection, [deletion.request]), deletion.request)
        if done is not None:
            return done
    version = connection.execute(
        sa.select(records.c.version).where(records.c.record_id == record_id)
    ).scalar_one_or_none()
    if version is None:
        result = _deleted_before(connection, record_id)
    else:
        check_version(deletion.expected_version, version)
        rev = revs.take()
        items = _take_apart(connection, record_id)
        gone = tuple(sorted(item.item for item in items if item.store is Store.GALLERY))
        result = WriteResult(record_id=record_id, rev=rev, version=rev, deleted=True, removed_faces=gone)
        _bury(connection, result, deletion, items, now)
    result = answer(result, deletion.request)
    if deletion.request is not None:
        sql.insert(connection, requests, [request_row(deletion.request, result, now)])
    return result


def tombstone_of(connection: sa.Connection, record_id: str) -> Tombstone | None:
    """The record's tombstone, if it has one."""
    query = sa.select(tombstones).where(tombstones.c.record_id == record_id)
    row = connection.execute(query).mappings().first()
    return None if row is None else Tombstone(**row)


def tombstones_of(connection: sa.Connection, record_ids: Iterable[str]) -> dict[str, Tombstone]:
    """Those of the records that have a tombstone, with it."""
    found = sql.select_in(connection, sa.select(tombstones), tombstones.c.record_id, record_ids)
    return {row["record_id"]: Tombstone(**row) for row in found}


def _deleted_before(connection: sa.Connection, record_id: str) -> WriteResult:
    stone = tombstone_of(connection, record_id)
    if stone is None:
        raise NotFound("there is no such record", record_id=record_id)
    return WriteResult(record_id=record_id, rev=stone.rev, version=stone.rev, deleted=True)


def _take_apart(connection: sa.Connection, record_id: str) -> list[Item]:
    """Remove the record's rows; its face rows, the outcome files that speak of it, and those photos that
    nothing refers to any more."""
    face_ids = connection.execute(sa.select(faces.c.face_id).where(faces.c.record_id == record_id)).scalars()
    items = [Item(Store.GALLERY, record_id, face_id) for face_id in face_ids]
    items += load_reading.outcomes_of(connection, record_id)
    held = connection.execute(
        sa.select(record_photos.c.agency, record_photos.c.sha256).where(
            record_photos.c.record_id == record_id
        )
    ).all()
    for table in (faces, record_photos, records):
        connection.execute(sa.delete(table).where(table.c.record_id == record_id))
    named = [Item(Store.PHOTOS, record_id, sha256, agency) for agency, sha256 in held]
    last = without_live(connection, named)
    if last:
        connection.execute(
            sa.delete(photos).where(
                photos.c.agency == sa.bindparam("a"), photos.c.sha256 == sa.bindparam("s")
            ),
            [{"a": item.agency, "s": item.item} for item in last],
        )
    return items + last


def _bury(
    connection: sa.Connection, result: WriteResult, deletion: Deletion, items: list[Item], now: datetime
) -> None:
    # Answers to earlier requests speak of the child; that the requests were made stays known.
    connection.execute(
        sa.update(requests).where(requests.c.record_id == result.record_id).values(response=None)
    )
    sql.insert(
        connection,
        tombstones,
        [
            {
                "record_id": result.record_id,
                "rev": result.rev,
                "at": now,
                "reason": deletion.reason,
                "requester": deletion.requester,
                "gallery_erased_at": None,
                "photos_erased_at": None,
            }
        ],
    )
    add_erasures(connection, items, now)
    for store, column in (
        (Store.GALLERY, tombstones.c.gallery_erased_at),
        (Store.PHOTOS, tombstones.c.photos_erased_at),
    ):
        # Earlier leftovers of the record count too: only with none at all is the store clean.
        left = sa.exists().where(erasures.c.record_id == result.record_id, erasures.c.store == store.value)
        connection.execute(
            sa.update(tombstones)
            .where(tombstones.c.record_id == result.record_id, ~left)
            .values({column: now})
        )
    log_change(connection, result, now)
