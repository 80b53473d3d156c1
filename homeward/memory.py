"""The process's memory: what is given back to the system, and what the collector need not look at."""

from __future__ import annotations

import contextlib
import ctypes
import gc
from collections.abc import Iterator


def give_back() -> None:
    """Return freed heap to the operating system: after bulk work whose passing arrays were large."""
    with contextlib.suppress(OSError, AttributeError):  # another C library has no such call
        ctypes.CDLL(None).malloc_trim(0)


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """No collections until the exit: while modules are imported and models loaded nearly all that is made
    stays, and need not be looked through again and again. For the whole process."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextlib.contextmanager
def settled() -> Iterator[None]:
    """What is here on entry is taken to stay until the exit: collections pass it over.

    It holds for the whole process, so it is for whoever owns the process, once it is ready to serve.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
