"""Writes batches of enrolments, and updates: one transaction, one rev per record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from datetime import datetime

import sqlalchemy as sa

from catalogue import loads, rows, sql, upgrades
from catalogue.checks import check_attributes, check_note, check_request, check_write
from catalogue.engine import Revs
from catalogue.erasing import add_erasures, live_again, settle
from catalogue.load_types import Lease
from catalogue.plan import (
    FaceRef,
    Plan,
    RecordState,
    answer,
    check_version,
    replay,
    request_row,
)
from catalogue.rows import Values
from catalogue.showing import rewrite_facts, rewrite_taken
from catalogue.tables import (
    changes,
    faces,
    intents,
    photos,
    record_photos,
    records,
    requests,
    tombstones,
)
from catalogue.types import Item, RecordUpdate, RecordWrite, Request, Store, WriteResult
from homeward.errors import Conflict, HomewardError, InvalidInput, NotFound, RecordDeleted
from homeward.ids import check_id
from homeward.types import Attributes

_ATTRIBUTES = frozenset(field.name for field in fields(Attributes))


def apply(
    revs: Revs, writes: Sequence[RecordWrite], now: datetime, lease: Lease | None = None
) -> list[WriteResult | HomewardError]:
    """Write a batch inside one transaction; see `Catalogue.apply`."""
    connection = revs.connection
    if lease is not None:
        loads.check(connection, lease)
    upgrading = upgrades.check_model(connection, {write.model_id for write in writes})
    results: list[WriteResult | HomewardError | None] = [None] * len(writes)
    checked: dict[int, str] = {}
    for at, write in enumerate(writes):
        try:
            checked[at] = check_write(write)
        except HomewardError as error:
            results[at] = error
    named = {write.intent for write in writes if write.intent is not None}
    begun = {
        row["intent"]
        for row in sql.select_in(connection, sa.select(intents.c.intent).distinct(), intents.c.intent, named)
    }
    plan = _load(revs, [(record_id, writes[at]) for at, record_id in checked.items()], now)
    for at, record_id in checked.items():
        try:
            results[at] = _enrol(plan, record_id, writes[at], begun)
        except HomewardError as error:
            results[at] = error
    _write(connection, plan)
    if upgrading is not None:
        upgrades.forget_coverage(connection, plan.record_photos)
    while revs.last < plan.last_rev:
        revs.take()
    settle(connection, begun, plan.live(), now)
    return [result for result in results if result is not None]


def _enrol(plan: Plan, record_id: str, write: RecordWrite, begun: set[str]) -> WriteResult:
    if write.intent is not None and write.intent not in begun:
        done = replay(plan.requests, write.request)
        if done is not None:
            return done
        raise Conflict(
            "this write took so long that its intent lapsed and its photos may have been swept; begin again",
            code="INTENT_LAPSED",
        )
    return plan.enrol(record_id, write)


def update(revs: Revs, change: RecordUpdate, now: datetime) -> WriteResult:
    """Change one record inside one transaction; see `Catalogue.update`."""
    connection = revs.connection
    record_id = check_id(change.record_id, "record_id")
    if change.request is not None:
        check_request(change.request)
        done = replay(load_requests(connection, [change.request]), change.request)
        if done is not None:
            return done
    row = _row_of(connection, record_id)
    check_version(change.expected_version, row["version"])
    attributes = _masked(rows.attributes_of(row), change)
    check_attributes(attributes)
    for sha256, note in change.notes.items():
        check_note(note)
        result = connection.execute(
            sa.update(record_photos)
            .where(record_photos.c.record_id == record_id, record_photos.c.sha256 == sha256)
            .values(rows.note_to_row(note))
        )
        if result.rowcount == 0:
            raise NotFound("the record has no such photo", record_id=record_id, sha256=sha256)
        rewrite_taken(connection, record_id, sha256, note.taken)
    rev = revs.take()
    result_ = answer(
        WriteResult(record_id=record_id, rev=rev, version=rev, searchable=row["searchable"]), change.request
    )
    connection.execute(
        sa.update(records)
        .where(records.c.record_id == record_id)
        .values(**rows.attributes_to_row(attributes), version=rev, updated_rev=rev, updated_at=now)
    )
    rewrite_facts(connection, record_id, rows.key_of(row), attributes)
    log_change(connection, result_, now)
    if change.request is not None:
        sql.insert(connection, requests, [request_row(change.request, result_, now)])
    return result_


def log_change(connection: sa.Connection, result: WriteResult, now: datetime) -> None:
    """Append one line to the change log."""
    row = {"rev": result.rev, "record_id": result.record_id, "deleted": result.deleted, "at": now}
    sql.insert(connection, changes, [row])


def load_requests(connection: sa.Connection, wanted: Sequence[Request]) -> dict[tuple[str, str], Values]:
    """Requests of these ids that were done before, by scope and id."""
    if not wanted:
        return {}
    found = sql.select_in(
        connection, sa.select(requests), requests.c.request_id, {request.request_id for request in wanted}
    )
    return {(row["scope"], row["request_id"]): row for row in found}


def _row_of(connection: sa.Connection, record_id: str) -> Values:
    row = connection.execute(sa.select(records).where(records.c.record_id == record_id)).mappings().first()
    if row is not None:
        return dict(row)
    gone = sa.select(tombstones.c.record_id).where(tombstones.c.record_id == record_id)
    if connection.execute(gone).first() is not None:
        raise RecordDeleted("this record was deleted", record_id=record_id)
    raise NotFound("there is no such record", record_id=record_id)


def _masked(current: Attributes, change: RecordUpdate) -> Attributes:
    if change.attributes is None:
        return current
    if change.mask is None:
        return change.attributes
    if unknown := change.mask - _ATTRIBUTES:
        raise InvalidInput(
            f"an attribute has no field {', '.join(sorted(unknown))}", code="MASK_INVALID", field="mask"
        )
    return replace(current, **{name: getattr(change.attributes, name) for name in change.mask})


def _load(revs: Revs, items: Sequence[tuple[str, RecordWrite]], now: datetime) -> Plan:
    connection = revs.connection
    states = {record_id: RecordState() for record_id, _ in items}
    for row in sql.select_in(connection, sa.select(records), records.c.record_id, states):
        states[row["record_id"]].row = row
    # A new record has neither photos nor faces: a batch of new ones asks no more.
    known = [record_id for record_id, state in states.items() if state.row is not None]
    for row in sql.select_in(connection, sa.select(record_photos), record_photos.c.record_id, known):
        states[row["record_id"]].photos[row["sha256"]] = row
    references = sa.select(faces.c.face_id, faces.c.record_id, faces.c.sha256, faces.c.model_id)
    for row in sql.select_in(connection, references, faces.c.record_id, known):
        states[row["record_id"]].faces[row["face_id"]] = FaceRef(row["sha256"], row["model_id"])
    gone = sa.select(tombstones.c.record_id, tombstones.c.rev)
    for row in sql.select_in(connection, gone, tombstones.c.record_id, states):
        states[row["record_id"]].tombstone = row["rev"]
    asked = [write.request for _, write in items if write.request is not None]
    return Plan(revs.last, now, states, load_requests(connection, asked))


def _write(connection: sa.Connection, plan: Plan) -> None:
    sql.delete_in(connection, tombstones, tombstones.c.record_id, plan.reinstated)
    sql.upsert(connection, records, list(plan.records.values()))
    sql.upsert(connection, photos, list(plan.photos.values()))
    sql.upsert(connection, record_photos, list(plan.record_photos.values()))
    sql.delete_in(connection, faces, faces.c.face_id, plan.faces_gone)
    sql.upsert(connection, faces, list(plan.faces.values()))
    for record_id, facts in plan.facts.items():
        rewrite_facts(connection, record_id, *facts)
    for (record_id, sha256), taken in plan.taken.items():
        rewrite_taken(connection, record_id, sha256, taken)
    sql.insert(connection, changes, plan.changes)
    sql.insert(connection, requests, plan.new_requests)
    gone = [Item(Store.GALLERY, record_id, face_id) for face_id, record_id in plan.faces_gone.items()]
    add_erasures(connection, gone, plan.now)
    live_again(connection, plan.live(), plan.now)
