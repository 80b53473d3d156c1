"""Deletion, and the safe removal of what other stores hold.

The race to be won: one writer stores a photo that is there already (so it writes nothing) and is
about to commit its reference, while the sweeper removes the photo because its last reference went.
So a writer says what it will store *before* it does (`begin`), and the sweeper (`erase`) removes an
item inside a transaction that holds the item's row of `erasures` and saw no intent on it:

* the writer begins first: the sweeper sees the intent and leaves the item;
* the sweeper holds the row first: `begin` waits for its end, and the writer then stores anew.

PostgreSQL's row locks, or SQLite's one writer, end with the process that held them: a crashed
sweeper has removed nothing, or something whose row is still there. The commit of the writer makes
the item live and takes it out of `erasures`. Face rows go the same way, so that a child reinstated
while it is being erased keeps its rows.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

import sqlalchemy as sa

from catalogue import sql
from catalogue.rows import Values
from catalogue.tables import erasures, faces, intents, record_photos, tombstones
from catalogue.types import Item, Store

_STATE = {Store.GALLERY: tombstones.c.gallery_erased_at, Store.PHOTOS: tombstones.c.photos_erased_at}


def begin(connection: sa.Connection, groups: Sequence[Sequence[Item]], now: datetime) -> list[str | None]:
    """Note what will be stored; one intent per group, None for an empty group."""
    names = [secrets.token_hex(16) if group else None for group in groups]
    items = {item for group in groups for item in group}
    if connection.dialect.name != "sqlite":
        # Waits for a sweeper that holds one of them. In one order, so that two writers cannot lock
        # each other out.
        for chunk in sql.chunks(sorted({item.item for item in items})):
            connection.execute(
                sa.select(erasures.c.item)
                .where(erasures.c.item.in_(chunk))
                .order_by(erasures.c.item, erasures.c.agency, erasures.c.store)
                .with_for_update()
            ).all()
    found = [
        {"intent": name, **_row(item, now)}
        for name, group in zip(names, groups, strict=True)
        for item in dict.fromkeys(group)
    ]
    sql.insert_new(connection, intents, found)
    return names


def settle(connection: sa.Connection, names: Iterable[str], live: Iterable[Item], now: datetime) -> int:
    """End intents: what they named and is not alive is to be erased; how many those are."""
    held = [_item(row) for row in sql.select_in(connection, sa.select(intents), intents.c.intent, names)]
    if not held:
        return 0
    sql.delete_in(connection, intents, intents.c.intent, names)
    alive = {_place(item) for item in live}
    doubtful = [item for item in held if _place(item) not in alive]
    dead = without_live(connection, doubtful)
    add_erasures(connection, dead, now)
    return len(dead)


def add_erasures(connection: sa.Connection, items: Sequence[Item], now: datetime) -> None:
    """Note items that must go from their stores; the tombstones of their records are pending again.

    An item that was pending already stays noted for the record it was noted for."""
    sql.insert_new(connection, erasures, [_row(item, now) for item in dict.fromkeys(items)])
    for store, column in _STATE.items():
        touched = {item.record_id for item in items if item.store is store}
        for chunk in sql.chunks(sorted(touched)):
            connection.execute(
                sa.update(tombstones)
                .where(tombstones.c.record_id.in_(chunk), _left(store))
                .values({column: None})
            )


def live_again(connection: sa.Connection, items: Sequence[Item], now: datetime) -> None:
    """Take items that records refer to again out of what must go."""
    wanted = {_place(item) for item in items}
    found = sql.select_in(connection, sa.select(erasures), erasures.c.item, {item.item for item in items})
    _forget(connection, [item for row in found if _place(item := _item(row)) in wanted], now)


def pending(connection: sa.Connection, store: Store | None, record_id: str | None, limit: int) -> list[Item]:
    """What must go, oldest first."""
    query = sa.select(erasures).order_by(erasures.c.at, erasures.c.item).limit(limit)
    if store is not None:
        query = query.where(erasures.c.store == store.value)
    if record_id is not None:
        query = query.where(erasures.c.record_id == record_id)
    return [_item(row) for row in connection.execute(query).mappings()]


def erase(
    connection: sa.Connection,
    store: Store,
    delete: Callable[[Sequence[Item]], None],
    *,
    record_id: str | None,
    limit: int,
    now: datetime,
) -> int:
    """Remove up to `limit` items that nobody is about to use; how many are done with.

    `delete` removes them from their store and returns when that is durable; what it raises undoes
    this transaction, so that the items stay pending."""
    intended = sa.exists().where(
        intents.c.store == erasures.c.store,
        intents.c.agency == erasures.c.agency,
        intents.c.item == erasures.c.item,
    )
    query = (
        sa.select(erasures)
        .where(erasures.c.store == store.value, ~intended)
        .order_by(erasures.c.at, erasures.c.item)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    if record_id is not None:
        query = query.where(erasures.c.record_id == record_id)
    held = [_item(row) for row in connection.execute(query).mappings()]
    # The rows are ours only now: an intent may have come in between reading and locking them.
    names = sa.select(intents.c.agency, intents.c.item).where(intents.c.store == store.value)
    busy = {
        (row["agency"], row["item"])
        for row in sql.select_in(connection, names, intents.c.item, {item.item for item in held})
    }
    free = [item for item in held if (item.agency, item.item) not in busy]
    dead = without_live(connection, free)
    if dead:
        delete(dead)
    _forget(connection, free, now)
    return len(free)


def forget(connection: sa.Connection, record_id: str, store: Store, now: datetime) -> None:
    """A record's items are gone from a store for certain."""
    found = pending(connection, store, record_id, limit=2**31 - 1)
    _forget(connection, found, now)


def without_live(connection: sa.Connection, items: Sequence[Item]) -> list[Item]:
    """The items that no committed record refers to."""
    faces_asked = {item.item for item in items if item.store is Store.GALLERY}
    photos_asked = {item.item for item in items if item.store is Store.PHOTOS}
    query = sa.select(faces.c.face_id)
    alive = {
        (Store.GALLERY, "", row["face_id"])
        for row in sql.select_in(connection, query, faces.c.face_id, faces_asked)
    }
    query_ = sa.select(record_photos.c.agency, record_photos.c.sha256).distinct()
    alive |= {
        (Store.PHOTOS, row["agency"], row["sha256"])
        for row in sql.select_in(connection, query_, record_photos.c.sha256, photos_asked)
    }
    return [item for item in items if _place(item) not in alive]


def _forget(connection: sa.Connection, items: Sequence[Item], now: datetime) -> None:
    if not items:
        return
    connection.execute(
        sa.delete(erasures).where(
            erasures.c.store == sa.bindparam("s"),
            erasures.c.agency == sa.bindparam("a"),
            erasures.c.item == sa.bindparam("i"),
        ),
        # In the order in which `begin` locks them, so that the two cannot lock each other out.
        [
            {"s": item.store.value, "a": item.agency, "i": item.item}
            for item in sorted(items, key=lambda item: (item.item, item.agency, item.store))
        ],
    )
    for store, column in _STATE.items():
        touched = {item.record_id for item in items if item.store is store}
        for chunk in sql.chunks(sorted(touched)):
            connection.execute(
                sa.update(tombstones)
                .where(tombstones.c.record_id.in_(chunk), column.is_(None), ~_left(store))
                .values({column: now})
            )


def _left(store: Store) -> sa.ColumnElement[bool]:
    """Whether something of a tombstone's record is pending in a store."""
    return sa.exists().where(erasures.c.record_id == tombstones.c.record_id, erasures.c.store == store.value)


def _row(item: Item, now: datetime) -> Values:
    return {
        "store": item.store.value,
        "agency": item.agency,
        "item": item.item,
        "record_id": item.record_id,
        "at": now,
    }


def _item(row: sa.RowMapping | Values) -> Item:
    return Item(Store(row["store"]), row["record_id"], row["item"], row["agency"])


def _place(item: Item) -> tuple[Store, str, str]:
    return item.store, item.agency, item.item
