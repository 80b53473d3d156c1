"""Connections and transactions of the two databases, alike to everything above.

A write transaction owns the counter row (PostgreSQL: its row lock; SQLite: BEGIN IMMEDIATE, the
whole file), so write transactions run one after the other and revs are handed out in commit order.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import sqlalchemy as sa

from catalogue.errors import mapped
from catalogue.tables import counter, metadata
from homeward.errors import Corrupt, StoreUnavailable

Result = TypeVar("Result")

_BUSY_MS = 30_000
_CONNECT_S = 10
_POOL_WAIT_S = 30.0
_PLANNED_S = 300
_LONG_READING = 0x486F6D6562616B75  # PostgreSQL advisory lock: shared by snapshots, alone for a vacuum
_WRITE = "homeward_write"  # execution option: this transaction will write


class Database:
    """One engine with its reading and writing transactions. SQLAlchemy's errors are mapped here."""

    def __init__(
        self, engine: sa.Engine, single: sa.Engine | None = None, *, rewrite_max: int | None = None
    ) -> None:
        """`single`: connections for single statements, without transactions; None: `engine`'s do.
        `rewrite_max`: see `CatalogueSettings.rewrite_table_bytes`."""
        self._rewrite_max = rewrite_max
        self.engine = engine
        self._single = single or engine.execution_options(isolation_level="AUTOCOMMIT")
        self._writing = engine.execution_options(**{_WRITE: True})
        self.is_sqlite = engine.dialect.name == "sqlite"
        # SQLite's own waiting polls and starves; threads of this process queue here instead.
        self._turn = threading.Lock() if self.is_sqlite else nullcontext()

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A transaction that sees one state of the catalogue throughout."""
        with mapped(), self.engine.connect() as connection, connection.begin():
            yield connection

    def read(self, work: Callable[[sa.Connection], Result]) -> Result:
        """What `work` reads with a statement that sees one state, in no more than a round trip to the server.
        Done again when the connection had been lost meanwhile: nobody asked it whether it lives."""
        with mapped():
            try:
                with self._single.connect() as connection:
                    return work(connection)
            except sa.exc.DBAPIError as error:
                if not error.connection_invalidated:
                    raise
            with self._single.connect() as connection:
                return work(connection)

    @contextmanager
    def snapshot(self) -> Iterator[sa.Connection]:
        """A transaction that sees one state of the catalogue throughout, however long it lasts and whoever
        writes meanwhile. `vacuum` is refused until it ends: on PostgreSQL it would wait for this transaction,
        and everybody else for it."""
        engine = self.engine
        if not self.is_sqlite:
            engine = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        with mapped(), engine.connect() as connection, connection.begin():
            if not self.is_sqlite:
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock_shared(_LONG_READING)))
            yield connection

    def give_back(self) -> None:
        """Close the connections that nobody uses now."""
        self._single.dispose()
        self.engine.dispose()

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A transaction that writes, but takes no rev."""
        with mapped(), self._turn, self._writing.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def committing(self) -> Iterator[Revs]:
        """A transaction of the change log: write transactions of this kind run one by one."""
        with self.writing() as connection:
            query = sa.select(counter.c.rev).with_for_update()
            start = connection.execute(query).scalar_one_or_none()
            if start is None:
                raise Corrupt(
                    "the catalogue has lost its counter; restore it from a backup", store="catalogue"
                )
            revs = Revs(connection, int(start))
            yield revs
            if revs.last != start:
                connection.execute(sa.update(counter).values(rev=revs.last))

    def vacuum(self, *, whole: bool = True) -> tuple[str, ...]:
        """See `Catalogue.vacuum`."""
        with mapped(), self._turn:
            if self.is_sqlite:
                self.engine.dispose()  # a reader's old snapshot would hold the write-ahead log back
            with self.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
                if self.is_sqlite:
                    _vacuum_sqlite(connection)
                    return ()
                return _vacuum_postgres(connection, None if whole else self._rewrite_max)

    def close(self) -> None:
        """Give all connections back."""
        self._single.dispose()
        self.engine.dispose()


class Revs:
    """The revs of one transaction, handed out while it holds the counter."""

    def __init__(self, connection: sa.Connection, start: int) -> None:
        self.connection = connection
        self.last = start

    def take(self) -> int:
        """The next rev: committed with everything else or never seen."""
        self.last += 1
        return self.last


def sqlite_engine(path: Path, pool_size: int) -> sa.Engine:
    """An engine on one file, which is created readable by this user alone."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=str(path)),
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_timeout=_POOL_WAIT_S,
        hide_parameters=True,
        connect_args={"timeout": _BUSY_MS / 1000, "check_same_thread": False},
    )
    sa.event.listen(engine, "connect", _sqlite_connected)
    sa.event.listen(engine, "begin", _sqlite_begun)
    return engine


def postgres_engine(url: sa.URL, pool_size: int) -> sa.Engine:
    """An engine on a PostgreSQL server, through psycopg 3."""
    return _postgres(url, pool_size, single=False)


def postgres_single_engine(url: sa.URL, pool_size: int) -> sa.Engine:
    """As `postgres_engine`, for statements that run often and by themselves: they are planned once for each
    connection, and nothing is said to the server beside them."""
    engine = _postgres(url, pool_size, single=True)
    sa.event.listen(engine, "connect", _planned_once)
    return engine


def _postgres(url: sa.URL, pool_size: int, *, single: bool) -> sa.Engine:
    return sa.create_engine(
        url.set(drivername="postgresql+psycopg"),
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_timeout=_POOL_WAIT_S,
        pool_pre_ping=not single,
        # What was planned when there was little is planned anew some minutes later.
        pool_recycle=_PLANNED_S if single else -1,
        pool_reset_on_return=None if single else "rollback",
        hide_parameters=True,
        isolation_level="AUTOCOMMIT" if single else "READ COMMITTED",
        connect_args={"connect_timeout": _CONNECT_S, "application_name": "homeward"},
    )


def _planned_once(connection: Any, _record: object) -> None:
    connection.autocommit = True
    connection.execute("SET plan_cache_mode = force_generic_plan")
    connection.cursor_factory = _BinaryCursor


class _BinaryCursor(psycopg.Cursor[Any]):
    """Has values come as they are: as text, bytes would take twice the room."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.format = psycopg.pq.Format.BINARY


def _vacuum_sqlite(connection: sa.Connection) -> None:
    """VACUUM writes the new pages through the log, so the log is emptied after it too."""
    for statement in ("PRAGMA wal_checkpoint(TRUNCATE)", "VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"):
        row = connection.exec_driver_sql(statement)
        busy = row.returns_rows and row.scalar_one() != 0
        if busy:
            raise StoreUnavailable(
                "the catalogue is being read; vacuum it again when nobody else uses it", store="catalogue"
            )


def _vacuum_postgres(connection: sa.Connection, most: int | None) -> tuple[str, ...]:
    """Names of the tables that are larger than `most` bytes, whose rows were not written anew."""
    if not connection.execute(sa.select(sa.func.pg_try_advisory_lock(_LONG_READING))).scalar_one():
        raise StoreUnavailable(
            "the catalogue is being backed up; vacuum it again when that has ended", store="catalogue"
        )
    left = []
    try:
        for table in metadata.sorted_tables:
            size = connection.execute(
                sa.select(sa.func.pg_total_relation_size(sa.func.to_regclass(table.name)))
            ).scalar_one()
            if most is not None and size > most:
                left.append(table.name)
            how = "ANALYZE" if table.name in left else "FULL, ANALYZE"
            connection.exec_driver_sql(f"VACUUM ({how}) {table.name}")
        _checkpoint(connection)
    finally:
        connection.execute(sa.select(sa.func.pg_advisory_unlock(_LONG_READING)))
    return tuple(left)


def _checkpoint(connection: sa.Connection) -> None:
    """Have the new files written now. The owner of a database may not ask for it, and PostgreSQL does so by
    itself within minutes (`checkpoint_timeout`)."""
    try:
        connection.exec_driver_sql("CHECKPOINT")
    except sa.exc.DBAPIError as error:
        if not isinstance(error.orig, psycopg.errors.InsufficientPrivilege):
            raise


def _sqlite_connected(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # BEGIN is ours, see `_sqlite_begun`
    for pragma in (
        f"busy_timeout={_BUSY_MS}",
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        "secure_delete=ON",
        "temp_store=MEMORY",
    ):
        connection.execute(f"PRAGMA {pragma}").close()


def _sqlite_begun(connection: sa.Connection) -> None:
    if connection.get_execution_options().get("isolation_level") == "AUTOCOMMIT":
        return
    write = connection.get_execution_options().get(_WRITE, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
