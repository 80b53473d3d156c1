"""What the tables say of bulk loads, read inside a transaction."""

from __future__ import annotations

import sqlalchemy as sa

from catalogue.load_types import DonePart, Load, LoadState, LoadSums
from catalogue.tables import load_parts, load_records, loads
from catalogue.types import Item, Store
from homeward.errors import NotFound

_LOAD = tuple(column for column in loads.c)
_COUNTS = (load_parts.c.photos, load_parts.c.faces, load_parts.c.rejected)


def overlapping(connection: sa.Connection, name: str) -> list[str]:
    """See `LoadLedger.overlapping`."""
    mine = load_records.alias()
    query = (
        sa.select(load_records.c.load)
        .distinct()
        .join(mine, mine.c.record_id == load_records.c.record_id)
        .join(loads, loads.c.name == load_records.c.load)
        .where(
            mine.c.load == name,
            load_records.c.load != name,
            loads.c.state.not_in([LoadState.UNDOING.value, LoadState.UNDONE.value]),
        )
        .order_by(load_records.c.load)
    )
    return list(connection.execute(query).scalars())


def outcome_item(record_id: str, load: str, part: int) -> Item:
    """What names a record in the documents of one part of a load."""
    return Item(Store.OUTCOMES, record_id, record_id, f"{load}/{part}")


def read_all(connection: sa.Connection) -> list[Load]:
    """All loads, the newest first."""
    query = sa.select(*_LOAD).order_by(loads.c.created_at.desc(), loads.c.name)
    return [_load(row) for row in connection.execute(query)]


def read_parts(connection: sa.Connection, name: str) -> list[DonePart]:
    """The load's committed parts, in order."""
    columns = (load_parts.c.part, load_parts.c.document, *_COUNTS)
    query = sa.select(*columns).where(load_parts.c.load == name).order_by(load_parts.c.part)
    return [DonePart(*row) for row in connection.execute(query)]


def read_sums(connection: sa.Connection, name: str) -> LoadSums:
    """How many of the load's parts are committed, and what they come to."""
    sums = (sa.func.coalesce(sa.func.sum(column), 0) for column in _COUNTS)
    query = sa.select(sa.func.count(), *sums).where(load_parts.c.load == name)
    return LoadSums(*map(int, connection.execute(query).one()))


def document_of(connection: sa.Connection, name: str, part: int) -> str | None:
    """The outcome file of a part; None while it is not committed."""
    query = sa.select(load_parts.c.document).where(load_parts.c.load == name, load_parts.c.part == part)
    found = connection.execute(query).scalar_one_or_none()
    return None if found is None else str(found)


def outcomes_of(connection: sa.Connection, record_id: str) -> list[Item]:
    """The parts of loads whose documents name a record."""
    query = sa.select(load_records.c.load, load_records.c.part).where(load_records.c.record_id == record_id)
    return [outcome_item(record_id, row.load, row.part) for row in connection.execute(query)]


def load_of(connection: sa.Connection, name: str, *, lock: bool = False) -> Load:
    """The load, perhaps locked until this transaction ends. Raises `NotFound`."""
    query = sa.select(*_LOAD).where(loads.c.name == name)
    row = connection.execute(query.with_for_update() if lock else query).first()
    if row is None:
        raise NotFound(f"there is no load {name}; homeward load status lists them", load=name)
    return _load(row)


def _load(row: sa.Row[tuple[object, ...]]) -> Load:
    values = dict(row._mapping)
    return Load(**{**values, "state": LoadState(values["state"])})
