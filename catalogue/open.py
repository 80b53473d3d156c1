"""Opens the catalogue that the settings name, migrated and ready."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError

from catalogue.engine import Database, postgres_engine, postgres_single_engine, sqlite_engine
from catalogue.migrate import upgrade
from catalogue.restoring import RESTORING
from catalogue.store import Catalogue
from homeward.clock import Clock
from homeward.config import CatalogueSettings
from homeward.errors import Conflict, HomewardError, InvalidInput, StoreUnavailable

FILE = "catalogue.db"


def open_catalogue(
    settings: CatalogueSettings, data_dir: Path, *, clock: Clock | None = None, restoring: bool = False
) -> Catalogue:
    """Open (and create, or migrate) the catalogue.

    An empty `settings.uri` is the SQLite file `data_dir`/catalogue.db, readable by this user alone;
    postgresql://user@host:port/database a PostgreSQL server, with the password from
    `settings.password`. Raises `InvalidInput` (CONFIG_INVALID) for another URI, `StoreUnavailable`
    if the database does not answer, `NotSupported` if a newer Homeward wrote it, and `Conflict`
    (RESTORE_UNFINISHED), unless `restoring`, if a restore was begun in it and has not ended."""
    single: sa.Engine | None = None
    if settings.uri:
        url = _postgres_url(settings)
        engine = postgres_engine(url, settings.pool_size)
        single = postgres_single_engine(url, settings.pool_size)
    else:
        try:
            data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            engine = sqlite_engine(data_dir / FILE, settings.pool_size)
        except OSError as error:
            raise StoreUnavailable(
                f"the catalogue's file cannot be created ({error.strerror}); check that this user may "
                "write the data folder",
                store="catalogue",
                path=str(data_dir),
            ) from error
    database = Database(engine, single, rewrite_max=settings.rewrite_table_bytes)
    catalogue = Catalogue(database, clock)
    try:
        upgrade(database)
        if not restoring and catalogue.get_meta(RESTORING) is not None:
            raise Conflict(
                "a restore was begun here and has not ended: run homeward backup restore again with the same "
                "backup, it goes on where it was",
                code="RESTORE_UNFINISHED",
            )
    except HomewardError:
        catalogue.close()
        raise
    return catalogue


def _postgres_url(settings: CatalogueSettings) -> sa.URL:
    try:
        url = sa.make_url(settings.uri)
    except ArgumentError as error:
        raise _wrong("is postgresql://user@host:port/database") from error
    if url.get_backend_name() != "postgresql":
        raise _wrong("begins with postgresql://, or is empty")
    if url.password is not None or "password" in url.query:
        raise _wrong("has no password; set HOMEWARD_CATALOGUE__PASSWORD")
    if settings.password is not None:
        url = url.set(password=settings.password.get_secret_value())
    return url


def _wrong(what: str) -> InvalidInput:
    return InvalidInput(f"the catalogue's URI {what}", code="CONFIG_INVALID", field="catalogue.uri")
