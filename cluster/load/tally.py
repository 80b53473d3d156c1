"""What a loader counts while it works, read by whoever draws progress."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from cluster.load.counters import Counters, Stage, StageCount
from cluster.load.outcome_types import Became, PhotoOutcome


class Tally:
    """Counts of one loader. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stages = {stage: StageCount() for stage in Stage}
        self._faces = 0
        self._rejected: Counter[str] = Counter()
        self._held_back = ""

    def entered(self, stage: Stage, photos: int) -> None:
        """So many photos are in front of a stage, or in it."""
        with self._lock:
            count = self._stages[stage]
            self._stages[stage] = StageCount(count.photos, count.seconds, count.waiting + photos)

    def passed(self, stage: Stage, photos: int, seconds: float) -> None:
        """So many of them have passed it, in so many seconds of work."""
        with self._lock:
            count = self._stages[stage]
            self._stages[stage] = StageCount(
                count.photos + photos, count.seconds + seconds, count.waiting - photos
            )

    def left(self, stage: Stage, photos: int) -> None:
        """So many of them are given up: their part begins again, or ends."""
        with self._lock:
            count = self._stages[stage]
            self._stages[stage] = StageCount(count.photos, count.seconds, count.waiting - photos)

    def accounted(self, outcomes: Iterable[PhotoOutcome]) -> None:
        """These photos are accounted for."""
        with self._lock:
            for one in outcomes:
                self._faces += len(one.face_ids) if one.became is Became.ENROLLED else 0
                if one.became is Became.REJECTED:
                    self._rejected[one.code] += 1

    @contextmanager
    def holding_back(self, why: str) -> Iterator[None]:
        """The loader waits for something meanwhile."""
        with self._lock:
            self._held_back = why
        try:
            yield
        finally:
            with self._lock:
                self._held_back = ""

    def counters(self) -> Counters:
        """All counts at one moment."""
        with self._lock:
            return Counters(dict(self._stages), self._faces, dict(self._rejected), self._held_back)
