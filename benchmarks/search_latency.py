"""How long one search takes over gRPC, by template, in a gallery of 100,000 synthetic templates.

    .venv/bin/python -m benchmarks.search_latency --json FILE

The server is a process of its own with its embedded parts; each search states its case, is logged
with fsync, and is looked up in the catalogue. Sampled answers are compared with the reference
search. The time of one fsync on the same disk, measured in the same run, is the physical limit.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np

from benchmarks.search_gallery import Gallery, load_gallery
from benchmarks.serve_answers import says
from homeward.types import Float32, Query
from homeward.v1 import search_pb2
from homeward.v1.search_pb2_grpc import SearchServiceStub
from index.reference import search as reference_search
from index.synthetic import unit_rows

K = 20
CONTEXT = search_pb2.SearchContext(
    case_reference="benchmark", purpose="measuring latency", requester="benchmarks.search_latency"
)
OPTIONS = [("grpc.max_receive_message_length", 32 * 1024 * 1024)]


@dataclass(frozen=True, slots=True)
class Run:
    """The searches of one measurement, in the order they ended."""

    seconds: list[float]
    stages: dict[str, list[float]]
    answers: list[tuple[int, search_pb2.SearchResponse]]  # of sampled probes
    wall_s: float


def probes_near(gallery: Gallery, count: int, seed: int) -> Float32:
    """(count, d) probes as real ones lie: half near an enrolled template, half near nobody's."""
    generator = np.random.default_rng(seed)
    rows = gallery.columns.template
    base = rows[generator.integers(0, len(rows), count)].astype(np.float64)
    other = rows[generator.integers(0, len(rows), count)].astype(np.float64)
    share = np.where(np.arange(count) % 2 == 0, 0.85, 0.5)[:, np.newaxis]
    return unit_rows(share * base + (1 - share) * other)


async def measure(address: str, model_id: str, probes: Float32, clients: int, sampled: frozenset[int]) -> Run:
    """Search every probe once, by `clients` callers that each wait for their answer."""
    run = Run([], {}, [], 0.0)
    pending = iter(enumerate(probes))

    async def client() -> None:
        async with grpc.aio.insecure_channel(address, options=OPTIONS) as channel:
            stub = SearchServiceStub(channel)
            for number, probe in pending:
                request = search_pb2.SearchRequest(
                    context=CONTEXT,
                    template=search_pb2.Template(values=probe.tolist(), model_id=model_id),
                    limit=K,
                )
                started = time.perf_counter()
                answer = await stub.Search(request)  # type: ignore[misc] # the stub's asyncio form
                run.seconds.append(time.perf_counter() - started)
                for stage in answer.times:
                    run.stages.setdefault(stage.stage, []).append(stage.seconds)
                if number in sampled:
                    run.answers.append((number, answer))

    started = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    return Run(run.seconds, run.stages, run.answers, time.perf_counter() - started)


def count_differences(run: Run, gallery: Gallery, probes: Float32) -> int:
    """Answers that are not the reference's: records, order, scores to the bit, evidence, counts."""
    different = 0
    for number, answer in run.answers:
        right = reference_search(Query(templates=probes[number : number + 1], k=K), gallery.columns)
        account = (answer.account.rows, answer.account.records)
        different += not says(answer, right) or account != (right.rows_searched, right.records_searched)
    return different


def fsync_ms(folder: Path, count: int = 200, size: int = 2500) -> float:
    """Median milliseconds of appending a search's line to a file and syncing it."""
    path = folder / "fsync-probe"
    handle = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    spent = []
    try:
        for _ in range(count):
            started = time.perf_counter()
            os.write(handle, b"x" * size)
            os.fdatasync(handle)
            spent.append(time.perf_counter() - started)
    finally:
        os.close(handle)
        path.unlink()
    return float(np.median(spent) * 1e3)


def percentiles(seconds: Sequence[float], prefix: str = "") -> dict[str, float]:
    """p50, p95 and p99 in milliseconds."""
    return {
        f"{prefix}p{each}_ms": round(float(np.percentile(seconds, each)) * 1e3, 3) for each in (50, 95, 99)
    }


async def benchmark(arguments: argparse.Namespace) -> dict[str, object]:
    """Start the server, load the gallery, measure with one client and with eight, compare."""
    with tempfile.TemporaryDirectory(prefix="homeward-search-") as name:
        folder = Path(name)
        async with load_gallery(folder, arguments.templates) as gallery:
            probes = probes_near(gallery, arguments.searches, seed=7)
            every = max(1, arguments.searches // arguments.sampled)
            sampled = frozenset(range(0, arguments.searches, every))
            before = fsync_ms(folder)
            await measure(gallery.address, gallery.model_id, probes[:50], 1, frozenset())
            one = await measure(gallery.address, gallery.model_id, probes, 1, sampled)
            many = await measure(gallery.address, gallery.model_id, probes, arguments.clients, sampled)
            after = fsync_ms(folder)
            return {
                **percentiles(one.seconds),
                **percentiles(many.seconds, f"clients_{arguments.clients}_"),
                f"clients_{arguments.clients}_searches_per_s": round(len(many.seconds) / many.wall_s, 1),
                "differences": count_differences(one, gallery, probes)
                + count_differences(many, gallery, probes),
                "compared": len(one.answers) + len(many.answers),
                "stages_p50_ms": {stage: percentiles(spent)["p50_ms"] for stage, spent in one.stages.items()},
                "fsync_ms": round((before + after) / 2, 3),
                "templates": arguments.templates,
                "dimension": gallery.columns.dimension,
                "searches": arguments.searches,
                "model_id": gallery.model_id,
                "load_s": round(gallery.load_s, 1),
                "machine": {
                    "platform": platform.platform(),
                    "cores": os.cpu_count(),
                    "load_1m": round(os.getloadavg()[0], 2),
                    "python": platform.python_version(),
                },
            }


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the result there")
    parser.add_argument("--templates", type=int, default=100_000)
    parser.add_argument("--searches", type=int, default=1000)
    parser.add_argument(
        "--sampled", type=int, default=40, help="answers compared with the reference, per run"
    )
    parser.add_argument("--clients", type=int, default=8)
    arguments = parser.parse_args()
    result = asyncio.run(benchmark(arguments))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    print(
        f"search: {result['templates']:,} templates, p50 {result['p50_ms']} ms, p95 {result['p95_ms']} ms "
        f"with one client; {result['differences']} of {result['compared']} answers differ; "
        f"one fsync {result['fsync_ms']} ms"
    )
    sys.exit(1 if result["differences"] else 0)


if __name__ == "__main__":
    main()
