"""Compiling the loops that numpy has no words for, with a cache that cannot go stale.

numba keys its cache by the age and size of one source file, which a wheel's fixed dates defeat and which a
change in an imported kernel escapes. Here a folder of its own is named for the sources' digest: a changed
kernel is compiled anew, always.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from platformdirs import user_cache_path

Function = TypeVar("Function", bound=Callable[..., Any])

_config: Any = numba.config
_SOURCES = (
    "block_table.py",
    "compiled.py",
    "cut_loops.py",
    "encode.py",
    "filter_loops.py",
    "kernel.py",
    "list_loops.py",
    "probe_codes.py",
    "row_loops.py",
    "run_table.py",
    "scan_loops.py",
)


def compiled(function: Function) -> Function:
    """The function as machine code that runs without the interpreter's lock, each operation as written."""
    return _build(function, set())


def compiled_loosely(function: Function) -> Function:
    """As `compiled`, with sums added up in any order: for bounds that leave room for that."""
    return _build(function, {"reassoc", "nsz", "contract"})


def _build(function: Function, freedoms: set[str]) -> Function:
    build = numba.njit(nogil=True, error_model="numpy", fastmath=freedoms)(function)
    before = _config.CACHE_DIR
    _config.CACHE_DIR = str(_folder())
    try:
        build.enable_caching()
    except (RuntimeError, OSError):  # nowhere to write: it is compiled in every process
        pass
    finally:
        _config.CACHE_DIR = before
    return cast(Function, build)


@cache
def _folder() -> Path:
    digest = hashlib.sha256(numba.__version__.encode())
    here = Path(__file__).parent
    for name in _SOURCES:
        digest.update((here / name).read_bytes())
    return user_cache_path("homeward") / f"kernels-{digest.hexdigest()[:16]}"
