"""The scan on a GPU beside plain torch: certified int8 and float16 scans, and a float16 product with topk.

    .venv/bin/python -m benchmarks.gpu --json FILE                            on a machine with a GPU
    .venv/bin/python -m benchmarks.gpu --json FILE --device cpu --rows 20000  to see that it runs

10, 50 and 100 M rows of 128 components and 10 M of 512, as many as the device holds, drawn from the mean and
covariance of real templates; every row is a record of its own, no filter, k = 10. A certified scan's time is
from the probes on the host to ranked true scores; originals lie where there is room (the file says where).
Needs torch and numpy, and Triton for the kernels; neither Ray nor Milvus. Meant to end within eight minutes
on an H100: what is not begun after --minutes is left out. Written without a GPU; it has not run on one.

Ends with 2 without a GPU, unless the CPU is asked for by name.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_measure import bandwidth, difference, environment, measure
from benchmarks.gpu_rows import Gallery, K, bytes_of, draw_gallery
from benchmarks.gpu_scan import contestants

NO_GPU = 2
_SIZES = {128: (10_000_000, 50_000_000, 100_000_000), 512: (10_000_000,)}
_BATCHES = {"cuda": (1, 8, 64, 256, 1024), "cpu": (1, 8)}
_MEMORY = {"cuda": 256 << 20, "cpu": 64 << 20}  # bytes of a scan's matrices
_SAMPLE = 8  # probes compared with the reference
_COMPARED_AT = (8, 64)  # batches whose answers are compared
_BUDGET_S = 0.8  # of each of a cell's two timings


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write the file after every cell, print a line for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, required=True, help="where the figures are written")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N, or cpu together with --rows")
    parser.add_argument("--rows", type=int, help="so many rows of 128 components instead of all sizes")
    parser.add_argument("--minutes", type=float, default=7.0, help="what is not begun by then is left out")
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    missing = _missing(device, options.rows)
    if missing:
        print(f"gpu: {missing}", file=sys.stderr)
        return NO_GPU
    run = _Run(device, options.json, time.monotonic() + 60 * options.minutes)
    sizes = {128: (max(64, options.rows // 64 * 64),)} if options.rows else _SIZES
    for dimension, rows in sizes.items():
        run.gallery(dimension, rows)
    return 0


class _Run:
    """One run's figures; what is known is in the file at any moment."""

    def __init__(self, device: torch.device, path: Path, deadline: float) -> None:
        self._device = device
        self._path = path
        self._deadline = deadline
        self._kernels, why = _kernels_work(device)
        self._figures: dict[str, Any] = {
            "machine": environment(device),
            "k": K,
            "kernels": why,
            "sizes": {},
            "left_out": [],
        }
        self._write()

    def gallery(self, dimension: int, sizes: tuple[int, ...]) -> None:
        """All sizes of one dimension: prefixes of one gallery."""
        fitting = tuple(rows for rows in sizes if self._fits(rows, dimension))
        if not fitting or time.monotonic() > self._deadline:
            return
        start = time.monotonic()
        probes = max(_BATCHES[self._device.type])
        gallery = draw_gallery(fitting, dimension, probes, _SAMPLE, self._device)
        drawn = time.monotonic() - start
        for rows in fitting:
            name = f"{_count(rows)} x {dimension}"
            figures = self._figures["sizes"].setdefault(name, {"originals": gallery.kept, "drawn_s": drawn})
            self._size(name, gallery.prefix(rows), figures)
        del gallery
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _size(self, name: str, gallery: Gallery, figures: dict[str, Any]) -> None:
        rows = len(gallery.originals)
        figures["bandwidth"] = bandwidth(self._device)
        figures["differences"] = {}
        makers = contestants(gallery, kernels=self._kernels, memory=_MEMORY[self._device.type])
        for contestant, make in makers.items():
            coded = gallery.int8 if contestant.startswith("int8") else gallery.float16
            figures[contestant] = {"memory_bytes": coded.memory_bytes(), "batches": {}}
            for batch in _BATCHES[self._device.type]:
                if time.monotonic() > self._deadline:
                    self._figures["left_out"].append(f"{name}, {contestant}, batch of {batch}: out of time")
                    continue
                cell, answer = measure(
                    make(),
                    gallery.probes[:batch],
                    self._device,
                    _BUDGET_S,
                    figures["bandwidth"]["read_gb_per_s"],
                )
                figures[contestant]["batches"][str(batch)] = cell
                if batch in _COMPARED_AT:
                    found = difference(answer, *gallery.truth[rows])
                    figures["differences"].setdefault(contestant, {})[str(batch)] = found
                print(
                    f"gpu: {name}, {contestant}, {batch} probes: {cell['p50_ms']:.2f} ms, "
                    f"{cell['probes_per_s']:,.0f} probes/s, {cell['share_of_read_bandwidth']:.0%} of the "
                    f"bandwidth, {cell['rows_rescored_per_probe']:.0f} rows rescored per probe"
                )
                self._write()

    def _fits(self, rows: int, dimension: int) -> bool:
        if self._device.type != "cuda":
            return True
        need, there = bytes_of(rows, dimension), torch.cuda.mem_get_info(self._device)[0]
        if need > there:
            self._figures["left_out"].append(
                f"{_count(rows)} x {dimension}: needs {need:,} bytes of the device, {there:,} are free"
            )
            self._write()
        return need <= there

    def _write(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(json.dumps(self._figures, indent=2) + "\n", encoding="utf-8")


def _missing(device: torch.device, rows: int | None) -> str:
    """What is not there to measure with; empty if nothing is missing."""
    if device.type == "cuda" and not torch.cuda.is_available():
        return (
            f"torch {torch.__version__} sees no CUDA device, and these figures are a GPU's. Run this on a "
            "machine with an NVIDIA GPU and its driver, or add --device cpu --rows N to see that it runs"
        )
    if device.type == "cpu" and not rows:
        return "on a CPU this only shows that it runs: say how many rows with --rows N"
    if device.type not in {"cpu", "cuda"}:
        return f"it measures on cuda, and not on {device}"
    return ""


def _kernels_work(device: torch.device) -> tuple[bool, str]:
    """Whether the Triton kernels give on this device what plain torch gives; tried in a process of its own,
    because a kernel that fails takes its process' device along."""
    if device.type != "cuda":
        return False, "not tried: they need a GPU"
    asked = [sys.executable, "-m", "benchmarks.gpu_rescore", str(device)]
    tried = subprocess.run(asked, capture_output=True, text=True, timeout=240, check=False)
    if tried.returncode:
        return False, f"not used, they fail: {tried.stderr.strip()[-2000:]}"
    return True, "they give what plain torch gives"


def _count(rows: int) -> str:
    return f"{rows // 1_000_000}M" if rows % 1_000_000 == 0 else str(rows)


if __name__ == "__main__":
    sys.exit(main())
