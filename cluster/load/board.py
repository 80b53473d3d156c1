"""Where loaders on a cluster write what they count, for whoever draws progress. Light to import: Ray gives it
a process of its own."""

from __future__ import annotations

import time

from cluster.load.counters import Counters, total

_SILENT_S = 15.0  # a loader that has not told for so long is not counted as at work


class Board:
    """The actor on which loaders write what they count, for whoever draws progress."""

    def __init__(self) -> None:
        self._told: dict[str, tuple[float, Counters]] = {}
        self._stopped = False

    def tell(self, loader: str, counters: Counters) -> bool:
        """Note a loader's counts; whether it shall stop."""
        self._told[loader] = (time.monotonic(), counters)
        return self._stopped

    def stop(self) -> None:
        """Have every loader told to stop when it next tells."""
        self._stopped = True

    def read(self) -> Counters:
        """The sum of what loaders counted, those too that died since; `workers` are those at work."""
        now = time.monotonic()
        alive = [counters for at, counters in self._told.values() if now - at < _SILENT_S]
        summed = total(counters for _, counters in self._told.values())
        held_back = next((one.held_back for one in alive if one.held_back), "")
        return Counters(summed.stages, summed.faces, summed.rejected, held_back, len(alive))
