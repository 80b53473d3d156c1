"""How full and how busy the GPUs are that this process works on, for metrics."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import torch
from pynvml import NVMLError

from homeward.telemetry import Level, Reading, watch


@cache
def watch_gpus() -> None:
    """Have the process's metrics say it from now on."""
    watch(gpu_readings)


def gpu_readings() -> Iterator[Reading]:
    """Of all GPUs that are visible, together; nothing before this process has used one."""
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # torch's stub
        return
    for device in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(device)
        yield Reading(Level.GPU_MEMORY, total, "total")
        yield Reading(Level.GPU_MEMORY, total - free, "used")
        yield Reading(Level.GPU_MEMORY, torch.cuda.memory_allocated(device), "allocated")
        busy = _busy(device)
        if busy is not None:
            yield Reading(Level.GPU_BUSY, busy, str(device))


def _busy(device: int) -> float | None:
    """Share of the driver's last sample (up to a second) during which a kernel ran; None where the driver
    does not say, as of a part of a GPU."""
    try:
        return torch.cuda.utilization(device) / 100
    except (NVMLError, RuntimeError):
        return None
