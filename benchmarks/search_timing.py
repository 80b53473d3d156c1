"""Timing that a noisy machine spoils least, and what the machine itself can do."""

from __future__ import annotations

import ctypes
import gc
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

METHOD = (
    "All sides take turns in rounds, in changing order, with the same probes and the same number of threads; "
    "a side's latency is the median over the rounds of the round's median call, after one call that does not "
    "count, and a speed-up is the quotient of two such latencies."
)
_PAUSE_S = 0.02  # OpenMP's threads spin for a moment after a parallel loop
_BANDWIDTH_BYTES = 1 << 29  # several times any cache
_STARTED = time.monotonic()

Side = Callable[[int], object]  # called with the number of the probe, or of the batch


@dataclass(frozen=True, slots=True)
class Times:
    """What one side took."""

    ms: float  # median of the rounds' medians
    least_ms: float
    rounds: int
    calls: int  # of one round


def alternate(
    sides: Mapping[str, Side], *, calls: int = 1, least: int = 3, most: int = 30, budget_s: float = 10.0
) -> dict[str, Times]:
    """Let the sides take turns: `least` rounds of `calls` calls each, then more, up to `most`, while less
    than `budget_s` is spent."""
    for side in sides.values():
        side(0)
    spent: dict[str, list[list[float]]] = {name: [] for name in sides}
    begun = time.monotonic()
    for turn in range(most):
        if turn >= least and time.monotonic() > begun + budget_s:
            break
        order = list(sides) if turn % 2 == 0 else list(sides)[::-1]
        for name in order:
            time.sleep(_PAUSE_S)
            spent[name].append([_seconds(sides[name], turn * calls + call) for call in range(calls)])
    return {
        name: Times(
            ms=1e3 * median(median(each) for each in rounds),
            least_ms=1e3 * min(min(each) for each in rounds),
            rounds=len(rounds),
            calls=calls,
        )
        for name, rounds in spent.items()
    }


def read_bandwidth(threads: int, rounds: int = 8) -> float:
    """Bytes a second that so many threads read at most, summing one large int64 array: the best round."""
    words = np.ones(_BANDWIDTH_BYTES // 8, np.int64)
    parts = np.array_split(words, threads)
    best = float("inf")
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(rounds):
            best = min(best, _seconds(lambda _: list(pool.map(np.sum, parts)), 0))
    return words.nbytes / best


def anonymous_bytes() -> int:
    """Memory of this process that no file stands behind, once everything free is given back."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    status = Path("/proc/self/status").read_text(encoding="ascii")
    line = next(each for each in status.splitlines() if each.startswith("RssAnon:"))
    return int(line.split()[1]) * 1024


def say(text: str) -> None:
    """A line of progress."""
    print(f"search: {time.monotonic() - _STARTED:5.0f} s  {text}", file=sys.stderr, flush=True)


def _seconds(side: Side, number: int) -> float:
    started = time.perf_counter()
    side(number)
    return time.perf_counter() - started
