"""The process's memory, where the C library would keep what is no longer used."""

from __future__ import annotations

import contextlib
import ctypes


def give_back() -> None:
    """Return freed heap to the operating system: after bulk work whose passing arrays were large."""
    with contextlib.suppress(OSError, AttributeError):  # another C library has no such call
        ctypes.CDLL(None).malloc_trim(0)
