"""Batches in flight on a device, and what is counted meanwhile, for `benchmarks.gpu_ingest`."""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from workers.decode import DecodedPhoto
from workers.device import set_threads

_LOOK_S = 0.1
_MIB = 1 << 20


class Lane:
    """One batch at a time: a CUDA stream, and pinned memory that is used again for every batch."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        cuda = device.type == "cuda"
        self._stream = torch.cuda.Stream(device) if cuda else None  # type: ignore[no-untyped-call]
        self._copied = torch.cuda.Event() if cuda else None  # type: ignore[no-untyped-call]
        self._pinned = torch.empty(0, dtype=torch.uint8)

    def working(self) -> AbstractContextManager[object]:
        """What is launched in here goes to this lane's stream. For the calling thread."""
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)

    def finish(self) -> None:
        """Wait until the device has done what it was given."""
        if self._stream is not None:
            self._stream.synchronize()

    def upload(self, photos: Sequence[DecodedPhoto]) -> list[Tensor]:
        """(3, H, W) uint8 each on the device, in one copy that nobody waits for; views where they are."""
        if self._copied is None:
            return [torch.from_numpy(photo.pixels).permute(2, 0, 1) for photo in photos]
        size = sum(photo.pixels.size for photo in photos)
        self._copied.synchronize()  # of the batch before
        if self._pinned.numel() < size:
            self._pinned = torch.empty(size, dtype=torch.uint8, pin_memory=True)
        flat, start = self._pinned.numpy(), 0
        for photo in photos:
            flat[start : start + photo.pixels.size] = photo.pixels.reshape(-1)
            start += photo.pixels.size
        there = self._pinned[:size].to(self.device, non_blocking=True)
        self._copied.record()
        parts = torch.split(there, [photo.pixels.size for photo in photos])
        return [
            part.view(photo.pixels.shape).permute(2, 0, 1) for part, photo in zip(parts, photos, strict=True)
        ]


Step = Callable[[Lane, int], tuple[int, int]]
"""Takes the batch of that number through; returns its photos and faces. Waits until it is done."""


class Lanes:
    """So many threads, each with a lane; on a CPU they share out the cores. A context."""

    def __init__(self, device: torch.device, count: int, cores: int) -> None:
        self.device = device
        self._lanes = [Lane(device) for _ in range(count)]
        self._threads = [ThreadPoolExecutor(1, thread_name_prefix="lane") for _ in self._lanes]
        if device.type == "cpu":
            for thread in self._threads:
                thread.submit(set_threads, max(1, cores // count)).result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for thread in self._threads:
            thread.shutdown()

    def run(self, step: Step, seconds: float) -> tuple[int, int]:
        """Batches one after the other in every lane, each at least one; their photos and faces."""
        deadline = time.perf_counter() + seconds
        counts = [
            thread.submit(self._lane, lane, number, step, deadline)
            for number, (lane, thread) in enumerate(zip(self._lanes, self._threads, strict=True))
        ]
        found = [count.result() for count in counts]
        return sum(photos for photos, _ in found), sum(faces for _, faces in found)

    def _lane(self, lane: Lane, first: int, step: Step, deadline: float) -> tuple[int, int]:
        photos = faces = 0
        number = first
        with torch.inference_mode(), lane.working():
            while True:
                more, seen = step(lane, number)
                photos, faces, number = photos + more, faces + seen, number + len(self._lanes)
                if time.perf_counter() >= deadline:
                    return photos, faces


def measure(lanes: Lanes, step: Step, seconds: float) -> dict[str, Any]:
    """A warm-up, then so many seconds: rates, and what of processor, GPU and memory they took."""
    lanes.run(step, 0.0)
    cuda = lanes.device.type == "cuda"
    if cuda:
        torch.cuda.synchronize(lanes.device)
        torch.cuda.reset_peak_memory_stats(lanes.device)
    with Watch(lanes.device) as watch:
        processor, start = time.process_time(), time.perf_counter()
        photos, faces = lanes.run(step, seconds)
        passed = time.perf_counter() - start
        processor = time.process_time() - processor
    return {
        "photos_per_s": photos / passed,
        "faces_per_s": faces / passed,
        "ms_per_photo": 1e3 * passed / photos,
        "photos": photos,
        "seconds": passed,
        "process_cores": processor / passed,  # of this process; the decoders' are beside it
        "gpu_utilisation_percent": watch.utilisation(),
        "gpu_torch_peak_mib": torch.cuda.max_memory_allocated(lanes.device) / _MIB if cuda else None,
        "gpu_used_peak_mib": watch.used / _MIB if cuda else None,  # by nvJPEG and others too
        "process_peak_mib": watch.resident / _MIB,
    }


class Watch:
    """Looks at the device and at this process's memory ten times a second. A context."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._busy: list[int] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self.used = 0  # bytes of the device, at most
        self.resident = 0  # bytes of this process, at most

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()

    def utilisation(self) -> float | None:
        """Mean share of the time in which the GPU ran anything; None where that cannot be asked."""
        return float(np.mean(self._busy)) if self._busy else None

    def _run(self) -> None:
        asks = self._device.type == "cuda"
        while True:
            self.resident = max(self.resident, _resident())
            if self._device.type == "cuda":
                free, there = torch.cuda.mem_get_info(self._device)
                self.used = max(self.used, there - free)
            if asks:
                try:
                    self._busy.append(torch.cuda.utilization(self._device))
                except Exception:  # noqa: BLE001 - pynvml is not there, or says no in words of its own
                    asks = False
            if self._end.wait(_LOOK_S):
                return


def limit(rate: float, stages: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What the stages allow that a chain is made of: those that share a resource take turns."""
    seconds: dict[str, float] = {}
    names: dict[str, list[str]] = {}
    for name, stage in stages.items():
        seconds[stage["resource"]] = seconds.get(stage["resource"], 0.0) + 1 / stage["photos_per_s"]
        names.setdefault(stage["resource"], []).append(name)
    if not seconds:
        return {}
    busiest = max(seconds, key=lambda resource: seconds[resource])
    return {
        "limit_photos_per_s": 1 / seconds[busiest],
        "limit_by": " + ".join(names[busiest]),
        "share_of_limit": rate * seconds[busiest],
    }


def environment(device: torch.device, precision: str) -> dict[str, Any]:
    """The device and what drives it."""
    import torchvision

    found: dict[str, Any] = {
        "device": _processor(),
        "precision": precision,
        "cores": torch.get_num_threads(),
        "load_average": os.getloadavg()[0],  # a busy machine measures badly
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": str(torchvision.__version__),
        "cuda": torch.version.cuda,
        "checked_on_a_gpu": device.type == "cuda",
    }
    if device.type == "cuda":
        about = torch.cuda.get_device_properties(device)
        found |= {
            "device": f"{about.name}, {about.total_memory / 2**30:.0f} GiB, beside {_processor()}",
            "capability": f"{about.major}.{about.minor}",
            "multiprocessors": about.multi_processor_count,
        }
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine()
    )


def _resident() -> int:
    """Bytes of this process in memory; 0 where the kernel does not tell."""
    try:
        fields = dict(
            line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        )
        return int(fields["VmRSS"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return 0
