"""Model upgrades inside a transaction: which there is, who drives it, and which model serves.

As of a load: one driver at a time, whose fence every commit of its work checks. The state is the servers'
signal too: they look at it every so often, and serve with the model that it names.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta

import sqlalchemy as sa

from catalogue import sql
from catalogue.load_types import Lease
from catalogue.tables import counter
from catalogue.upgrade_tables import coverage, upgrades
from catalogue.upgrade_types import Upgrade, UpgradeModel, UpgradeState
from homeward.errors import Conflict, NotFound

NAME = "the model upgrade"


def latest(connection: sa.Connection, *, lock: bool = False) -> Upgrade | None:
    """The upgrade that is under way, else the last one; None before the first."""
    query = sa.select(upgrades).order_by(upgrades.c.number.desc()).limit(1)
    row = connection.execute(query.with_for_update() if lock else query).mappings().first()
    return None if row is None else _upgrade(row)


def begin(
    connection: sa.Connection, old: UpgradeModel, new: UpgradeModel, holder: str, now: datetime
) -> Lease:
    """A new upgrade and the right to drive it; see `UpgradeLedger.begin`."""
    last = latest(connection, lock=True)
    if last is not None and not last.ended:
        raise Conflict(
            f"an upgrade from {last.old.bundle} to {last.new.bundle} is under way ({last.state}): finish it, "
            "or abandon it",
            code="UPGRADE_EXISTS",
        )
    rev = int(connection.execute(sa.select(counter.c.rev)).scalar_one())
    number = 1 if last is None else last.number + 1
    lease = Lease(NAME, int(1000 * now.timestamp()))
    row = {
        "number": number,
        "from_bundle": old.bundle,
        "from_model": old.model_id,
        "from_dimension": old.dimension,
        "to_bundle": new.bundle,
        "to_model": new.model_id,
        "to_dimension": new.dimension,
        "state": UpgradeState.EMBEDDING.value,
        "fence": lease.fence,
        "holder": holder,
        "heartbeat_at": now,
        "since_rev": rev,
        "created_at": now,
        "ended_at": None,
        "message": "",
    }
    if not sql.insert_if_new(connection, upgrades, row):
        raise Conflict("another upgrade was begun at this moment", code="UPGRADE_EXISTS")
    return lease


def take(
    connection: sa.Connection, holder: str, lapse: timedelta, now: datetime, *, dead: int | None
) -> Lease:
    """The right to drive an upgrade that nobody drives; see `UpgradeLedger.take`."""
    found = under_way(connection)
    alive = found.driven and found.fence != dead
    if alive and found.heartbeat_at is not None and found.heartbeat_at > now - lapse:
        raise Conflict(f"{found.holder} is at work on the upgrade", code="UPGRADE_BUSY")
    lease = Lease(NAME, found.fence + 1)
    values = {"fence": lease.fence, "holder": holder, "heartbeat_at": now, "message": ""}
    connection.execute(sa.update(upgrades).where(upgrades.c.number == found.number).values(values))
    return lease


def under_way(connection: sa.Connection) -> Upgrade:
    """The upgrade under way, held until this transaction ends. Raises `NotFound` (NO_UPGRADE)."""
    found = latest(connection, lock=True)
    if found is None or found.ended:
        raise NotFound(
            "no model upgrade is under way: homeward models migrate --to BUNDLE begins one", code="NO_UPGRADE"
        )
    return found


def check(connection: sa.Connection, lease: Lease) -> Upgrade:
    """The upgrade, held until this transaction ends. Raises `Conflict` (LEASE_LOST) without the lease."""
    found = latest(connection, lock=True)
    if found is None or found.ended or found.fence != lease.fence:
        raise Conflict(
            "the upgrade was taken over, or has ended; this driver's work on it ends here", code="LEASE_LOST"
        )
    return found


def put(connection: sa.Connection, lease: Lease, **values: object) -> None:
    """Change columns of the upgrade under way. Raises `Conflict` (LEASE_LOST)."""
    found = check(connection, lease)
    connection.execute(sa.update(upgrades).where(upgrades.c.number == found.number).values(**values))


def move(
    connection: sa.Connection,
    lease: Lease,
    allowed: Collection[UpgradeState],
    state: UpgradeState,
    now: datetime,
) -> None:
    """Go on to a state. Raises `Conflict` (LEASE_LOST, UPGRADE_STATE)."""
    found = check(connection, lease)
    if found.state not in allowed:
        raise Conflict(f"the upgrade is {found.state}, so it cannot be {state}", code="UPGRADE_STATE")
    ended = now if state in (UpgradeState.FINISHED, UpgradeState.ABANDONED) else None
    put(connection, lease, state=state.value, ended_at=ended)


def check_model(connection: sa.Connection, model_ids: Collection[str]) -> Upgrade | None:
    """The upgrade under way, if there is one. Raises `Conflict` (MODEL_RETIRED) when one of the models is no
    more, or is being erased: its rows would be found by no search."""
    found = latest(connection)
    if found is None:
        return None
    kept = {model.model_id for model in (found.serving, found.standby) if model is not None}
    if retired := sorted(set(model_ids) - kept):
        raise Conflict(
            f"model {retired[0]} serves no more, {found.serving.model_id} does: restart whatever embeds with "
            "the old one",
            code="MODEL_RETIRED",
        )
    return None if found.ended else found


def forget_coverage(connection: sa.Connection, photos: Collection[tuple[str, str]]) -> None:
    """These photos (record, sha256) were enrolled anew: what the other model made of them counts no more."""
    if photos:
        connection.execute(
            sa.delete(coverage).where(
                coverage.c.record_id == sa.bindparam("r"), coverage.c.sha256 == sa.bindparam("s")
            ),
            [{"r": record_id, "s": sha256} for record_id, sha256 in sorted(photos)],
        )


def _upgrade(row: sa.RowMapping) -> Upgrade:
    return Upgrade(
        number=row["number"],
        old=UpgradeModel(row["from_bundle"], row["from_model"], row["from_dimension"]),
        new=UpgradeModel(row["to_bundle"], row["to_model"], row["to_dimension"]),
        state=UpgradeState(row["state"]),
        fence=row["fence"],
        holder=row["holder"],
        heartbeat_at=row["heartbeat_at"],
        since_rev=row["since_rev"],
        created_at=row["created_at"],
        ended_at=row["ended_at"],
        message=row["message"],
    )
