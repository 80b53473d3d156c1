"""Small helpers over SQLAlchemy Core that the two databases share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from catalogue.rows import Values

T = TypeVar("T")
CHUNK = 500  # values of one IN list: SQLite takes 32,766 at most


def chunks(values: Iterable[T], size: int = CHUNK) -> Iterator[list[T]]:
    """The values in lists of at most `size`."""
    chunk: list[T] = []
    for value in values:
        chunk.append(value)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def select_in(
    connection: sa.Connection,
    query: sa.Select[Any],
    column: sa.ColumnElement[Any],
    values: Iterable[object],
) -> list[Values]:
    """All rows of `query` whose `column` is one of `values`."""
    found: list[Values] = []
    for chunk in chunks(sorted(set(values), key=str)):
        result = connection.execute(query.where(column.in_(chunk)))
        found.extend(dict(row) for row in result.mappings())
    return found


def insert(connection: sa.Connection, table: sa.Table, values: Sequence[Values]) -> None:
    """Insert rows."""
    if values:
        connection.execute(sa.insert(table), list(values))


def upsert(connection: sa.Connection, table: sa.Table, values: Sequence[Values]) -> None:
    """Insert rows or give those of the same primary key the new values."""
    if values:
        connection.execute(_upsert_statement(connection.dialect.name, table, replace=True), list(values))


def insert_new(connection: sa.Connection, table: sa.Table, values: Sequence[Values]) -> None:
    """Insert the rows whose primary key is not there yet."""
    if values:
        connection.execute(_upsert_statement(connection.dialect.name, table, replace=False), list(values))


def insert_if_new(connection: sa.Connection, table: sa.Table, value: Values) -> bool:
    """Insert a row unless its primary key is there; whether it was inserted."""
    statement = _upsert_statement(connection.dialect.name, table, replace=False).values(**value)
    # What is returned says so: of an INSERT a driver need not know a number of rows.
    return connection.execute(statement.returning(*table.primary_key.columns)).first() is not None


def delete_in(
    connection: sa.Connection, table: sa.Table, column: sa.ColumnElement[Any], values: Iterable[object]
) -> None:
    """Delete the rows whose `column` is one of `values`."""
    for chunk in chunks(sorted(set(values), key=str)):
        connection.execute(sa.delete(table).where(column.in_(chunk)))


@cache
def _upsert_statement(dialect: str, table: sa.Table, *, replace: bool) -> Any:
    statement: Any = (sqlite if dialect == "sqlite" else postgresql).insert(table)
    keys = list(table.primary_key.columns)
    if not replace:
        return statement.on_conflict_do_nothing(index_elements=keys)
    others = {
        column.name: statement.excluded[column.name] for column in table.columns if not column.primary_key
    }
    return statement.on_conflict_do_update(index_elements=keys, set_=others)
