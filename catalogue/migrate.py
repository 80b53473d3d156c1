"""Brings a database to the tables of this version, with the migrations that the package carries."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from catalogue.engine import Database
from homeward.errors import NotSupported

if TYPE_CHECKING:  # a database that is up to date needs none of it, and it takes long to import
    from alembic.config import Config

HEAD = "0005"  # the newest migration
_VERSION = sa.table("alembic_version", sa.column("version_num"))
_LOCK = 0x486F6D6577617264  # PostgreSQL advisory lock: two servers that start together take turns


def upgrade(database: Database) -> None:
    """Run the migrations that are missing, in one transaction.

    Raises `NotSupported` (CATALOGUE_TOO_NEW) if a newer Homeward wrote the database."""
    with database.reading() as connection:
        before = revision(connection)
    if before == HEAD:
        return
    from alembic import command
    from alembic.script import ScriptDirectory

    config = alembic_config()
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if before is not None and before not in known:
        raise NotSupported(
            "a newer Homeward wrote this catalogue; install that version or a later one",
            code="CATALOGUE_TOO_NEW",
            revision=before,
        )
    with database.writing() as connection:
        if not database.is_sqlite:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def alembic_config() -> Config:
    """Alembic's configuration, without any file: the scripts lie in the installed package."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "catalogue:migrations")
    config.set_main_option("path_separator", "os")
    return config


def revision(connection: sa.Connection) -> str | None:
    """The last migration that the database has seen; None without tables."""
    if not sa.inspect(connection).has_table(_VERSION.name):
        return None
    return connection.execute(sa.select(_VERSION.c.version_num)).scalar()
