"""Drives a load: one process per load, from its first part to its last.

Whatever kills the driver, its loaders or the stores, another driver goes on where the ledger says: parts
that are committed are not looked at again, all others are done from their start.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

from catalogue.ledger import LoadLedger
from catalogue.load_types import Lease, Load, LoadState
from catalogue.open import open_catalogue
from catalogue.store import Catalogue
from cluster.load.counters import Counters, Progress
from cluster.load.lease_keeper import LeaseKeeper, holder, is_dead
from cluster.load.load_documents import LoadDocuments
from cluster.load.load_readings import LoadReadings
from cluster.load.open_source import open_source
from cluster.load.patience import Stopped
from cluster.load.planning import Planner, check_sources
from cluster.load.progress import Display
from cluster.load.runner import Runner, Runners, on_ray, open_runners
from cluster.load.spec import LoadSpec, read_spec, write_spec
from cluster.ownership import own_data_dir
from homeward.config import Settings
from homeward.errors import Conflict, Corrupt, HomewardError, InvalidInput
from homeward.log_lines import where
from homeward.telemetry import watching
from photos.open import open_document_store

_SHOW_S = 1.0
_WAIT_S = 0.5

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a driver left a load."""

    load: Load
    progress: Progress
    before: bool = False  # it was done already: nothing was touched


class Driver:
    """Starts and resumes loads. One at a time; `stop` may come from a signal's handler."""

    def __init__(self, settings: Settings, catalogue: Catalogue, documents: LoadDocuments) -> None:
        self._settings = settings
        self._ledger: LoadLedger = catalogue.loads
        self._rev = catalogue.rev
        self._documents = documents
        self._open_source = partial(open_source, settings=settings)
        self._stop = threading.Event()
        self._runner: Runner | None = None

    def stop(self) -> None:
        """End soon, in order: the load can be resumed."""
        self._stop.set()
        if self._runner is not None:
            self._runner.stop()

    def start(self, name: str, spec: LoadSpec, display: Display) -> Ended:
        """A new load. Raises `Conflict` (LOAD_EXISTS), and as `resume`; `InvalidInput` for a source or a
        manifest that cannot be read, and then there is no load of this name."""
        if spec.reinstate:
            spec = replace(spec, reinstate_until=self._rev())
        lease = self._ledger.create(name, write_spec(spec), holder())
        return self._drive(lease, spec, LoadState.PLANNING, display)

    def start_or_resume(
        self, name: str, spec: LoadSpec, display: Display, tell: Callable[[str], object]
    ) -> Ended:
        """Start a load, or go on with it if it was started: for who starts it again and again, as a job does.

        Raises as `start` and `resume`, and `Conflict` (LOAD_DIFFERS) if the load of this name is another."""
        try:
            return self.start(name, spec, display)
        except Conflict as error:
            if error.code != "LOAD_EXISTS":
                raise
        if read_spec(self._ledger.get(name).spec).asked() != spec.asked():
            raise Conflict(
                f"{name} was started with other sources, another table, gallery or agency: give what is to "
                "be loaded now a name of its own",
                code="LOAD_DIFFERS",
            )
        return self.resume(name, display, tell)

    def resume(self, name: str, display: Display, tell: Callable[[str], object]) -> Ended:
        """Go on with a load. Of one that is done nothing is touched.

        Raises `NotFound`; `Conflict` for one that is undone or being undone, whose driver lives, whose
        sources changed, or whose model is another; what sources and stores raise. The load is left STOPPED
        with the reason, unless another driver has it."""
        load = self._ledger.get(name)
        if load.state is LoadState.DONE:
            return Ended(load, self._progress(load, Counters(), 0, 0.0), before=True)
        if load.state in (LoadState.UNDOING, LoadState.UNDONE):
            raise Conflict(
                f"{name} is {load.state}: start the archive again under another name", code="LOAD_UNDONE"
            )
        lease = self.take(load, tell)
        return self._drive(lease, read_spec(load.spec), load.state, display)

    def take(self, load: Load, tell: Callable[[str], object]) -> Lease:
        """The right to drive a load, once its driver is dead or has been silent for long enough."""
        lapse_s = self._settings.loads.lapse_s
        if is_dead(load):
            return self._ledger.take(load.name, holder(), lapse_s, dead=load.fence)
        give_up = time.monotonic() + lapse_s + 2 * _WAIT_S
        told = False
        while True:
            try:
                return self._ledger.take(load.name, holder(), lapse_s)
            except Conflict as error:
                if error.code != "LOAD_BUSY" or time.monotonic() > give_up or self._stop.is_set():
                    raise
                if not told:
                    tell(f"{error.message}; waiting up to {lapse_s:.0f} s to see whether it is alive")
                    told = True
                self._stop.wait(_WAIT_S)

    def _drive(self, lease: Lease, spec: LoadSpec, state: LoadState, display: Display) -> Ended:
        with (
            LeaseKeeper(self._ledger, lease, self._settings.loads.lapse_s, self.stop),
            open_runners(self._settings) as runners,
        ):
            try:
                if state is LoadState.PLANNING:
                    spec = self._plan(lease, spec, runners)
                else:
                    check_sources(spec, self._open_source)
                    self._ledger.begin(lease, LoadState.LOADING)
                state = LoadState.STOPPED
                final = self._load(lease, spec, display, runners)
            except BaseException as error:
                why = error.message if isinstance(error, HomewardError) else where(error)
                if state is LoadState.PLANNING and isinstance(error, InvalidInput):
                    self._discard(lease)
                else:
                    left = state if state is LoadState.PLANNING else LoadState.STOPPED
                    self._leave(lease, left, why, error)
                raise
        self._ledger.release(lease, LoadState.DONE)
        return Ended(self._ledger.get(lease.load), final)

    def _discard(self, lease: Lease) -> None:
        """A source or manifest that cannot be read: the name is free for a load that is started properly.
        Its documents go first: without an entry in the ledger nobody would ever remove them."""
        self._documents.drop_parts(lease.load, lease.fence)
        self._ledger.discard(lease)

    def _leave(self, lease: Lease, state: LoadState, why: str, error: BaseException) -> None:
        """Say why the load is left. Raises `Conflict` (LEASE_LOST) where that explains the error."""
        try:
            self._ledger.release(lease, state, why)
        except Conflict as lost:
            if isinstance(error, HomewardError):
                raise lost from error
        except HomewardError as silent:
            _logger.warning("the ledger does not say yet why %s ended: %s", lease.load, silent.message)

    def _plan(self, lease: Lease, spec: LoadSpec, runners: Runners) -> LoadSpec:
        def check() -> None:
            self.check()
            runners.prepare()  # there is a photo: sources and manifest can be read

        planner = Planner(self._ledger, self._documents, self._open_source, check)
        planned = planner.lay_ready(spec, lease)
        self._ledger.planned(lease, parts=planned.parts, photos=planned.photos, spec=write_spec(planned.spec))
        return planned.spec

    def check(self) -> None:
        """Raise `Stopped` once that was asked for."""
        if self._stop.is_set():
            raise Stopped("stopped by request")

    def _load(self, lease: Lease, spec: LoadSpec, display: Display, runners: Runners) -> Progress:
        load = self._ledger.get(lease.load)
        assert load.parts is not None
        done = {part.part for part in self._ledger.parts(lease.load)}
        todo = [part for part in range(load.parts) if part not in done]
        before = self._ledger.sums(lease.load).photos
        failure: HomewardError | None = None
        begun = time.monotonic()
        with runners.open(spec, lease) as runner:
            self._runner = runner
            if self._stop.is_set():
                runner.stop()
            with _shown(
                display, lambda: self._progress(load, runner.counters(), before, time.monotonic() - begun)
            ):
                for part in runner.run(todo):
                    failure = failure or part.failure()
                    if failure is not None:
                        runner.stop()
            self._runner = None
            final = runner.counters()
        if failure is not None:
            raise failure
        self.check()
        counted = self._ledger.parts(lease.load)
        if len(counted) != load.parts:
            raise Corrupt(
                f"{load.parts - len(counted)} parts of {load.parts} are not committed, and nobody said why; "
                "resume the load",
                code="LOAD_INCOMPLETE",
            )
        self._documents.sweep_outcomes(lease.load, {part.document for part in counted})
        self._documents.drop_parts(lease.load)
        return self._progress(load, final, before, time.monotonic() - begun)

    def _progress(self, load: Load, counters: Counters, before: int, running_s: float) -> Progress:
        done = self._ledger.sums(load.name)
        return Progress(
            load.name,
            load.photos or 0,
            done.photos,
            load.parts or 0,
            done.parts,
            running_s,
            before,
            counters,
            rejected=done.rejected,
        )


@contextmanager
def open_driver(settings: Settings) -> Iterator[tuple[Driver, Catalogue, LoadDocuments]]:
    """A driver over the stores that the settings name. With the embedded stores it owns the data folder:
    raises `Conflict` (DATA_DIR_OWNED) while a server serves it."""
    if on_ray(settings):
        with open_stores(settings) as (catalogue, documents):
            yield Driver(settings, catalogue, documents), catalogue, documents
    else:
        with own_data_dir(settings.data_dir), open_stores(settings) as (catalogue, documents):
            yield Driver(settings, catalogue, documents), catalogue, documents


@contextmanager
def open_stores(settings: Settings) -> Iterator[tuple[Catalogue, LoadDocuments]]:
    """The ledger and the documents of loads, for whoever only reads them or cancels."""
    catalogue = open_catalogue(settings.catalogue, settings.data_dir)
    try:
        yield catalogue, LoadDocuments(open_document_store(settings.photos, settings.data_dir))
    finally:
        catalogue.close()


@contextmanager
def _shown(display: Display, progress: Callable[[], Progress]) -> Iterator[None]:
    """Show progress in a thread until the context ends. What cannot be shown does not end the load."""
    end = threading.Event()
    read = LoadReadings()

    def run() -> None:
        while not end.wait(_SHOW_S):
            try:
                now = progress()
                read.see(now)
                display.show(now)
            except Exception as error:  # noqa: BLE001 - progress that cannot be shown must not end a load
                _logger.info("progress is not known: %s", where(error))

    thread = threading.Thread(target=run, name="progress", daemon=True)
    thread.start()
    try:
        with watching(read):
            yield
    finally:
        end.set()
        thread.join()
