"""The catalogue: who and what exists."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

import sqlalchemy as sa

from catalogue import deleting, enrolling, erasing, restoring, sql
from catalogue.engine import Database
from catalogue.ledger import LoadLedger
from catalogue.load_types import Lease
from catalogue.reader import CatalogueReader
from catalogue.restoring import Gone
from catalogue.rows import Values
from catalogue.snapshot import CatalogueSnapshot
from catalogue.tables import intents, meta, requests
from catalogue.types import Deletion, Item, RecordUpdate, RecordWrite, Store, WriteResult
from catalogue.upgrade_ledger import UpgradeLedger
from homeward.clock import Clock, SystemClock
from homeward.errors import HomewardError
from homeward.ids import check_id


class Catalogue(CatalogueReader):
    """Records, photos, faces, tombstones and the change log in SQLite or PostgreSQL.

    All methods block; callers use threads. Each write is one transaction that takes the next
    `rev`; revs rise strictly in commit order, so whoever has followed the change log to rev n
    misses nothing at or below n.

    The order of a write that also stores photos and face rows elsewhere is
    `begin_intents` -> photos put -> gallery rows upserted -> `apply` (commit) -> live shards;
    that of a deletion is `delete` (commit) -> live shards -> reply, then `erase` for each store.

    Raises `StoreUnavailable` (or another `HomewardError`) where the database raises; then nothing
    of the call was committed, unless the connection broke during the commit itself: ask again with
    the same request id.
    """

    def __init__(self, database: Database, clock: Clock | None = None) -> None:
        super().__init__(database)
        self._clock = clock or SystemClock()

    def begin_intents(self, groups: Sequence[Sequence[Item]]) -> list[str | None]:
        """Say which photos and face rows will be stored, before they are; one intent per group.

        Waits while one of them is being erased. Give the intent to the `RecordWrite` that commits
        the group; None for an empty group. Without that, `abandon` it."""
        with self._database.writing() as connection:
            return erasing.begin(connection, groups, self._clock.now())

    def abandon(self, intents_: Sequence[str]) -> int:
        """End intents whose write will not be committed: what no record refers to becomes pending
        in `erase`; how many items that are."""
        with self._database.committing() as revs:
            return erasing.settle(revs.connection, intents_, (), self._clock.now())

    def expire_intents(self, before: datetime) -> int:
        """End intents begun before that time, whose writers died; how many items become pending.

        A slow writer whose intent lapsed is refused by `apply` and begins again."""
        with self._database.committing() as revs:
            query = sa.select(intents.c.intent).where(intents.c.at < before).distinct()
            old = list(revs.connection.execute(query).scalars())
            return erasing.settle(revs.connection, old, (), self._clock.now())

    @property
    def loads(self) -> LoadLedger:
        """The ledger of bulk loads."""
        return LoadLedger(self._database, self._clock)

    @property
    def upgrades(self) -> UpgradeLedger:
        """The ledger of model upgrades."""
        return UpgradeLedger(self._database, self._clock)

    def apply(
        self, writes: Sequence[RecordWrite], lease: Lease | None = None
    ) -> list[WriteResult | HomewardError]:
        """Write a batch of enrolments in one transaction: results in the order of `writes`.

        Creates or updates each record: its attributes are replaced, each named photo replaces its
        face rows of that model, photos not named stay. An item that is refused (`InvalidInput`,
        `RecordDeleted`, `EtagMismatch`, `RequestIdReused`, `Conflict` with code INTENT_LAPSED) does
        not touch the others, and what its intent named becomes pending in `erase` unless a record
        refers to it. So do face rows that are no more, which are in `removed_faces`. With a `lease` of a
        load nothing is written unless it holds: `Conflict` (LEASE_LOST); nor of a model that serves no more:
        `Conflict` (MODEL_RETIRED)."""
        if not writes:
            return []
        with self._database.committing() as revs:
            return enrolling.apply(revs, writes, self._clock.now(), lease)

    def update(self, change: RecordUpdate) -> WriteResult:
        """Change attributes and photo notes. `NotFound`, `RecordDeleted`, `EtagMismatch`."""
        with self._database.committing() as revs:
            return enrolling.update(revs, change, self._clock.now())

    def delete(self, deletion: Deletion) -> WriteResult:
        """Remove a record and leave a tombstone: no attribute and no reference of the agency.

        Its face rows, and those photos to which nothing of its agency refers any more, become
        pending in `erase`. Again: the same rev, and no change. `NotFound` if there never was one."""
        with self._database.committing() as revs:
            return deleting.delete(revs, deletion, self._clock.now())

    def erase(
        self,
        store: Store,
        delete: Callable[[Sequence[Item]], None],
        *,
        record_id: str | None = None,
        limit: int = 256,
    ) -> int:
        """Remove pending items from a store: up to `limit`, of one record or of all.

        `delete` must be idempotent, return when the removal is durable, and not call the catalogue:
        a transaction is open around it (on SQLite nobody else writes meanwhile). If it raises, the
        items stay pending. Items that a writer is about to store are left out. Returns how many
        items are done with; call again until that is 0."""
        with self._database.writing() as connection:
            return erasing.erase(
                connection, store, delete, record_id=record_id, limit=limit, now=self._clock.now()
            )

    def mark_erased(self, record_id: str, store: Store) -> None:
        """Note that nothing of the record is left in a store, where it is certain otherwise: its
        collection was rebuilt from the catalogue."""
        check_id(record_id, "record_id")
        with self._database.committing() as revs:
            erasing.forget(revs.connection, record_id, store, self._clock.now())

    def add_pending(self, items: Sequence[Item]) -> int:
        """Make orphans, found by comparing a store with the catalogue, pending in `erase`.

        Those that a record refers to are left out; how many are now pending."""
        with self._database.committing() as revs:
            dead = erasing.without_live(revs.connection, items)
            erasing.add_erasures(revs.connection, dead, self._clock.now())
            return len(dead)

    def prune_requests(self, before: datetime) -> int:
        """Forget requests older than that; how many."""
        with self._database.writing() as connection:
            return connection.execute(sa.delete(requests).where(requests.c.at < before)).rowcount

    def set_meta(self, key: str, value: str) -> None:
        """Keep a setting that belongs to the data."""
        with self._database.writing() as connection:
            sql.upsert(connection, meta, [{"key": key, "value": value}])

    def swap_meta(self, key: str, expected: str | None, value: str) -> bool:
        """Set a setting if it is still `expected` (None: not there); whether it was."""
        with self._database.writing() as connection:
            if expected is None:
                return sql.insert_if_new(connection, meta, {"key": key, "value": value})
            change = sa.update(meta).where(meta.c.key == key, meta.c.value == expected).values(value=value)
            return connection.execute(change).rowcount == 1

    def drop_meta(self, key: str) -> None:
        """Forget a setting, if it is there."""
        with self._database.writing() as connection:
            connection.execute(sa.delete(meta).where(meta.c.key == key))

    @contextmanager
    def snapshot(self) -> Iterator[CatalogueSnapshot]:
        """One state of all tables, for a backup; others go on writing. `vacuum` is refused meanwhile."""
        with self._database.snapshot() as connection:
            yield CatalogueSnapshot(connection)

    def check_empty(self) -> None:
        """Raise `Conflict` (RESTORE_NOT_EMPTY) unless a backup can be restored into this catalogue."""
        with self._database.reading() as connection:
            restoring.check_empty(connection)

    def restore(
        self,
        tables: Iterable[tuple[sa.Table, Sequence[Values]]],
        *,
        rev: int,
        gone: Iterable[Gone],
        mark: str,
    ) -> None:
        """Write the rows of a snapshot at `rev` into this catalogue, which has no records, and leave the
        setting `RESTORING` at `mark`, which refuses everybody else until it is dropped.

        What is `gone`, and what this catalogue has tombstones of, is deleted again. Raises `Conflict`
        (RESTORE_NOT_EMPTY; RESTORE_IN_USE where other processes use a PostgreSQL catalogue)."""
        self._database.give_back()
        with self._database.committing() as revs:
            restoring.check_alone(revs.connection)
            restoring.restore(revs, tables, rev=rev, gone=gone, mark=mark)
            restoring.check_alone(revs.connection)  # who comes later meets the mark

    def vacuum(self, *, whole: bool = True) -> tuple[str, ...]:
        """Rewrite what the database keeps, so that no deleted content stays in its files.

        PostgreSQL locks each table while it is rewritten. Without `whole` those above
        `catalogue.rewrite_table_bytes` are not: their names are the answer, and deleted rows stay in their
        files, where nobody reads them, until others take the room.

        Needs a moment without other transactions on SQLite (`StoreUnavailable` otherwise); takes
        time and space proportional to the catalogue."""
        return self._database.vacuum(whole=whole)

    def close(self) -> None:
        """Give all connections back."""
        self._database.close()
