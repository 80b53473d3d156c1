"""The HTTP page that Prometheus reads: of one process, or of all of Homeward's on a machine.

Processes that Ray places on one machine share an address: the one that got it serves its own metrics and what
the others write beside each other in a folder, now and then; should it end, another takes the address. Every
sample names its process by the label `process`.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from homeward.errors import InvalidInput, Unavailable
from homeward.files import write_private

WRITE_S = 5.0
STALE_S = 20.0  # a file that is older is of a process that ended
_SUFFIX = ".prom"
_BEGAN = "_created"  # when a series began: as many series again, and nobody asks

_logger = logging.getLogger(__name__)


@contextmanager
def serving_metrics(address: str, registry: CollectorRegistry, process: str) -> Iterator[None]:
    """Serve this process's metrics at `address` (host:port) while the context lasts.

    Raises `InvalidInput` (ADDRESS_INVALID) and `Unavailable` (ADDRESS_IN_USE)."""
    page = _Page(address, _Labelled(registry, process))
    if not page.open():
        raise Unavailable(f"cannot serve metrics on {address}: the address is in use", code="ADDRESS_IN_USE")
    try:
        yield
    finally:
        page.close()


@contextmanager
def sharing_metrics(address: str, folder: Path, registry: CollectorRegistry, process: str) -> Iterator[None]:
    """Have this process's metrics served at `address`, by itself or by another process that has the same
    `folder`, while the context lasts. `process` is its own name there, and a file's. What hinders it is
    logged: metrics end no process.

    Raises `InvalidInput` (ADDRESS_INVALID)."""
    shared = _Shared(address, folder, registry, process)
    thread = threading.Thread(target=shared.run, name="metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        shared.stop.set()
        thread.join()


class _Shared:
    def __init__(self, address: str, folder: Path, registry: CollectorRegistry, process: str) -> None:
        self._folder = folder
        self._registry = registry
        self._own = process
        self._page = _Page(address, _Labelled(registry, process), _Neighbours(folder, self._own))
        self.stop = threading.Event()

    def run(self) -> None:
        file = self._folder / f"{self._own}{_SUFFIX}"
        told = False
        try:
            while True:
                try:
                    if not self._page.open():
                        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                        write_private(file, generate_latest(self._registry))
                except Exception as error:  # noqa: BLE001 - whatever it is, the process has other work
                    if not told:
                        _logger.warning("metrics are not served: %s", type(error).__name__)
                    told = True
                if self.stop.wait(WRITE_S):
                    return
        finally:
            self._page.close()
            with contextlib.suppress(OSError):
                file.unlink(missing_ok=True)


class _Page:
    """The listener; `open` again until the address is free."""

    def __init__(self, address: str, *collectors: Collector) -> None:
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal():
            raise InvalidInput(f"{address} is no host:port for metrics", code="ADDRESS_INVALID")
        self._host, self._port = host.strip("[]"), int(port)
        self._registry = CollectorRegistry()
        self._registry.register(_Together(collectors))
        self._server: Any = None

    def open(self) -> bool:
        """Whether this process has the address."""
        if self._server is None:
            try:
                self._server, _ = start_http_server(self._port, addr=self._host, registry=self._registry)
            except OSError:
                return False
        return True

    def close(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


class _Labelled(Collector):
    """A registry's metrics with the name of their process."""

    def __init__(self, registry: CollectorRegistry, process: str) -> None:
        self._registry = registry
        self._process = process

    def collect(self) -> Iterator[Metric]:
        return _labelled(self._registry.collect(), self._process)

    def describe(self) -> Iterable[Metric]:
        return ()


class _Neighbours(Collector):
    """What other processes wrote into the folder."""

    def __init__(self, folder: Path, own: str) -> None:
        self._folder = folder
        self._own = own

    def collect(self) -> Iterator[Metric]:
        oldest = time.time() - STALE_S
        for file in sorted(self._folder.glob(f"*{_SUFFIX}")):
            with contextlib.suppress(OSError, ValueError):
                if file.name == f"{self._own}{_SUFFIX}":
                    continue
                if file.stat().st_mtime < oldest:
                    file.unlink()
                    continue
                families = list(text_string_to_metric_families(file.read_text(encoding="utf-8")))
                yield from _labelled(families, file.name.removesuffix(_SUFFIX))


class _Together(Collector):
    """Families of one name made one, as the format wants them."""

    def __init__(self, collectors: Iterable[Collector]) -> None:
        self._collectors = tuple(collectors)

    def collect(self) -> Iterator[Metric]:
        found: dict[str, Metric] = {}
        for collector in self._collectors:
            for family in collector.collect():
                known = found.setdefault(family.name, family)
                if known is not family:
                    known.samples.extend(family.samples)
        return iter(found.values())

    def describe(self) -> Iterable[Metric]:
        return ()


def _labelled(families: Iterable[Metric], process: str) -> Iterator[Metric]:
    for family in families:
        made = Metric(family.name, family.documentation, family.type)
        made.samples = [
            one._replace(labels={"process": process, **one.labels})
            for one in family.samples
            if not one.name.endswith(_BEGAN)
        ]
        if made.samples or not family.samples:
            yield made
