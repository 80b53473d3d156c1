"""Measuring on a device: what its memory gives, how long a call takes, how answers differ from the truth."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.gpu_rows import K
from benchmarks.gpu_scan import Answer, Contestant
from homeward.types import Float32

_WARM_UPS = 2
_REPEATS = (3, 40)  # at least, at most
_COPIED = {"cuda": 1 << 32, "cpu": 1 << 26}  # bytes, at most a quarter of what is free


def environment(device: torch.device) -> dict[str, Any]:
    """The device and the software that drives it."""
    found: dict[str, Any] = {
        "device": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "numpy": np.__version__,
    }
    if device.type == "cuda":
        about = torch.cuda.get_device_properties(device)
        found |= {
            "device": about.name,
            "capability": f"{about.major}.{about.minor}",
            "multiprocessors": about.multi_processor_count,
            "memory_gib": round(about.total_memory / 2**30, 1),
        }
    return found


def bandwidth(device: torch.device) -> dict[str, float]:
    """GB/s of the device's memory: a copy, bytes read and bytes written both counted, and a sum."""
    size = _COPIED[device.type]
    if device.type == "cuda":
        size = min(size, torch.cuda.mem_get_info(device)[0] // 4)
    one = torch.rand(size // 4, dtype=torch.float32, device=device)
    other = torch.empty_like(one)
    other.copy_(one)
    one.sum()
    copied = _seconds(lambda: other.copy_(one), device, 20)
    summed = _seconds(one.sum, device, 20)
    return {
        "copy_gb_per_s": 2 * size / statistics.median(copied) / 1e9,
        "read_gb_per_s": size / statistics.median(summed) / 1e9,
    }


def measure(
    contestant: Contestant, probes: Float32, device: torch.device, budget_s: float, read_gb_per_s: float
) -> tuple[dict[str, Any], Answer]:
    """Latency of a batch of probes, from the probes on the host to the best rows on the device."""
    start = time.perf_counter()
    for _ in range(_WARM_UPS):
        found = contestant.answer(probes)
        _wait(device)
        if time.perf_counter() - start > budget_s:
            break
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
    whole = _seconds(lambda: contestant.answer(probes), device, _REPEATS[1], budget_s)
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    figures: dict[str, Any] = {
        "p50_ms": statistics.median(whole) * 1e3,
        "worst_ms": max(whole) * 1e3,
        "repeats": len(whole),
        "probes_per_s": len(probes) / statistics.median(whole),
        "rows_rescored_per_probe": found.rescored / len(probes),
        "scratch_bytes": peak - before if device.type == "cuda" else None,
    }
    passed = statistics.median(whole)
    if contestant.scan(probes) is not None:
        passed = statistics.median(_seconds(lambda: contestant.scan(probes), device, _REPEATS[1], budget_s))
        figures["scan_p50_ms"] = passed * 1e3
    figures["gb_per_s"] = contestant.pass_bytes() / passed / 1e9
    figures["share_of_read_bandwidth"] = figures["gb_per_s"] / read_gb_per_s
    return figures, found


def difference(found: Answer, rows: Tensor, scores: Tensor) -> dict[str, Any]:
    """How the first answers differ from the truth (s, K): rows, float64 scores."""
    count = len(rows)
    mine = found.rows[:count].cpu()
    wanted = rows.cpu()
    there = [len(set(a) & set(b)) for a, b in zip(mine.tolist(), wanted.tolist(), strict=True)]
    return {
        "probes": count,
        "lists_that_differ": int((mine != wanted).any(dim=1).sum()),
        "recall_at_k": sum(there) / (count * K),
        "largest_score_difference": float((found.scores[:count].cpu() - scores.cpu()).abs().max()),
    }


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _seconds(
    work: Callable[[], object], device: torch.device, most: int, budget_s: float = float("inf")
) -> list[float]:
    found: list[float] = []
    while len(found) < most and (len(found) < _REPEATS[0] or sum(found) < budget_s):
        _wait(device)
        start = time.perf_counter()
        work()
        _wait(device)
        found.append(time.perf_counter() - start)
    return found
