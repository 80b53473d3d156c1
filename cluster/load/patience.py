"""Waiting for stores that do not answer: back off, say so, go on, and give up after a while."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeVar

from homeward.errors import Conflict, HomewardError, Overloaded, Unavailable

Value = TypeVar("Value")

FIRST_WAIT_S = 0.25
LONGEST_WAIT_S = 10.0


class Stopped(Conflict):
    """The load is being stopped: what was under way is left as it is, to be done again."""

    code = "LOAD_STOPPED"


class Patience:
    """Does work again while a store does not answer, for `patience_s` seconds at most. Thread-safe."""

    def __init__(
        self,
        patience_s: float,
        holding_back: Callable[[str], AbstractContextManager[None]],
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._patience_s = patience_s
        self._holding_back = holding_back
        self._monotonic = monotonic
        self._stop = threading.Event()

    def stop(self) -> None:
        """Whoever waits gives up."""
        self._stop.set()

    def check(self) -> None:
        """Raise `Stopped` once that was asked for."""
        if self._stop.is_set():
            raise Stopped("the load is being stopped")

    def do(self, work: Callable[[], Value]) -> Value:
        """What `work` returns. It must be harmless to do again.

        Raises what it raised last when that was something else, or patience is over; `Stopped`."""
        give_up = self._monotonic() + self._patience_s
        wait_s = FIRST_WAIT_S
        while True:
            self.check()
            try:
                return work()
            except (Unavailable, Overloaded) as error:
                if self._monotonic() + wait_s > give_up:
                    raise
                self._wait(error, wait_s)
                wait_s = min(2 * wait_s, LONGEST_WAIT_S)

    def _wait(self, error: HomewardError, wait_s: float) -> None:
        with self._holding_back(error.message):
            # Workers that were stopped by the same store do not all come back at once.
            self._stop.wait(wait_s * random.uniform(0.75, 1.25))  # noqa: S311
