"""How far a load is, and what each stage of it does: what progress is drawn from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Stage(StrEnum):
    """The stages of one part, in order."""

    READ = "read"
    DECODE = "decode"
    EMBED = "embed"
    WRITE = "write"  # photo store, gallery, catalogue and outcome file


@dataclass(frozen=True, slots=True)
class StageCount:
    """One stage since the load's driver began."""

    photos: int = 0  # that have passed it
    seconds: float = 0.0  # spent in it, over all workers; several may be in it at a time
    waiting: int = 0  # photos in front of it now


@dataclass(frozen=True, slots=True)
class Counters:
    """One worker's counts, or the sum of several workers'."""

    stages: Mapping[Stage, StageCount] = field(default_factory=dict)
    faces: int = 0  # face rows written
    rejected: Mapping[str, int] = field(default_factory=dict)  # photos by reason code
    held_back: str = ""  # what is being waited for (a store that does not answer), for a person
    workers: int = 1


@dataclass(frozen=True, slots=True)
class Progress:
    """A load as a person watches it."""

    name: str
    photos: int  # to be accounted for in all
    photos_done: int  # accounted for by committed parts, those of earlier runs too
    parts: int
    parts_done: int
    running_s: float  # since this driver began
    done_before: int  # photos that earlier runs of the load had accounted for
    counters: Counters = field(default_factory=Counters)
    rejected: int = 0  # photos, of all committed parts


def total(counters: Iterable[Counters]) -> Counters:
    """The sum over workers. Of what they wait for, the first that says something."""
    stages: dict[Stage, StageCount] = {}
    rejected: dict[str, int] = {}
    faces = workers = 0
    held_back = ""
    for one in counters:
        for stage, count in one.stages.items():
            before = stages.get(stage, StageCount())
            stages[stage] = StageCount(
                before.photos + count.photos,
                before.seconds + count.seconds,
                before.waiting + count.waiting,
            )
        for code, photos in one.rejected.items():
            rejected[code] = rejected.get(code, 0) + photos
        faces += one.faces
        workers += one.workers
        held_back = held_back or one.held_back
    return Counters(stages, faces, rejected, held_back, workers)
