"""How a server is at this moment: whether it answers, and its index, here or on shards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np

from cluster.compose import Parts
from cluster.search import Searcher
from homeward.telemetry import Level, Reading
from index.index_readings import index_readings
from index.placement import SLOTS


class Served(Protocol):
    """The parts of the model that serves, and its searches."""

    @property
    def parts(self) -> Parts: ...

    @property
    def searcher(self) -> Searcher: ...


class ServerReadings:
    """Read from any thread."""

    def __init__(self, current: Callable[[], Served]) -> None:
        """`current`: what serves now, for the model may be switched."""
        self._current = current

    def __call__(self) -> Iterator[Reading]:
        """The readings."""
        serving = self._current()
        parts = serving.parts
        yield Reading(Level.READY, float(serving.searcher.is_open))
        if parts.router is not None:
            yield from parts.router.readings()
            return
        held = parts.follower.held
        states = {"ready": held, "loading": ~held, "leaving": np.zeros(SLOTS, np.bool_)}
        yield from index_readings(parts.index, states, parts.follower.confirmed_at)
