"""The exact index cut over several shards, beside one index in one process.

    .venv/bin/python -m benchmarks.scale --json benchmarks/results/scale.json
    .venv/bin/python -m benchmarks.scale --json FILE --full                # 10,000,000 rows, too: needs 20 GB

Shards are processes of their own, without Ray, which places shards but carries no probe: `ShardNode` behind
its gRPC port, placed by the controller, asked through the `Router`. Their rows come from files instead of
Milvus. For each number of rows, and of shards (1, 2 and 4, each slot on one of them):
  one         median ms of one probe; `in_process` the same of one `Shard` in this process
  b64         probes a second, 64 at once
  bytes_per_row, shard_bytes  anonymous memory that holding the rows adds: of all shards, and of the largest
  differences answers that are not those of the index in this process. Must be 0, else the exit code is 1
All shards share the cores of this machine (`machine`), so more of them are no faster here: what can be seen
is what cutting costs. On machines of their own each scans its part at the same time.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import tempfile
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.common import machine, write_json
from benchmarks.scale_rows import DIMENSION, REV, RowFiles, write_rows
from benchmarks.scale_shard import MODEL_ID, settings_of
from benchmarks.search_rows import real_like
from benchmarks.search_scale import cores
from benchmarks.search_timing import anonymous_bytes, say
from benchmarks.serve_plots import draw_scale
from catalogue.open import open_catalogue
from cluster.shard_control import ShardControl
from cluster.shard_maps import ShardMaps
from homeward.errors import NotFound
from homeward.types import CandidateList, Float32, Query
from index.columns import Bool
from index.merge import Partial
from index.router import Router
from index.shard import Shard
from index.synthetic import unit_rows
from index.warm_up import compile_kernels

K = 20
SHARDS = (1, 2, 4)
_BATCH = 64
_PROBES = 512
_SEED = 17
_COMPARED = 64
_START_S = 300.0
_PLACED_S = 1800.0
_LEAST_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Asked:
    """Probes, in turns."""

    probes: Float32

    def queries(self, number: int, count: int) -> list[Query]:
        """So many, of one probe each."""
        places = np.arange(number * count, (number + 1) * count) % len(self.probes)
        return [Query(self.probes[at : at + 1], K) for at in places.tolist()]


@dataclass(frozen=True, slots=True)
class Shards:
    """Shards that hold every slot."""

    router: Router
    grown: list[int]  # bytes that each added when it loaded its rows


async def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Every number of rows."""
    compile_kernels()
    sizes = [100_000, 1_000_000, 10_000_000] if options.full else [100_000, 1_000_000]
    found = {}
    for rows in options.rows or sizes:
        found[str(rows)] = await _of_rows(folder, rows, options.seconds)
    return {
        "rows": found,
        "differences": sum(each["differences"] for of in found.values() for each in of["shards"].values()),
        "k": K,
        "dimension": DIMENSION,
        "batch": _BATCH,
        "machine": machine(),
    }


async def _of_rows(folder: Path, rows: int, seconds: float) -> dict[str, Any]:
    files = folder / str(rows)
    say(f"drawing {rows:,} rows")
    await asyncio.to_thread(write_rows, files, rows, _SEED)
    source = RowFiles(files)
    asked = Asked(_probes(source, rows))
    before = anonymous_bytes()
    alone = Shard(DIMENSION, rev=REV, folder=folder, threads=cores())
    try:
        say("loading one index in this process")
        for _, _, columns in source.load(np.ones(4096, np.bool_)):
            alone.apply(upserts=columns)
        grown = anonymous_bytes() - before
        shards = {}
        for count in SHARDS:
            async with _running(folder, files, count) as running:
                say(f"measuring {count} shards")
                shards[str(count)] = await _compared(alone, running, asked, rows, seconds)
    finally:
        alone.close()
    return {"in_process_bytes_per_row": grown / rows, "shards": shards}


async def _compared(alone: Shard, shards: Shards, asked: Asked, rows: int, seconds: float) -> dict[str, Any]:
    one = await _times(alone, shards.router, asked, 1, seconds)
    many = await _times(alone, shards.router, asked, _BATCH, seconds)
    wanted = await asyncio.to_thread(alone.search_many, asked.queries(0, _COMPARED))
    answers = await shards.router.search_many(asked.queries(0, _COMPARED))
    return {
        "one_ms": _both(one, lambda spent: 1e3 * spent),
        "b64_probes_per_s": _both(many, lambda spent: _BATCH / spent),
        "bytes_per_row": sum(shards.grown) / rows,
        "shard_bytes": max(shards.grown),
        "differences": sum(_said(a) != _said(b) for a, b in zip(wanted, answers, strict=True)),
    }


def _both(times: tuple[float, float], figure: Any) -> dict[str, float]:
    return {"in_process": figure(times[0]), "shards": figure(times[1])}


async def _times(
    alone: Shard, router: Router, asked: Asked, batch: int, seconds: float
) -> tuple[float, float]:
    """Median seconds of a batch in this process and through the router, in turns."""
    loop = asyncio.get_running_loop()
    spent: tuple[list[float], list[float]] = ([], [])
    begun = time.monotonic()
    with ThreadPoolExecutor(1) as executor:
        for number in range(1 << 20):
            if number > _LEAST_ROUNDS and time.monotonic() > begun + seconds:
                break
            queries = asked.queries(number, batch)
            started = time.perf_counter()
            await loop.run_in_executor(executor, alone.search_many, queries)
            between = time.perf_counter()
            await router.search_many(queries)
            if number:  # the first does not count
                spent[0].append(between - started)
                spent[1].append(time.perf_counter() - between)
    return median(spent[0]), median(spent[1])


@asynccontextmanager
async def _running(folder: Path, files: Path, count: int) -> AsyncIterator[Shards]:
    """Start shards and have them placed and loaded."""
    home = Path(tempfile.mkdtemp(dir=folder))
    threads = max(1, cores() // count)
    settings = settings_of(home, threads)
    say(f"starting {count} shards of {threads} threads")
    async with AsyncExitStack() as stack:
        catalogue = open_catalogue(settings.catalogue, settings.data_dir)
        stack.callback(catalogue.close)
        executor = stack.enter_context(ThreadPoolExecutor(4))
        started = []
        for number in range(count):
            child = await _child(home, files, f"shard-{number}", threads)
            stack.push_async_callback(_end, child)
            started.append(child)
        for child in started:
            assert child.stdout is not None
            if not await asyncio.wait_for(child.stdout.readline(), _START_S):
                raise RuntimeError("a shard did not start")
        before = [_anonymous(child.pid) for child in started]
        control = ShardControl(
            ShardMaps(catalogue, MODEL_ID),
            settings,
            dimension=DIMENSION,
            retire=lambda _: None,
            executor=executor,
            clock=time.monotonic,
        )
        stack.push_async_callback(control.close)
        task = asyncio.create_task(control.run())
        stack.push_async_callback(_cancel, task)
        router = Router(
            ShardMaps(catalogue, MODEL_ID).read,
            _no_fallback,
            model_id=MODEL_ID,
            dimension=DIMENSION,
            token=None,
            executor=executor,
        )
        await router.open()
        stack.push_async_callback(router.close)
        give_up = time.monotonic() + _PLACED_S
        while (status := await router.status()).uncovered or status.under_replicated:
            if time.monotonic() > give_up:
                raise RuntimeError("the shards did not get their rows")
            await asyncio.sleep(0.2)
        yield Shards(
            router, [_anonymous(child.pid) - was for child, was in zip(started, before, strict=True)]
        )


async def _child(home: Path, files: Path, name: str, threads: int) -> Process:
    command = ["-m", "benchmarks.scale_shard", str(home), str(files), name, str(threads)]
    return await asyncio.create_subprocess_exec(sys.executable, *command, stdout=PIPE)


async def _end(child: Process) -> None:
    if child.returncode is None:
        child.terminate()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(child.wait(), 30)
    if child.returncode is None:
        child.kill()
        await child.wait()


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _no_fallback(_queries: Sequence[Query], _slots: Bool) -> list[tuple[Partial, int]]:
    raise NotFound("there is no Milvus here")


def _said(answer: CandidateList) -> tuple[object, ...]:
    return answer.candidates, answer.rows_searched, answer.records_searched, answer.method


def _probes(source: RowFiles, rows: int) -> Float32:
    """Every other one near an enrolled template, the rest near none."""
    generator = np.random.default_rng(_SEED)
    fresh = real_like(_PROBES, _SEED - 1).astype(np.float64)
    near = source.templates(np.sort(generator.integers(0, rows, _PROBES))).astype(np.float64)
    share = np.where(np.arange(_PROBES) % 2 == 0, 0.85, 0.0)[:, np.newaxis]
    return unit_rows(share * near + (1 - share) * fresh)


def _anonymous(pid: int) -> int:
    """Memory of the process that no file stands behind."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    line = next(each for each in status.splitlines() if each.startswith("RssAnon:"))
    return int(line.split()[1]) * 1024


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.scale", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--rows", type=int, nargs="*", help="100,000 and 1,000,000 by default")
    parser.add_argument("--seconds", type=float, default=8.0, help="for each figure")
    parser.add_argument("--full", action="store_true", help="10,000,000 rows, too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="homeward-scale-") as name:
        result = asyncio.run(measure(options, Path(name)))
    write_json(options.json, result)
    draw_scale(result, options.json.with_suffix(".png"))
    for rows, found in result["rows"].items():
        for count, each in found["shards"].items():
            one, many = each["one_ms"], each["b64_probes_per_s"]
            print(
                f"scale: {int(rows):,} rows on {count} shards: one probe {one['shards']:.1f} ms "
                f"(in one process {one['in_process']:.1f}), {many['shards']:.0f} probes/s "
                f"({many['in_process']:.0f}), {each['differences']} answers differ"
            )
    return 1 if result["differences"] else 0


if __name__ == "__main__":
    sys.exit(main())
