"""How far the load is that this process drives, for metrics. Its name, an operator's word, is not told."""

from __future__ import annotations

from collections.abc import Iterator

from cluster.load.counters import Progress
from homeward.telemetry import Level, Reading


class LoadReadings:
    """What was shown last; read from any thread."""

    def __init__(self) -> None:
        self._last: Progress | None = None

    def see(self, progress: Progress) -> None:
        """So far the load is now."""
        self._last = progress

    def __call__(self) -> Iterator[Reading]:
        """Nothing before the load's first part is handed out."""
        last = self._last
        if last is None:
            return
        yield Reading(Level.LOAD_PHOTOS, last.photos, "planned")
        yield Reading(Level.LOAD_PHOTOS, last.photos_done, "done")
        yield Reading(Level.LOAD_PHOTOS, last.rejected, "rejected")
        yield Reading(Level.LOAD_PARTS, last.parts, "planned")
        yield Reading(Level.LOAD_PARTS, last.parts_done, "done")
        counters = last.counters
        yield Reading(Level.LOAD_LOADERS, counters.workers)
        yield Reading(Level.LOAD_HELD_BACK, float(bool(counters.held_back)))
        yield Reading(Level.LOAD_FACES, counters.faces)
        for stage, count in counters.stages.items():
            yield Reading(Level.LOAD_STAGE_PHOTOS, count.photos, stage.value)
            yield Reading(Level.LOAD_STAGE_SECONDS, count.seconds, stage.value)
            yield Reading(Level.LOAD_WAITING, count.waiting, stage.value)
        for reason, photos in counters.rejected.items():
            yield Reading(Level.LOAD_REJECTED, photos, reason)
