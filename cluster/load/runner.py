"""How parts are handed to loaders: in this process, or by Ray Data to actors on a cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Protocol

from catalogue.load_types import Lease
from cluster.load.counters import Counters
from cluster.load.part_done import PARTS_AT_A_TIME, PartDone
from cluster.load.spec import LoadSpec
from homeward.config import Settings
from homeward.memory import uncollected

if TYPE_CHECKING:  # torch and the stores' clients are for whoever loads
    from cluster.load.loader import Loader


class Runner(Protocol):
    """Has parts loaded."""

    def run(self, parts: Sequence[int]) -> Iterator[PartDone]:
        """Load these, and say of each that it is done or why it is not, as they end. Not to be resumed after
        it was left. Raises `WorkerUnavailable` when those who load are gone for good."""
        ...

    def counters(self) -> Counters:
        """What was done so far; may be called from another thread."""
        ...

    def stop(self) -> None:
        """Begin nothing more: `run` ends soon. From any thread, or a signal's handler."""
        ...


class RunHere:
    """One loader in this process. For the embedded stores, which one process owns."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader
        self._stopping = False

    def run(self, parts: Sequence[int]) -> Iterator[PartDone]:
        """See `Runner`."""
        waiting = iter(parts)
        running: set[Future[PartDone]] = set()
        with ThreadPoolExecutor(PARTS_AT_A_TIME, thread_name_prefix="part") as executor:
            try:
                while True:
                    while not self._stopping and len(running) < PARTS_AT_A_TIME:
                        part = next(waiting, None)
                        if part is None:
                            break
                        running.add(executor.submit(self._loader.load, part))
                    if not running:
                        return
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    yield from (one.result() for one in done)
            finally:
                self._loader.stop()

    def counters(self) -> Counters:
        """See `Runner`."""
        return self._loader.counters()

    def stop(self) -> None:
        """See `Runner`."""
        self._stopping = True
        self._loader.stop()


class Runners(Protocol):
    """Where the parts of a load go, before it is known which they are."""

    def prepare(self) -> None:
        """Begin what takes long, beside other work; may be called often."""
        ...

    def open(self, spec: LoadSpec, lease: Lease) -> AbstractContextManager[Runner]:
        """For a load that lies ready. Raises what `open_loader` raises, or `WorkerUnavailable`."""
        ...


class _Here:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def prepare(self) -> None:
        """A loader wants the plan."""

    @contextmanager
    def open(self, spec: LoadSpec, lease: Lease) -> Iterator[Runner]:
        from cluster.load.open_loader import open_loader

        with open_loader(self._settings, spec, lease) as loader:
            yield RunHere(loader)


@contextmanager
def open_runners(settings: Settings) -> Iterator[Runners]:
    """What the settings say: `loads.where`."""
    if on_ray(settings):
        with uncollected():
            from cluster.load.load_actor import RayRunners

        with RayRunners(settings) as runners:
            yield runners
    else:
        yield _Here(settings)


def on_ray(settings: Settings) -> bool:
    """Whether parts go to a Ray cluster: every store is a server that its actors reach."""
    if settings.loads.where == "auto":
        return bool(settings.catalogue.uri and settings.gallery.uri and settings.photos.uri)
    return settings.loads.where == "ray"
