"""Where and how precisely torch computes: device, precision and threads, chosen once per process."""

from __future__ import annotations

import ctypes
import platform
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Literal

import torch

from homeward.cores import usable_cores
from homeward.errors import InvalidInput

Precision = Literal["auto", "float32", "bfloat16"]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_LARGEST_FROM_HEAP = 32 * 1024 * 1024  # bytes; the most glibc allows
_KEPT_BYTES = 128 * 1024 * 1024
_of_thread = threading.local()
_CPU_FLAGS_WITH_FAST_BFLOAT16 = frozenset({"amx_bf16", "avx512_bf16"})


def pick_device(name: str = "auto") -> torch.device:
    """The device called `name`: "auto" (the first GPU, else the CPU), "cpu", "cuda" or "cuda:N".

    Raises `InvalidInput` (DEVICE_UNKNOWN) when the name is no such device or it is not there.
    """
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InvalidInput(
            f"no device is called {name!r}; use auto, cpu, cuda or cuda:N", code="DEVICE_UNKNOWN"
        ) from error
    if device.type == "cpu":
        return torch.device("cpu")
    if device.type != "cuda":
        raise InvalidInput(f"Homeward runs on cpu and cuda, not on {name!r}", code="DEVICE_UNKNOWN")
    index = 0 if device.index is None else device.index
    if index >= torch.cuda.device_count():
        raise InvalidInput(
            f"{name} was asked for but {torch.cuda.device_count()} CUDA devices are visible; "
            "set workers.device to auto, or mend the driver",
            code="DEVICE_UNKNOWN",
        )
    return torch.device("cuda", index)


def pick_precision(device: torch.device, precision: str = "auto") -> torch.dtype:
    """The dtype the embedding net computes in: "auto" is bfloat16 where the hardware has it."""
    if precision == "float32":
        return torch.float32
    if precision == "bfloat16":
        return torch.bfloat16
    if precision != "auto":
        raise InvalidInput(
            f"precision is auto, float32 or bfloat16, not {precision!r}", code="PRECISION_UNKNOWN"
        )
    fast = torch.cuda.is_bf16_supported() if device.type == "cuda" else _cpu_has_fast_bfloat16()
    return torch.bfloat16 if fast else torch.float32


def set_threads(threads: int) -> int:
    """Let torch use `threads` cores for one operation (0: all it may use); returns how many it uses.

    Also tells the C library to keep freed memory for the next batch (up to `_KEPT_BYTES` a heap): by
    default it hands every large block back, and the kernel clears its pages anew for each batch.
    """
    _keep_freed_memory()
    torch.set_num_threads(threads or min(torch.get_num_threads(), usable_cores()))
    return torch.get_num_threads()


def own_stream(device: str) -> AbstractContextManager[object]:
    """Work of this thread on a GPU goes into a stream of the thread's own, beside that of others, and is done
    when the context ends. On a CPU nothing."""
    if device == "cpu":
        return nullcontext()
    return _own_stream(device)


@contextmanager
def _own_stream(device: str) -> Iterator[None]:
    streams: dict[str, torch.cuda.Stream] | None = getattr(_of_thread, "streams", None)
    if streams is None:
        streams = _of_thread.streams = {}
    if device not in streams:
        streams[device] = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch's stub
    with torch.cuda.stream(streams[device]):
        yield
        streams[device].synchronize()


@cache
def _keep_freed_memory() -> None:
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(_M_MMAP_THRESHOLD, _LARGEST_FROM_HEAP)
    mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


@cache
def _cpu_has_fast_bfloat16() -> bool:
    """AMX or AVX512_BF16, by the kernel's list; elsewhere bfloat16 is emulated and slower."""
    if platform.system() != "Linux":
        return False
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    flags = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return bool(_CPU_FLAGS_WITH_FAST_BFLOAT16 & set(flags.split()))
