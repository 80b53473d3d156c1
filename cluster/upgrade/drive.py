"""Drives an upgrade from one step to the next. Each may be killed at any moment and is simply given again."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from catalogue.load_types import Lease
from catalogue.store import Catalogue
from catalogue.upgrade_types import Upgrade, UpgradeModel, UpgradeState
from cluster.load.lease_keeper import LeaseKeeper, holder, is_dead
from cluster.load.patience import Stopped
from cluster.upgrade.passing import Passed
from cluster.upgrade.servers import ServerNotes, Servers, Tell
from cluster.upgrade.work import UpgradeWork
from homeward.clock import Clock, SystemClock
from homeward.config import Settings
from homeward.errors import Conflict, HomewardError, InvalidInput
from homeward.log_lines import where

EMBEDDING, READY, SWITCHED = UpgradeState.EMBEDDING, UpgradeState.READY, UpgradeState.SWITCHED
FINISHING, FINISHED = UpgradeState.FINISHING, UpgradeState.FINISHED
ABANDONING, ABANDONED = UpgradeState.ABANDONING, UpgradeState.ABANDONED

_TRIES = 20  # to find a moment in which nothing is just being enrolled
_WAIT_S = 0.5


class UpgradeDriver:
    """The steps of an upgrade. One at a time; `stop` may come from a signal's handler.

    Every step raises `NotFound` (NO_UPGRADE) without an upgrade, `Conflict` (UPGRADE_BUSY) while another
    driver lives, `Conflict` (UPGRADE_STATE) where it does not belong, and what stores and bundle raise: what
    was done by then stays done.
    """

    def __init__(
        self,
        settings: Settings,
        catalogue: Catalogue,
        *,
        tell: Tell = lambda _: None,
        progress: Callable[[Passed], object] = lambda _: None,
        clock: Clock | None = None,
    ) -> None:
        self._settings = settings
        self._catalogue = catalogue
        self._ledger = catalogue.upgrades
        self._tell = tell
        self._progress = progress
        self._clock = clock or SystemClock()
        self._stop = threading.Event()
        self._servers = Servers(ServerNotes(catalogue), self._stop, tell)
        self._work: UpgradeWork | None = None

    def stop(self) -> None:
        """End soon, in order; the step may be given again."""
        self._stop.set()
        if self._work is not None:
            self._work.stop()

    def migrate(self, bundle: str, models: Callable[[], tuple[UpgradeModel, UpgradeModel]]) -> Upgrade:
        """Begin an upgrade to a bundle, or go on with it, until everything enrolled is in both collections.
        Losses are tried once more. `models` are asked for at the beginning: the one that serves, and the new.

        Raises `Conflict` (UPGRADE_EXISTS) while one to another bundle is under way, `InvalidInput`
        (MODEL_SERVES) for the model that serves."""
        found = self._ledger.latest()
        if found is None or found.ended:
            old, new = models()
            if old.model_id == new.model_id:
                raise InvalidInput(f"{new.bundle} ({new.model_id}) serves already", code="MODEL_SERVES")
            lease = self._ledger.begin(old, new, holder())
            self._tell(f"from {old.bundle} ({old.model_id}) to {new.bundle} ({new.model_id})")
        else:
            if found.new.bundle != bundle:
                raise Conflict(
                    f"an upgrade to {found.new.bundle} is under way ({found.state}): finish or abandon it",
                    code="UPGRADE_EXISTS",
                )
            lease = self._take(found)
        with self._driving(lease) as work:
            found = self._in_state((EMBEDDING, READY))
            if (again := self._ledger.forget_losses(lease, found.new.model_id)) and found.state is READY:
                self._tell(f"{again} photos with losses are tried once more")
            self._cover(work, found.new, found.old)
            if found.state is EMBEDDING:
                self._ledger.move(lease, (EMBEDDING,), READY)
        return self._ledger.under_way()

    def cut_over(self, *, accept_losses: bool = False) -> Upgrade:
        """Have the new model serve, once every server has it loaded and every photo is accounted for.

        Raises `Conflict` with the counts and what to do: UPGRADE_LOSSES, UPGRADE_UNCOVERED,
        SERVERS_NOT_READY, LOADS_UNDER_WAY."""
        with self._step((READY, SWITCHED)) as (work, lease, found):
            if found.state is READY:
                self._cover(work, found.new, found.old)
                self._check_losses(found, accept_losses)
                self._switch(work, lease, (READY, SWITCHED), found.new, found.old)
            self._settle(work, found.new, found.old)
        return self._ledger.under_way()

    def roll_back(self) -> Upgrade:
        """Have the old model serve again; the new one's rows are kept up. Raises as `cut_over`."""
        with self._step((READY, SWITCHED)) as (work, lease, found):
            if found.state is SWITCHED:
                self._switch(work, lease, (SWITCHED, READY), found.old, found.new)
            self._settle(work, found.old, found.new)
        return self._ledger.under_way()

    def finish(self, *, accept_losses: bool = False) -> Upgrade:
        """Erase the old model's rows everywhere. There is no way back then but another upgrade."""
        with self._step((SWITCHED, FINISHING)) as (work, lease, found):
            if found.state is SWITCHED:
                self._settle(work, found.new, found.old)
                self._check_losses(found, accept_losses)
                self._switch(work, lease, (SWITCHED, FINISHING), found.new, found.old)
            self._erase(work, keep=found.new, drop=found.old)
            self._ledger.move(lease, (FINISHING,), FINISHED)
        return self._latest()

    def abandon(self) -> Upgrade:
        """Erase the new model's rows everywhere; the old one serves on."""
        with self._step((EMBEDDING, READY, ABANDONING)) as (work, lease, found):
            # What was enrolled with the new model must not go with its rows: while it served, or by a load of
            # an earlier upgrade to it that went on in this one. Without any the old model need not be loaded.
            if found.state is READY or (
                found.state is EMBEDDING and self._ledger.count_uncovered(found.old.model_id)
            ):
                self._switch(work, lease, (found.state, ABANDONING), found.old, found.new)
            elif found.state is EMBEDDING:
                self._ledger.switch(lease, (EMBEDDING,), ABANDONING, found.old.model_id)
            self._erase(work, keep=found.old, drop=found.new)
            self._ledger.move(lease, (ABANDONING,), ABANDONED)
        return self._latest()

    @contextmanager
    def _step(self, allowed: tuple[UpgradeState, ...]) -> Iterator[tuple[UpgradeWork, Lease, Upgrade]]:
        lease = self._take(self._in_state(allowed))
        with self._driving(lease) as work:
            yield work, lease, self._in_state(allowed)  # as the driver before left it

    def _switch(
        self,
        work: UpgradeWork,
        lease: Lease,
        states: tuple[UpgradeState, UpgradeState],
        model: UpgradeModel,
        other: UpgradeModel,
    ) -> None:
        before, after = states
        self._check_loads()
        self._servers.wait_loaded(model)
        for _ in range(_TRIES):
            self._cover(work, model, other)
            try:
                self._ledger.switch(lease, (before,), after, model.model_id)
            except Conflict as error:
                if error.code != "UPGRADE_UNCOVERED":
                    raise
                self._tell(f"{error.message}; covering them")
            else:
                if after is not FINISHING and after is not ABANDONING:
                    self._tell(f"{model.bundle} serves from now on")
                return
        raise self._uncovered(self._ledger.count_uncovered(model.model_id))

    def _settle(self, work: UpgradeWork, model: UpgradeModel, other: UpgradeModel) -> int:
        """Wait until every server serves with the model; cover what the last ones enrolled with the other."""
        self._servers.wait_serving(model)
        return self._cover(work, model, other)

    def _erase(self, work: UpgradeWork, *, keep: UpgradeModel, drop: UpgradeModel) -> None:
        self._servers.wait_unloaded(drop)
        self._tell(f"erasing the rows of {drop.bundle}")
        work.erase(keep, drop, lambda _: None)

    def _cover(self, work: UpgradeWork, model: UpgradeModel, other: UpgradeModel) -> int:
        return work.cover(model, other, self._progress)

    @contextmanager
    def _driving(self, lease: Lease) -> Iterator[UpgradeWork]:
        """Keep the lease while the step is at work; note why it ended."""
        self._work = work = UpgradeWork(self._settings, self._catalogue, lease, self._clock)
        with LeaseKeeper(self._ledger, lease, self._settings.loads.lapse_s, self.stop):
            try:
                self._check_stopped()
                yield work
            except BaseException as error:
                why = error.message if isinstance(error, HomewardError) else where(error)
                with contextlib.suppress(HomewardError):  # the first error says more
                    self._ledger.release(lease, why)
                raise
            finally:
                self._work = None
        with contextlib.suppress(Conflict):  # an upgrade that has ended has no driver
            self._ledger.release(lease)

    def _take(self, found: Upgrade) -> Lease:
        lapse_s = self._settings.loads.lapse_s
        if is_dead(found):
            return self._ledger.take(holder(), lapse_s, dead=found.fence)
        give_up = time.monotonic() + lapse_s + 2 * _WAIT_S
        while True:
            try:
                return self._ledger.take(holder(), lapse_s)
            except Conflict as error:
                if error.code != "UPGRADE_BUSY" or time.monotonic() > give_up or self._stop.is_set():
                    raise
                self._stop.wait(_WAIT_S)

    def _check_loads(self) -> None:
        """A load goes on with the model that it was begun with, and no search would find what it brings."""
        driven = [load.name for load in self._catalogue.loads.all() if load.driven and not is_dead(load)]
        if driven:
            raise Conflict(
                f"{', '.join(driven)} is being loaded with the model that serves now: let it end or stop it, "
                "then give this again",
                code="LOADS_UNDER_WAY",
            )

    def _check_stopped(self) -> None:
        if self._stop.is_set():
            raise Stopped("stopped by request")

    def _in_state(self, allowed: tuple[UpgradeState, ...]) -> Upgrade:
        found = self._ledger.under_way()
        if found.state not in allowed:
            raise Conflict(
                f"the upgrade to {found.new.bundle} is {found.state}; {_NEXT[found.state]}",
                code="UPGRADE_STATE",
            )
        return found

    def _check_losses(self, found: Upgrade, accepted: bool) -> None:
        coverage = self._ledger.coverage(found.new.model_id, found.old.model_id)
        if coverage.lost and not accepted:
            raise Conflict(
                f"{coverage.lost} faces of {coverage.photos_with_losses} photos have no template of the new "
                f"model, and no search would find {coverage.records_lost} records: homeward models migrate "
                "losses lists them and says why. Restore or enrol these photos again and give migrate once "
                "more, or go on with --accept-losses",
                code="UPGRADE_LOSSES",
                faces=coverage.lost,
                records=coverage.records_lost,
            )

    def _uncovered(self, left: int) -> Conflict:
        return Conflict(
            f"{left} photos are neither embedded nor listed as lost: others enrol faster than that is done. "
            "Let loads end or stop them, see whether every server has the bundle installed, and try again",
            code="UPGRADE_UNCOVERED",
            photos=left,
        )

    def _latest(self) -> Upgrade:
        found = self._ledger.latest()
        assert found is not None
        return found


_NEXT = {
    EMBEDDING: "give migrate again until it is ready, or abandon it",
    READY: "cut-over comes next, or abandon",
    SWITCHED: "finish comes next, or roll-back",
    FINISHING: "give finish again",
    FINISHED: "begin another with migrate",
    ABANDONING: "give abandon again",
    ABANDONED: "begin another with migrate",
}
