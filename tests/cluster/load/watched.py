"""A load to be watched: a clock that the test moves, and how far the load is."""

from __future__ import annotations

from collections.abc import Mapping

from cluster.load.counters import Counters, Progress, Stage, StageCount


class Clock:
    """Seconds that only the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def progress(
    done: int = 12_400,
    photos: int = 98_000,
    *,
    name: str = "march",
    before: int = 0,
    held: str = "",
    rejected: Mapping[str, int] | None = None,
    faces: int = 11_911,
    written: int | None = None,
) -> Progress:
    passed = done - before if written is None else written
    stages = {
        Stage.READ: StageCount(passed + 400, 0.0012 * (passed + 400), 0),
        Stage.EMBED: StageCount(passed + 100, 0.04 * (passed + 100), 1280),
        Stage.WRITE: StageCount(passed, 0.006 * passed, 96),
    }
    codes = {"PHOTO_CORRUPT": 22, "NO_FACE": 190} if rejected is None else rejected
    return Progress(
        name, photos, done, 98, 12, 300.0, before, Counters(stages, faces, codes, held, workers=4)
    )
