"""Keeps a load's lease while its driver works, and tells the driver when it is lost."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

import psutil

from catalogue.load_types import Lease
from homeward.errors import Conflict, HomewardError

_SAME_BEGIN_S = 2.0

_logger = logging.getLogger(__name__)


class Renewing(Protocol):
    """What of a ledger is used."""

    def renew(self, lease: Lease) -> None:
        """Say that the driver lives. Raises `Conflict` when the lease is another's."""
        ...


class Driven(Protocol):
    """What has a driver: a load, or an upgrade of the model."""

    @property
    def holder(self) -> str: ...


def holder() -> str:
    """Who this process is, for people and for `is_dead`: host, process id and when it began."""
    return f"{socket.gethostname()} process {os.getpid()} begun {psutil.Process().create_time():.0f}"


def is_dead(load: Driven) -> bool:
    """Whether the driver was a process of this machine that is no more: nobody need wait for its lease."""
    words = load.holder.split()
    if len(words) != 5 or words[0] != socket.gethostname():
        return False
    try:
        process = psutil.Process(int(words[2]))
        # Two processes may compute it a little differently, when the clock was set in between.
        other = abs(process.create_time() - float(words[4])) > _SAME_BEGIN_S
        return other or process.status() == psutil.STATUS_ZOMBIE
    except (psutil.NoSuchProcess, ValueError):
        return True


class LeaseKeeper:
    """A context in which a thread says every so often that the driver lives. `lost` is called, once, when the
    lease is another's; a ledger that does not answer is asked again."""

    def __init__(self, ledger: Renewing, lease: Lease, lapse_s: float, lost: Callable[[], object]) -> None:
        self._ledger = ledger
        self._lease = lease
        self._every_s = lapse_s / 5
        self._lost = lost
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._end.wait(self._every_s):
            try:
                self._ledger.renew(self._lease)
            except Conflict:
                self._lost()
                return
            except HomewardError as error:
                _logger.warning("the lease of %s could not be renewed: %s", self._lease.load, error.message)
