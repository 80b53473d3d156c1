"""One state of the catalogue, read table by table: what a backup keeps of it."""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa

from catalogue.migrate import revision
from catalogue.rows import Values
from catalogue.tables import (
    changes,
    codes,
    counter,
    erasures,
    faces,
    intents,
    load_parts,
    load_records,
    loads,
    meta,
    photos,
    record_photos,
    records,
    requests,
    tombstones,
)
from catalogue.upgrade_tables import coverage, upgrades

# In the order in which they can be written again.
KEPT = (
    meta,
    codes,
    records,
    photos,
    record_photos,
    faces,
    tombstones,
    erasures,
    changes,
    requests,
    loads,
    load_parts,
    load_records,
    upgrades,
    coverage,
)
# The counter is the snapshot's rev; intents are of writers under way, whose writes are not in it.
LEFT_OUT = (counter, intents)

_ROWS = 500  # a row of `records` may have 200 KB


class CatalogueSnapshot:
    """The catalogue as it was at one rev. Read it soon: it holds back what the database wants to clean."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection
        self.schema = revision(connection) or ""  # of the tables
        self.rev = int(connection.execute(sa.select(counter.c.rev)).scalar_one())

    def models(self) -> list[str]:
        """Models that there are face rows of, sorted."""
        return sorted(self._connection.execute(sa.select(faces.c.model_id).distinct()).scalars())

    def count(self, table: sa.Table) -> int:
        """How many rows a table has."""
        query = sa.select(sa.func.count()).select_from(table)
        return int(self._connection.execute(query).scalar_one())

    def rows(self, table: sa.Table) -> Iterator[list[Values]]:
        """All rows of a table in order of its primary key, some hundred at a time."""
        query = sa.select(table).order_by(*table.primary_key.columns)
        result = self._connection.execute(query, execution_options={"yield_per": _ROWS})
        for partition in result.mappings().partitions(_ROWS):
            yield [dict(row) for row in partition]
