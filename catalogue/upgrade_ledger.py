"""The ledger of model upgrades: which model serves, and what the other one has of the photos."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta

from catalogue import covering, upgrade_reading, upgrades
from catalogue.engine import Database
from catalogue.load_types import Lease
from catalogue.upgrade_types import Cover, Coverage, Loss, Upgrade, UpgradeModel, UpgradeState
from homeward.clock import Clock
from homeward.errors import Conflict


class UpgradeLedger:
    """Upgrades of one catalogue; `Catalogue.upgrades`. All methods block, and are one transaction each.

    Those that take a lease raise `Conflict` (LEASE_LOST) when another driver has taken the upgrade since, or
    when it has ended: then nothing was changed.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def latest(self) -> Upgrade | None:
        """The upgrade under way, else the last one; None before the first."""
        with self._database.reading() as connection:
            return upgrades.latest(connection)

    def under_way(self) -> Upgrade:
        """The upgrade under way. Raises `NotFound` (NO_UPGRADE)."""
        with self._database.writing() as connection:
            return upgrades.under_way(connection)

    def begin(self, old: UpgradeModel, new: UpgradeModel, holder: str) -> Lease:
        """A new upgrade, driven by `holder`. Raises `Conflict` (UPGRADE_EXISTS) beside another."""
        with self._database.committing() as revs:
            return upgrades.begin(revs.connection, old, new, holder, self._clock.now())

    def take(self, holder: str, lapse_s: float, *, dead: int | None = None) -> Lease:
        """Drive an upgrade that nobody drives, or whose driver has said nothing for `lapse_s` seconds, or has
        the fence `dead`: that one is known to be no more. Raises `NotFound`, `Conflict` (UPGRADE_BUSY)."""
        with self._database.writing() as connection:
            lapse = timedelta(seconds=lapse_s)
            return upgrades.take(connection, holder, lapse, self._clock.now(), dead=dead)

    def renew(self, lease: Lease) -> None:
        """Say that the driver lives."""
        with self._database.writing() as connection:
            upgrades.put(connection, lease, heartbeat_at=self._clock.now())

    def release(self, lease: Lease, message: str = "") -> None:
        """End driving, and say why."""
        with self._database.writing() as connection:
            upgrades.put(connection, lease, holder="", heartbeat_at=None, message=message[:1000])

    def move(self, lease: Lease, allowed: Sequence[UpgradeState], state: UpgradeState) -> None:
        """Go on to a state from one of those allowed. Raises `Conflict` (UPGRADE_STATE)."""
        with self._database.committing() as revs:
            upgrades.move(revs.connection, lease, allowed, state, self._clock.now())

    def switch(
        self, lease: Lease, allowed: Sequence[UpgradeState], state: UpgradeState, model_id: str
    ) -> None:
        """As `move`, to a state in which this model serves: only while it covers every photo, in the same
        transaction. Raises `Conflict` (UPGRADE_UNCOVERED)."""
        with self._database.committing() as revs:
            left = covering.count_uncovered(revs.connection, model_id)
            if left:
                raise Conflict(f"{left} photos are not covered yet", code="UPGRADE_UNCOVERED", photos=left)
            upgrades.move(revs.connection, lease, allowed, state, self._clock.now())

    def set_since(self, lease: Lease, rev: int) -> None:
        """Note that the filter columns of both collections are right up to a rev."""
        with self._database.writing() as connection:
            upgrades.put(connection, lease, since_rev=rev)

    def cover(
        self, model_id: str, covers: Sequence[Cover], intents: Sequence[str], lease: Lease | None = None
    ) -> int:
        """Write what a model made of photos; how many of them. `intents` are of their gallery rows, and end.

        Left out are photos that are covered already, and those of records that changed since they were read
        or are no more. Raises `Conflict` (LEASE_LOST, MODEL_RETIRED), `NotFound` when no upgrade is under
        way."""
        with self._database.committing() as revs:
            now = self._clock.now()
            return covering.cover(revs, model_id, covers, intents=intents, now=now, lease=lease)

    def uncovered(self, model_id: str, after: str = "", photos: int = 64) -> list[str]:
        """The next records behind `after` with photos that the model does not cover: as many as have so many
        such photos."""
        with self._database.reading() as connection:
            return covering.uncovered(connection, model_id, after, photos)

    def count_uncovered(self, model_id: str) -> int:
        """Photos that the model does not cover."""
        with self._database.reading() as connection:
            return covering.count_uncovered(connection, model_id)

    def count_faces(self, model_id: str) -> int:
        """Face rows of the model."""
        with self._database.reading() as connection:
            return covering.count_faces(connection, model_id)

    def covered_photos(self, model_id: str, record_ids: Iterable[str]) -> frozenset[tuple[str, str]]:
        """Of these records the photos (record id, sha256) that the model covers."""
        with self._database.reading() as connection:
            return covering.covered_photos(connection, model_id, record_ids)

    def coverage(self, model_id: str, other: str) -> Coverage:
        """How much of what is enrolled the model has, beside the other."""
        with self._database.reading() as connection:
            return upgrade_reading.read_coverage(connection, model_id, other)

    def losses(self, model_id: str) -> Iterator[Loss]:
        """Every photo of which the model has fewer faces than the one it was enrolled with, by record."""
        return upgrade_reading.read_losses(self._database, model_id)

    def forget_losses(self, lease: Lease, model_id: str) -> int:
        """Have photos with losses looked at once more; how many."""
        with self._database.committing() as revs:
            upgrades.check(revs.connection, lease)
            return covering.forget_losses(revs.connection, model_id)

    def retire_some(self, lease: Lease, keep: str, drop: str, after: str, limit: int) -> str | None:
        """Take the rows of the model `drop` out of the next records behind `after`; the last of them, None at
        the end. Only while it is the one that leaves: `Conflict` (UPGRADE_STATE)."""
        with self._database.committing() as revs:
            found = upgrades.check(revs.connection, lease)
            if found.leaving is None or found.leaving.model_id != drop:
                raise Conflict(f"the upgrade is {found.state}: {drop} stays", code="UPGRADE_STATE")
            return covering.retire_some(revs.connection, keep, drop, after, limit)
