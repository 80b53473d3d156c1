"""Room for a few things at a time, given to who came first in a line of one's own making."""

from __future__ import annotations

import heapq
import itertools
import threading


class Room:
    """A semaphore whose waiters are served by their turn, the lowest first; of one turn, who asked first.

    Thread-safe. Several parts of a load that are fed to a model side by side would all be through with it at
    the same time, and then all be written while the model has nothing to do; in turn, one is written while
    the next is in the model.
    """

    def __init__(self, places: int) -> None:
        self._free = places
        self._changed = threading.Condition()
        self._waiting: list[tuple[int, int]] = []
        self._asked = itertools.count()

    def acquire(self, turn: int = 0) -> None:
        """Wait for a place."""
        with self._changed:
            ticket = (turn, next(self._asked))
            heapq.heappush(self._waiting, ticket)
            try:
                self._changed.wait_for(lambda: self._free > 0 and self._waiting[0] == ticket)
                self._free -= 1
            finally:
                self._waiting.remove(ticket)
                heapq.heapify(self._waiting)
                self._changed.notify_all()

    def release(self) -> None:
        """Give a place back. From any thread."""
        with self._changed:
            self._free += 1
            self._changed.notify_all()
