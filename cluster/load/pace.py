"""How fast a load goes, for how long it still will, and the words in which its displays say so."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cluster.load.counters import Progress, Stage, StageCount

Monotonic = Callable[[], float]  # seconds that never run backwards

WINDOW_S = 30.0
REASONS = 6  # reason codes named at most
_SHORTEST_S = 1.0  # before that a rate says nothing
_CLOSEST_S = 0.2  # samples are not kept closer than this
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


class RateWindow:
    """Photos and faces per second over the last `seconds`, not since the start. For one thread."""

    def __init__(self, monotonic: Monotonic = time.monotonic, seconds: float = WINDOW_S) -> None:
        self._monotonic = monotonic
        self._seconds = seconds
        self._samples: deque[tuple[float, int, int]] = deque()  # when, photos, faces

    def add(self, photos: int, faces: int) -> None:
        """So many there are by now. Fewer than before (a worker's counts are gone) begins anew."""
        now = self._monotonic()
        if self._samples and (photos < self._samples[-1][1] or faces < self._samples[-1][2]):
            self._samples.clear()
        if len(self._samples) > 1 and now - self._samples[-2][0] < _CLOSEST_S:
            self._samples.pop()
        self._samples.append((now, photos, faces))
        while len(self._samples) > 2 and now - self._samples[1][0] >= self._seconds:
            self._samples.popleft()

    @property
    def photos_per_s(self) -> float | None:
        """None until there is a rate; 0 when nothing came in all of the window."""
        return self._rate(1)

    @property
    def faces_per_s(self) -> float | None:
        """None until there is a rate."""
        return self._rate(2)

    def seconds_left(self, photos: int) -> float | None:
        """How long so many more take at this rate; None while there is none, or it is 0."""
        rate = self.photos_per_s
        return photos / rate if rate else None

    def _rate(self, column: int) -> float | None:
        if len(self._samples) < 2:
            return None
        first, last = self._samples[0], self._samples[-1]
        passed = last[0] - first[0]
        return (last[column] - first[column]) / passed if passed >= _SHORTEST_S else None


@dataclass(frozen=True, slots=True)
class Seen:
    """One `Progress` and what the ones before it add to it."""

    progress: Progress
    photos_per_s: float | None
    faces_per_s: float | None
    seconds_left: float | None  # 0 when all is accounted for
    held_since: float | None  # by the monotonic clock; None: nothing is waited for

    def held_s(self, now: float) -> float:
        """For how long something has been waited for without a break; 0 when nothing is."""
        return 0.0 if self.held_since is None else max(0.0, now - self.held_since)


class Pace:
    """Looks at one `Progress` after the other."""

    def __init__(self, monotonic: Monotonic = time.monotonic) -> None:
        self._monotonic = monotonic
        self._rates = RateWindow(monotonic)
        self._held_since: float | None = None

    def see(self, progress: Progress) -> Seen:
        """Take the next one in."""
        # Parts commit in steps. What has been written moves evenly, but a dead worker's counts are gone.
        written = progress.counters.stages.get(Stage.WRITE)
        here = max(progress.photos_done - progress.done_before, 0 if written is None else written.photos)
        self._rates.add(here, progress.counters.faces)
        if not progress.counters.held_back:
            self._held_since = None
        elif self._held_since is None:
            self._held_since = self._monotonic()
        rest = progress.photos - progress.done_before - here
        left = self._rates.seconds_left(rest) if rest > 0 else None
        return Seen(
            progress,
            self._rates.photos_per_s,
            self._rates.faces_per_s,
            0.0 if progress.photos_done >= progress.photos else left,
            self._held_since,
        )


def duration(seconds: float) -> str:
    """'58 s', '9 min 58 s', '3 h 12 min', '2 d 3 h'; a second part that is 0 is left out."""
    whole = max(0, round(seconds))
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return _two(whole // _MINUTE, "min", whole % _MINUTE, "s")
    if whole < _DAY:
        return _two(whole // _HOUR, "h", whole % _HOUR // _MINUTE, "min")
    return _two(whole // _DAY, "d", whole % _DAY // _HOUR, "h")


def _two(large: int, unit: str, small: int, small_unit: str) -> str:
    return f"{large:,} {unit} {small} {small_unit}" if small else f"{large:,} {unit}"


def per_second(rate: float) -> str:
    """'143/s'; slow ones with a decimal: '0.4/s'."""
    return f"{rate:,.1f}/s" if 0 < rate < 10 else f"{rate:,.0f}/s"


def mean_ms(count: StageCount) -> float | None:
    """Milliseconds of a photo in the stage; None before the first has passed."""
    return 1000 * count.seconds / count.photos if count.photos > 0 else None


def how_far(seen: Seen, share: str = "") -> str:
    """'12,400 of 98,000 photos (12 %), 143/s, 9 min 58 s left'; the share as it is given."""
    progress = seen.progress
    text = f"{progress.photos_done:,} of {progress.photos:,} photos{share}"
    if seen.photos_per_s is not None:
        text += f", {per_second(seen.photos_per_s)}"
    return text + (f", {duration(seen.seconds_left)} left" if seen.seconds_left else "")


def plural(count: int) -> str:
    """What a noun ends with."""
    return "" if count == 1 else "s"


def found(seen: Seen, *, rate: bool = False) -> str:
    """'11,911 faces, 212 rejected (NO_FACE 190, PHOTO_CORRUPT 22)'"""
    counters = seen.progress.counters
    rejected = sum(counters.rejected.values())
    text = f"{counters.faces:,} face{plural(counters.faces)}"
    if rate and seen.faces_per_s is not None:
        text += f" ({per_second(seen.faces_per_s)})"
    text += f", {rejected:,} rejected"
    return text + (f" ({reasons(counters.rejected)})" if rejected else "")


def percent(progress: Progress) -> str:
    """'12 %', never 100 before all is accounted for; empty for a load of nothing."""
    return f"{100 * progress.photos_done // progress.photos} %" if progress.photos > 0 else ""


def reasons(rejected: Mapping[str, int]) -> str:
    """'NO_FACE 190, PHOTO_CORRUPT 22 and 3 more': the largest first, at most `REASONS` of them."""
    ranked = sorted((code for code in rejected if rejected[code]), key=lambda code: (-rejected[code], code))
    text = ", ".join(f"{plain(code)} {rejected[code]:,}" for code in ranked[:REASONS])
    return f"{text} and {len(ranked) - REASONS:,} more" if len(ranked) > REASONS else text


def plain(text: str) -> str:
    """Without control characters or any other that is not to be seen: those are spelt out."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)
