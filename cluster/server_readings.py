"""How a server is at this moment: whether it answers, and its index, here or on shards."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from cluster.compose import Parts
from cluster.search import Searcher
from homeward.telemetry import Level, Reading
from index.index_readings import index_readings
from index.placement import SLOTS


class ServerReadings:
    """Read from any thread."""

    def __init__(self, parts: Parts, searcher: Searcher) -> None:
        self._parts = parts
        self._searcher = searcher

    def __call__(self) -> Iterator[Reading]:
        """The readings."""
        parts = self._parts
        yield Reading(Level.READY, float(self._searcher.is_open))
        if parts.router is not None:
            yield from parts.router.readings()
            return
        held = parts.follower.held
        states = {"ready": held, "loading": ~held, "leaving": np.zeros(SLOTS, np.bool_)}
        yield from index_readings(parts.index, states, parts.follower.confirmed_at)
