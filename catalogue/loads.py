"""Bulk loads inside a transaction: who drives one, what of it is done.

A load has one driver at a time. Taking it raises its `fence`, and every commit of a part names the fence
that it was begun under: what a driver that was thought dead has yet under way cannot commit any more. The
heartbeat only keeps a second driver from taking a load by mistake; nothing depends on clocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

import sqlalchemy as sa

from catalogue import sql
from catalogue.erasing import add_erasures
from catalogue.load_reading import document_of, load_of, outcome_item
from catalogue.load_types import DonePart, Lease, Load, LoadState
from catalogue.tables import load_parts, load_records, loads, tombstones
from homeward.errors import Conflict


def create(connection: sa.Connection, name: str, spec: str, holder: str, now: datetime) -> Lease:
    """A new load and the right to drive it; see `LoadLedger.create`."""
    # Of a load that was discarded the name can be used again, but none of its fences.
    lease = Lease(name, int(1000 * now.timestamp()))
    row = {
        "name": name,
        "state": LoadState.PLANNING.value,
        "fence": lease.fence,
        "holder": holder,
        "heartbeat_at": now,
        "spec": spec,
        "parts": None,
        "photos": None,
        "model_id": "",
        "dimension": 0,
        "created_at": now,
        "finished_at": None,
        "message": "",
    }
    if not sql.insert_if_new(connection, loads, row):
        raise Conflict(
            f"there is a load {name} already; homeward load status {name} says how far it is, resume goes on "
            "with it, and another archive takes another name",
            code="LOAD_EXISTS",
            load=name,
        )
    return lease


def take(
    connection: sa.Connection,
    name: str,
    holder: str,
    lapse: timedelta,
    now: datetime,
    *,
    dead: int | None,
) -> Lease:
    """The right to drive a load that nobody drives; see `LoadLedger.take`."""
    load = load_of(connection, name, lock=True)
    alive = load.driven and load.fence != dead
    if alive and load.heartbeat_at is not None and load.heartbeat_at > now - lapse:
        silent = max(0.0, (now - load.heartbeat_at).total_seconds())
        raise Conflict(
            f"{load.holder} is at work on {name} (it last said so {silent:.0f} s ago)",
            code="LOAD_BUSY",
            load=name,
        )
    lease = Lease(name, load.fence + 1)
    change = {"fence": lease.fence, "holder": holder, "heartbeat_at": now, "message": ""}
    connection.execute(sa.update(loads).where(loads.c.name == name).values(change))
    return lease


def renew(connection: sa.Connection, lease: Lease, now: datetime) -> None:
    """Say that the driver lives; see `LoadLedger.renew`."""
    _set(connection, lease, heartbeat_at=now)


def check(connection: sa.Connection, lease: Lease) -> None:
    """Raise `Conflict` (LEASE_LOST) unless the lease holds; it holds until this transaction ends."""
    query = sa.select(loads.c.fence).where(loads.c.name == lease.load).with_for_update(read=True)
    if connection.execute(query).scalar_one_or_none() != lease.fence:
        raise _lost(lease)


def planned(connection: sa.Connection, lease: Lease, parts: int, photos: int, spec: str) -> None:
    """Its parts lie ready; see `LoadLedger.planned`."""
    _set(connection, lease, state=LoadState.LOADING.value, parts=parts, photos=photos, spec=spec)


def settle_model(connection: sa.Connection, lease: Lease, model_id: str, dimension: int) -> None:
    """See `LoadLedger.settle_model`."""
    load = load_of(connection, lease.load, lock=True)  # first: two who share it could not both have it alone
    if load.fence != lease.fence:
        raise _lost(lease)
    if not load.model_id:
        _set(connection, lease, model_id=model_id, dimension=dimension)
    elif load.model_id != model_id:
        raise Conflict(
            f"the load was begun with model {load.model_id}, not {model_id}: resume it with the same "
            "workers.bundle",
            code="LOAD_MODEL",
            load=lease.load,
        )


def discard(connection: sa.Connection, lease: Lease) -> None:
    """See `LoadLedger.discard`."""
    load = load_of(connection, lease.load, lock=True)
    if load.fence != lease.fence:
        raise _lost(lease)
    if load.parts is not None:
        raise Conflict(f"{lease.load} was planned: undo it", code="LOAD_PLANNED", load=lease.load)
    connection.execute(sa.delete(load_records).where(load_records.c.load == lease.load))
    connection.execute(sa.delete(loads).where(loads.c.name == lease.load))


def begin(connection: sa.Connection, lease: Lease, state: LoadState) -> None:
    """See `LoadLedger.begin`."""
    _set(connection, lease, state=state.value, finished_at=None, message="")


def release(connection: sa.Connection, lease: Lease, state: LoadState, message: str, now: datetime) -> None:
    """Nobody drives it any more; see `LoadLedger.release`."""
    ended = now if state in (LoadState.DONE, LoadState.UNDONE) else None
    _set(
        connection,
        lease,
        state=state.value,
        holder="",
        heartbeat_at=None,
        message=message[:1000],
        finished_at=ended,
    )


def cancel(connection: sa.Connection, name: str) -> Load:
    """Take the load from whoever drives it; see `LoadLedger.cancel`."""
    load = load_of(connection, name, lock=True)
    if load.state in (LoadState.DONE, LoadState.UNDONE):
        raise Conflict(f"{name} is {load.state}: there is nothing to cancel", code="LOAD_ENDED", load=name)
    state = load.state if load.state in (LoadState.PLANNING, LoadState.UNDOING) else LoadState.CANCELLED
    connection.execute(
        sa.update(loads)
        .where(loads.c.name == name)
        .values(state=state.value, fence=load.fence + 1, holder="", heartbeat_at=None, message="cancelled")
    )
    return load_of(connection, name)


def add_parts(
    connection: sa.Connection,
    lease: Lease,
    records_of: Mapping[int, Iterable[str]],
    now: datetime,
    *,
    reinstate_until: int,
) -> None:
    """See `LoadLedger.add_parts`."""
    check(connection, lease)
    named = [
        {"record_id": record, "load": lease.load, "part": part}
        for part, record_ids in records_of.items()
        for record in sorted(set(record_ids))
    ]
    sql.insert_new(connection, load_records, named)
    _forget_deleted(connection, lease.load, list(records_of), now, after=reinstate_until)


def laid_ready(
    connection: sa.Connection, lease: Lease, parts: Sequence[int], now: datetime, *, reinstate_until: int
) -> None:
    """See `LoadLedger.laid_ready`."""
    check(connection, lease)
    _forget_deleted(connection, lease.load, parts, now, after=reinstate_until)


def commit_part(connection: sa.Connection, lease: Lease, part: DonePart, now: datetime) -> str:
    """See `LoadLedger.commit_part`."""
    check(connection, lease)
    row = {
        "load": lease.load,
        "part": part.part,
        "document": part.document,
        "photos": part.photos,
        "faces": part.faces,
        "rejected": part.rejected,
        "at": now,
    }
    sql.insert_if_new(connection, load_parts, row)
    # Of one that was done before too: its file may just have been written again.
    _forget_deleted(connection, lease.load, [part.part], now)
    counts = document_of(connection, lease.load, part.part)
    assert counts is not None
    return counts


def _forget_deleted(
    connection: sa.Connection, load: str, parts: Sequence[int], now: datetime, *, after: int = 0
) -> None:
    """Records that were deleted, behind the rev `after`, while a document that names them was being written
    must go from it."""
    query = (
        sa.select(load_records.c.record_id, load_records.c.part)
        .join(tombstones, tombstones.c.record_id == load_records.c.record_id)
        .where(load_records.c.load == load, load_records.c.part.in_(parts), tombstones.c.rev > after)
    )
    items = [outcome_item(row.record_id, load, row.part) for row in connection.execute(query)]
    add_erasures(connection, items, now)


def _set(connection: sa.Connection, lease: Lease, **values: object) -> None:
    held = (loads.c.name == lease.load) & (loads.c.fence == lease.fence)
    if connection.execute(sa.update(loads).where(held).values(**values)).rowcount != 1:
        raise _lost(lease)


def _lost(lease: Lease) -> Conflict:
    return Conflict(
        f"{lease.load} was taken over or cancelled; this driver's work on it ends here",
        code="LEASE_LOST",
        load=lease.load,
    )
