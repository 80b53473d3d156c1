"""Alembic's entry: runs inside the transaction that `catalogue.migrate` opened."""

from __future__ import annotations

from alembic import context

from catalogue import upgrade_tables  # noqa: F401 - its tables are among those of `metadata`
from catalogue.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
