"""What a second model makes of enrolled photos, inside a transaction: written, looked for, and cleared away.

A photo is covered by the model that it was enrolled with, and by another once `coverage` says what that made
of it. So what is left to do is a question to the catalogue, and whoever is killed leaves nothing to repair.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from catalogue import rows, sql, upgrades
from catalogue.engine import Revs
from catalogue.enrolling import log_change
from catalogue.erasing import add_erasures, live_again, settle
from catalogue.load_types import Lease
from catalogue.plan import why_unsearchable
from catalogue.rows import Values
from catalogue.tables import faces, record_photos, records
from catalogue.types import Item, Store, WriteResult
from catalogue.upgrade_tables import coverage
from catalogue.upgrade_types import Cover, UpgradeState

_NOBODY_FOLLOWS = UpgradeState.EMBEDDING


def cover(
    revs: Revs,
    model_id: str,
    covers: Sequence[Cover],
    *,
    intents: Sequence[str],
    now: datetime,
    lease: Lease | None,
) -> int:
    """Write what a model made of photos; see `UpgradeLedger.cover`."""
    connection = revs.connection
    found = upgrades.under_way(connection) if lease is None else upgrades.check(connection, lease)
    upgrades.check_model(connection, {model_id})
    named = {one.record_id for one in covers}
    held = _by_record(connection, sa.select(records), records.c.record_id, named)
    photos = _by_photo(connection, record_photos, named)
    done = _by_photo(connection, coverage, named, coverage.c.model_id == model_id)
    fresh = [
        one
        for one in covers
        if one.record_id in held
        and held[one.record_id]["version"] == one.version
        and (one.record_id, one.sha256) not in done
        and photos[one.record_id, one.sha256]["model_id"] != model_id
    ]
    written = _write_faces(connection, model_id, fresh, held=held, photos=photos, now=now)
    sql.insert(
        connection,
        coverage,
        [
            {
                "record_id": one.record_id,
                "sha256": one.sha256,
                "model_id": model_id,
                "outcome": one.outcome,
                "faces_seen": one.faces_seen,
                "placed": one.placed,
                "lost": one.lost,
            }
            for one in fresh
        ],
    )
    changed = {one.record_id for one in fresh}
    found_now = {one.record_id for one in fresh if one.faces}
    for chunk in sql.chunks(sorted(found_now)):
        connection.execute(
            sa.update(records)
            .where(records.c.record_id.in_(chunk), ~records.c.searchable)
            .values(searchable=True, unsearchable_reason="")
        )
    if found.state is not _NOBODY_FOLLOWS:  # an index of the model may be following
        for record_id in sorted(changed):
            log_change(connection, WriteResult(record_id, revs.take(), 0), now)
    live_again(connection, written, now)
    settle(connection, intents, written, now)
    return len(fresh)


def uncovered(connection: sa.Connection, model_id: str, after: str, photos: int) -> list[str]:
    """Records with a photo that the model does not cover, in order, behind the record `after`: as many as
    have so many such photos."""
    query = (
        sa.select(record_photos.c.record_id)
        .where(record_photos.c.record_id > after, _uncovered(model_id))
        .order_by(record_photos.c.record_id)
        .limit(photos)
    )
    return list(dict.fromkeys(connection.execute(query).scalars()))


def count_uncovered(connection: sa.Connection, model_id: str) -> int:
    """Photos that the model does not cover."""
    query = sa.select(sa.func.count()).select_from(record_photos).where(_uncovered(model_id))
    return int(connection.execute(query).scalar_one())


def count_faces(connection: sa.Connection, model_id: str) -> int:
    """Face rows of the model."""
    query = sa.select(sa.func.count()).select_from(faces).where(faces.c.model_id == model_id)
    return int(connection.execute(query).scalar_one())


def covered_photos(
    connection: sa.Connection, model_id: str, record_ids: Iterable[str]
) -> frozenset[tuple[str, str]]:
    """Of these records the photos (record, sha256) that the model covers."""
    named = set(record_ids)
    done = set(_by_photo(connection, coverage, named, coverage.c.model_id == model_id))
    own = _by_photo(connection, record_photos, named, record_photos.c.model_id == model_id)
    return frozenset(done | set(own))


def forget_losses(connection: sa.Connection, model_id: str) -> int:
    """See `UpgradeLedger.forget_losses`."""
    mine = sa.and_(coverage.c.model_id == model_id, coverage.c.lost > 0)
    return int(connection.execute(sa.delete(coverage).where(mine)).rowcount)


def retire_some(connection: sa.Connection, keep: str, drop: str, after: str, limit: int) -> str | None:
    """Take the rows of a model out of the next records behind `after`; the last of them, None at the end.

    What `keep` made of their photos becomes what the photos say of themselves."""
    query = (
        sa.select(records.c.record_id)
        .where(records.c.record_id > after)
        .order_by(records.c.record_id)
        .limit(limit)
    )
    found = list(connection.execute(query).scalars())
    for chunk in sql.chunks(found):
        connection.execute(sa.delete(faces).where(faces.c.record_id.in_(chunk), faces.c.model_id == drop))
        kept = _by_photo(connection, coverage, chunk, coverage.c.model_id == keep)
        _promote(connection, list(kept.values()))
        connection.execute(sa.delete(coverage).where(coverage.c.record_id.in_(chunk)))
        _mark_unsearchable(connection, chunk)
    return found[-1] if found else None


def _promote(connection: sa.Connection, kept: Sequence[Values]) -> None:
    if kept:
        connection.execute(
            sa.update(record_photos)
            .where(
                record_photos.c.record_id == sa.bindparam("r"), record_photos.c.sha256 == sa.bindparam("s")
            )
            .values(outcome=sa.bindparam("o"), faces_seen=sa.bindparam("n"), model_id=sa.bindparam("m")),
            [
                {
                    "r": row["record_id"],
                    "s": row["sha256"],
                    "o": row["outcome"],
                    "n": row["faces_seen"],
                    "m": row["model_id"],
                }
                for row in kept
            ],
        )


def _mark_unsearchable(connection: sa.Connection, record_ids: Sequence[str]) -> None:
    """Records whose last face went with the model say so, and why."""
    left = sa.exists().where(faces.c.record_id == records.c.record_id)
    query = sa.select(records.c.record_id).where(
        records.c.record_id.in_(record_ids), records.c.searchable, ~left
    )
    bare = list(connection.execute(query).scalars())
    photos = _by_photo(connection, record_photos, bare)
    for record_id in bare:
        own = {sha256: row for (record, sha256), row in photos.items() if record == record_id}
        connection.execute(
            sa.update(records)
            .where(records.c.record_id == record_id)
            .values(searchable=False, unsearchable_reason=why_unsearchable(own))
        )


def _write_faces(
    connection: sa.Connection,
    model_id: str,
    covers: Sequence[Cover],
    *,
    held: Mapping[str, Values],
    photos: Mapping[tuple[str, str], Values],
    now: datetime,
) -> list[Item]:
    """Replace the model's face rows of these photos; the items that live now."""
    made: dict[str, Values] = {}
    for one in covers:
        record = held[one.record_id]
        key, attributes = rows.key_of(record), rows.attributes_of(record)
        note = rows.note_of(photos[one.record_id, one.sha256])
        for face in one.faces:
            made[face.face_id] = rows.face_values(
                face, one.record_id, one.sha256, model_id, key=key, attributes=attributes, taken=note.taken
            )
    wanted = {(one.record_id, one.sha256) for one in covers}
    query = sa.select(faces.c.face_id, faces.c.record_id, faces.c.sha256).where(faces.c.model_id == model_id)
    before = sql.select_in(connection, query, faces.c.record_id, {one.record_id for one in covers})
    gone = [
        Item(Store.GALLERY, row["record_id"], row["face_id"])
        for row in before
        if (row["record_id"], row["sha256"]) in wanted and row["face_id"] not in made
    ]
    sql.delete_in(connection, faces, faces.c.face_id, [item.item for item in gone])
    sql.upsert(connection, faces, list(made.values()))
    add_erasures(connection, gone, now)
    return [Item(Store.GALLERY, row["record_id"], face_id) for face_id, row in made.items()]


def _uncovered(model_id: str) -> sa.ColumnElement[bool]:
    done = sa.exists().where(
        coverage.c.record_id == record_photos.c.record_id,
        coverage.c.sha256 == record_photos.c.sha256,
        coverage.c.model_id == model_id,
    )
    return sa.and_(record_photos.c.model_id != model_id, ~done)


def _by_record(
    connection: sa.Connection, query: sa.Select[Any], column: sa.ColumnElement[Any], named: Iterable[str]
) -> dict[str, Values]:
    return {row["record_id"]: row for row in sql.select_in(connection, query, column, named)}


def _by_photo(
    connection: sa.Connection, table: sa.Table, named: Iterable[str], *where: sa.ColumnElement[bool]
) -> dict[tuple[str, str], Values]:
    query = sa.select(table).where(*where)
    found = sql.select_in(connection, query, table.c.record_id, named)
    return {(row["record_id"], row["sha256"]): row for row in found}
