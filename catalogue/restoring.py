"""Writes a catalogue's tables from a backup into a catalogue without records, in one transaction.

Deletions are stronger than a backup. What was deleted after its rev, as the backup says or as the catalogue
that it is restored into remembers, is deleted again by the same function that deletes everything else.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from catalogue import sql
from catalogue.deleting import delete, tombstone_of
from catalogue.engine import Revs
from catalogue.enrolling import log_change
from catalogue.load_types import LoadState
from catalogue.rows import Values
from catalogue.tables import (
    changes,
    codes,
    erasures,
    intents,
    load_parts,
    load_records,
    loads,
    meta,
    photos,
    records,
    requests,
    tombstones,
)
from catalogue.types import Deletion, WriteResult
from catalogue.upgrade_tables import upgrades
from homeward.errors import Conflict

RESTORING = "restoring"  # setting: a restore was begun and has not ended; what is true is not all there yet

_OTHERS = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
    "AND application_name = 'homeward' AND pid <> pg_backend_pid()"
)
_GOODBYE_S = 3.0  # until the server has seen that a connection was given back
_OVERWRITTEN = (codes, tombstones, changes, requests, load_records, intents, upgrades)
UNFINISHED = (LoadState.PLANNING, LoadState.LOADING, LoadState.STOPPED, LoadState.CANCELLED)


@dataclass(frozen=True, slots=True)
class Gone:
    """A record that was deleted while a backup was made of an earlier state."""

    record_id: str
    at: datetime
    reason: str
    requester: str
    tombstone: bool = True  # False: it was brought back, or its load undone, since: only what it was is gone


def restore(
    revs: Revs,
    tables: Iterable[tuple[sa.Table, Sequence[Values]]],
    *,
    rev: int,
    gone: Iterable[Gone],
    mark: str,
) -> None:
    """Write the rows, in the order of `catalogue.snapshot.KEPT`, and delete again what must stay deleted.

    Raises `Conflict` (RESTORE_NOT_EMPTY)."""
    connection = revs.connection
    check_empty(connection)
    known = _known(connection)
    for table in _OVERWRITTEN:
        connection.execute(sa.delete(table))
    for table, values in tables:
        # What this catalogue has yet to erase, and settings of its own, stay.
        (sql.insert_new if table in (erasures, meta) else sql.insert)(connection, table, list(values))
    sql.upsert(connection, meta, [{"key": RESTORING, "value": mark}])
    _plan_anew(connection)
    revs.last = max(revs.last, rev)
    for one in gone:
        _delete_again(revs, one)
    for one in known:
        _delete_again(revs, one, unless_newer=True)


def check_alone(connection: sa.Connection) -> None:
    """Raise `Conflict` (RESTORE_IN_USE) while other processes are connected to a PostgreSQL catalogue: they
    would follow its change log before the templates are there. SQLite's one process owns it."""
    if connection.dialect.name == "sqlite":
        return
    give_up = time.monotonic() + _GOODBYE_S
    while True:
        connection.execute(sa.select(sa.func.pg_stat_clear_snapshot()))  # else it shows what it showed before
        others = int(connection.execute(sa.text(_OTHERS)).scalar_one())
        if not others:
            return
        if time.monotonic() > give_up:
            raise Conflict(
                f"other processes of Homeward use this catalogue ({others} connections): stop the servers, "
                "shards and loads first",
                code="RESTORE_IN_USE",
            )
        time.sleep(0.1)


def check_empty(connection: sa.Connection) -> None:
    """Raise `Conflict` (RESTORE_NOT_EMPTY) if there is anything that a restore would mix with."""
    for table in (records, photos, loads, load_parts):
        if connection.execute(sa.select(sa.literal(1)).select_from(table).limit(1)).first() is not None:
            raise Conflict(
                f"this system is not empty: its catalogue has {table.name}. A backup is restored into a new "
                "one: name another database or data folder in the settings",
                code="RESTORE_NOT_EMPTY",
            )


def _known(connection: sa.Connection) -> list[Gone]:
    columns = (tombstones.c.record_id, tombstones.c.at, tombstones.c.reason, tombstones.c.requester)
    return [Gone(*row) for row in connection.execute(sa.select(*columns).order_by(tombstones.c.rev))]


def _delete_again(revs: Revs, one: Gone, *, unless_newer: bool = False) -> None:
    connection = revs.connection
    query = sa.select(records.c.created_at).where(records.c.record_id == one.record_id)
    created_at = connection.execute(query).scalar_one_or_none()
    if created_at is not None:
        if unless_newer and created_at > one.at:
            return  # brought back after that deletion, before the backup
        delete(revs, Deletion(one.record_id, one.reason, one.requester), one.at)
        if not one.tombstone:
            connection.execute(sa.delete(tombstones).where(tombstones.c.record_id == one.record_id))
    elif one.tombstone and tombstone_of(connection, one.record_id) is None:
        rev = revs.take()
        row = {
            "record_id": one.record_id,
            "rev": rev,
            "at": one.at,
            "reason": one.reason,
            "requester": one.requester,
            "gallery_erased_at": one.at,
            "photos_erased_at": one.at,
        }
        sql.insert(connection, tombstones, [row])
        log_change(connection, WriteResult(one.record_id, rev, rev, deleted=True), one.at)


def _plan_anew(connection: sa.Connection) -> None:
    """Of loads under way the waiting parts are in no backup. What they had committed is there, and is theirs
    when they are planned again."""
    unfinished = sa.select(loads.c.name).where(loads.c.state.in_([state.value for state in UNFINISHED]))
    connection.execute(sa.delete(load_parts).where(load_parts.c.load.in_(unfinished)))
    connection.execute(
        sa.update(loads)
        .where(loads.c.name.in_(unfinished))
        .values(
            state=LoadState.PLANNING.value,
            parts=None,
            photos=None,
            holder="",
            heartbeat_at=None,
            message="restored from a backup: resume plans it anew",
        )
    )
