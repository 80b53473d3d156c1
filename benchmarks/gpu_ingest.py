"""Photos per second from JPEGs to templates on one device, stage by stage, beside what limits each chain.

    python -m benchmarks.gpu_ingest --json FILE                  on the GPU if there is one, else on the CPU
    python -m benchmarks.gpu_ingest --json FILE --device cpu     to see that it runs

For each size of photo the stages alone: decode in the sandbox's processes (one, then all), decode on the
device by torchvision (nvJPEG on a GPU), the copy to the device, detect on photos that lie there, align, and
embed on crops that lie there. Then the chains decode + detect and decode + detect + align + embed, from
either decoder, and what the product runs today: the sandbox and `Pipeline.embed_each`. Several batches are
in flight, each in a thread and on a CUDA stream of its own, with pinned memory for the copies; precision
and memory layout are the product's. A chain's limit adds up the stages that share a resource and takes the
busiest; above 1 of it means that batches hid each other's waiting better in the chain than alone, or that
the machine was busy with other things.

Photos are real ones where ../shared/photos is there, else scikit-image's astronaut, cut and resized, with a
little noise, so that enlarged ones have about the bytes of a camera's. Processes shrink photos as the
product does (to twice `workers.working_px`); nvJPEG has no such way, so its detector gets them whole.
Nothing is stored or searched. Needs torch, torchvision and what `workers` itself imports (numpy, Pillow,
pydantic-settings, joblib, lz4 and the two wheels of weights): no Ray, Milvus or SQL. Written without a GPU:
the CUDA path has only been checked on a CPU, where streams, pinned memory and nvJPEG do not exist.

Ends with 2 where the device or the weights are missing.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu_ingest_measure import Lanes, environment, limit, measure
from benchmarks.gpu_ingest_photos import draw_photos
from benchmarks.gpu_ingest_work import Cell, Stages
from homeward.config import Settings, WorkerSettings
from homeward.errors import Corrupt, InvalidInput, NotFound
from workers.device import pick_device, set_threads
from workers.open import open_decoder, open_model
from workers.sandbox import DecodePool

MISSING = 2
_SIZES = "640x480,1024x768,4000x3000"
_BATCH = {"cuda": 16, "cpu": 4}
_IN_FLIGHT = {"cuda": 3, "cpu": 2}
_DISTINCT = 2  # batches of different photos
_CHAINS = {  # what each is made of, as the stages are called
    "decode + detect": ("decode in all processes", "copy", "detect"),
    "decode on the device + detect": ("decode on the device", "detect"),
    "whole": ("decode in all processes", "copy", "detect", "align", "embed"),
    "whole, decode on the device": ("decode on the device", "detect", "align", "embed"),
    "whole, as the product": ("decode in all processes", "copy", "detect", "align", "embed"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write the file after every cell, print a line for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, required=True, help="where the figures are written")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--precision", default="auto", help="of the embedder: auto, float32 or bfloat16")
    parser.add_argument("--sizes", default=_SIZES, help="of the photos: WIDTHxHEIGHT,...")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each cell, after a warm-up")
    parser.add_argument("--batch", type=int, help="photos of a batch; 16 on a GPU, 4 on a CPU")
    parser.add_argument("--in-flight", type=int, help="batches at a time; 3 on a GPU, 2 on a CPU")
    parser.add_argument("--processes", type=int, default=0, help="that decode; 0: one per core")
    parser.add_argument("--minutes", type=float, default=7.0, help="what is not begun by then is left out")
    options = parser.parse_args(arguments)
    try:
        sizes = [_size(text) for text in options.sizes.split(",")]
        device = pick_device(options.device)
        workers = WorkerSettings(
            device=str(device), precision=options.precision, decode_processes=options.processes
        )
        stages = Stages(open_model(Settings(workers=workers)), workers)
    except (InvalidInput, NotFound, Corrupt) as error:
        print(f"gpu_ingest: {error.message}", file=sys.stderr)
        return MISSING
    cores = set_threads(0)
    count = options.in_flight or _IN_FLIGHT[device.type]
    run = _Run(options.json, options.seconds, time.monotonic() + 60 * options.minutes)
    run.note("machine", environment(device, stages.precision))
    run.note("batch", options.batch or _BATCH[device.type])
    run.note("in_flight", count)
    run.note("seconds", options.seconds)
    one = workers.model_copy(update={"decode_processes": 1})
    with open_decoder(one) as single, open_decoder(workers) as pool, Lanes(device, count, cores) as lanes:
        for width, height in sizes:
            try:
                run.size(width, height, stages, single, pool, lanes)
            except NotFound as error:  # nothing to make photos from
                print(f"gpu_ingest: {error.message}", file=sys.stderr)
                return MISSING
    set_threads(cores)
    return 0


def _size(text: str) -> tuple[int, int]:
    width, x, height = text.strip().partition("x")
    if not (x and width.isdecimal() and height.isdecimal() and min(int(width), int(height)) >= 64):
        raise InvalidInput(f"a size is WIDTHxHEIGHT, 64 pixels or more each, not {text!r}")
    return int(width), int(height)


class _Run:
    """One run's figures; what is known is in the file at any moment."""

    def __init__(self, path: Path, seconds: float, deadline: float) -> None:
        self._path = path
        self._seconds = seconds
        self._deadline = deadline
        self._figures: dict[str, Any] = {"sizes": {}, "left_out": []}

    def note(self, name: str, value: object) -> None:
        """Something that holds for the whole run."""
        self._figures[name] = value
        self._write()

    def size(
        self, width: int, height: int, stages: Stages, single: DecodePool, pool: DecodePool, lanes: Lanes
    ) -> None:
        """All cells of one size of photo."""
        name = f"{width}x{height}"
        if time.monotonic() > self._deadline:
            self._leave_out(name, "out of time")
            return
        photos = draw_photos(width, height, _DISTINCT * int(self._figures["batch"]))
        per_batch = int(self._figures["batch"])
        starts = range(0, len(photos.jpegs), per_batch)
        try:
            batches = [stages.batch(photos.jpegs[at : at + per_batch], pool) for at in starts]
        except (RuntimeError, MemoryError) as error:
            self._leave_out(name, f"{type(error).__name__}: {error}")
            return
        figures: dict[str, Any] = {
            "photos": photos.source,
            "bytes_per_photo": sum(map(len, photos.jpegs)) / len(photos.jpegs),
            "faces_per_photo": sum(batch.faces for batch in batches) / len(photos.jpegs),
            "cells": {},
        }
        self._figures["sizes"][name] = figures
        for cell, what in stages.cells(batches, single, pool).items():
            self._cell(f"{name}, {cell}", cell, lanes, what, figures["cells"])

    def _cell(
        self, title: str, cell: str, lanes: Lanes, what: Cell, cells: dict[str, dict[str, Any]]
    ) -> None:
        if time.monotonic() > self._deadline:
            self._leave_out(title, "out of time")
            return
        try:
            found = {"resource": what.resource} | measure(lanes, what.step, self._seconds)
        except (RuntimeError, MemoryError) as error:  # no nvJPEG in this torchvision, no memory for a batch
            self._leave_out(title, f"{type(error).__name__}: {error}")
            return
        if cell in _CHAINS:
            found |= limit(
                found["photos_per_s"], {stage: cells[stage] for stage in _CHAINS[cell] if stage in cells}
            )
        cells[cell] = found
        self._write()
        line = f"gpu_ingest: {title}: {found['photos_per_s']:,.1f} photos/s"
        if "share_of_limit" in found:
            line += f", {found['share_of_limit']:.0%} of what {found['limit_by']} allow"
        if found["gpu_utilisation_percent"] is not None:
            line += f", GPU {found['gpu_utilisation_percent']:.0f} %"
        print(line, flush=True)

    def _leave_out(self, title: str, why: str) -> None:
        self._figures["left_out"].append(f"{title}: {why}")
        self._write()
        print(f"gpu_ingest: {title}: left out: {why}", file=sys.stderr, flush=True)

    def _write(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(json.dumps(self._figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
