"""Who still reads an old state: what a deletion must overwrite waits for them, and for nobody else."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager


class Readers:
    """Searches under way, by the number of changes that had been published when they began."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._published = 0
        self._reading: Counter[int] = Counter()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Around taking a state and reading it."""
        with self._lock:
            mine = self._published
            self._reading[mine] += 1
        try:
            yield
        finally:
            with self._lock:
                self._reading[mine] -= 1
                if not self._reading[mine]:
                    del self._reading[mine]

    def published(self) -> int:
        """Say that a new state is there; returns its number, for `have_left`."""
        with self._lock:
            self._published += 1
            return self._published

    def have_left(self, number: int) -> bool:
        """Whether nobody reads a state older than that one."""
        with self._lock:
            return all(begun >= number for begun in self._reading)
