"""The exact index beside faiss's flat index (and, with --full, approximate ones), and beside the reference.

    .venv/bin/python -m benchmarks.search --json benchmarks/results/search.json
    .venv/bin/python -m benchmarks.search --json FILE --full             # HNSW and Milvus too: over an hour
    .venv/bin/python -m benchmarks.search --json FILE --rows 20000 --cases 500 --seconds 2      # a first look
    .venv/bin/python -m benchmarks.search --json FILE --photos             # every face of lfw_dev, too
    .venv/bin/python -m benchmarks.search --json FILE --draw               # only draws that file again

Answers first. `differences` counts answers that are not the reference's, to the bit, order, counts and
evidence: over `cases` random queries for each kernel (`backends`), over sampled answers at full size
(`sampled`), and over real templates (`real_templates`, with --photos). It must be 0; else the exit code is 1
and stderr names seed and kernel: `python -m benchmarks.search_backends --seed N --cases 1` shows it again.

Then times, in this process, k = 20, 1,000,000 rows of 128 unless --rows says otherwise:
  one, b64, batches     1, 64 and other numbers of probes at once: medians in ms of both, and speedup_flat
                        (flat / ours). For one probe also bandwidth_ratio (ours / the time to read rows x
                        (d + 8) bytes once at the bandwidth measured in this run: 1 is the limit), and
                        speedup_flat_best, over the best of three ways to run the flat index
  filter_1pct_ratio     one probe with a filter that keeps 1 % of the rows / without; the worse of two filters
  hot_bytes_per_row     growth of the process's anonymous memory / rows, the originals being in files
  random                one and b64 for directions drawn evenly instead of real-like templates
  sweeps                by rows, dimensions and k, for the plot; points at 1/100 and 1/10 of --rows
  peers                 with --full: build time, memory, latency and recall of HNSW and of a Milvus server
Rows are drawn from the mean and covariance of real templates; half of the probes lie near an enrolled one.
Run it on a machine with nothing else to do: `machine.load_average` says whether it was. OpenMP's threads wait
for each other, so that a neighbour slows the flat index most and flatters ours.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.common import machine, write_json
from benchmarks.plots import draw_search
from benchmarks.search_backends import PORTABLE, SELECTED, backends, run_all
from benchmarks.search_rows import FACES_MAX, random_unit, real_like, real_like_512
from benchmarks.search_scale import (
    K,
    Subject,
    batch_figures,
    compare_answers,
    cores,
    filter_figures,
    limit_ms,
    one_figures,
    speed,
    subject,
)
from benchmarks.search_timing import METHOD, alternate, read_bandwidth, say
from homeward.errors import HomewardError

SEED = 11
_BATCHES = (8, 64, 256)
_KS = (10, 20, 100, 1000)
_PACKAGES = ("faiss-cpu", "numba", "numpy", "pymilvus", "milvus")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns 1 when an answer is not the reference's."""
    options = _arguments(arguments)
    plot = options.plot or options.json.with_suffix(".png")
    if options.draw:
        draw_search(json.loads(options.json.read_text(encoding="utf-8")), plot)
        return 0
    try:
        figures = _measure(options)
    except HomewardError as error:
        print(f"{error.code}: {error.message}", file=sys.stderr)
        return 2
    write_json(options.json, figures)
    draw_search(figures, plot)
    one, batch = figures["one"], figures["b64"]
    ms = {name: each["latency_ms"]["ours"] for name, each in (("one", one), ("b64", batch))}
    print(
        f"search: {figures['differences']} of {figures['compared']:,} answers differ; one probe "
        f"{ms['one']:.2f} ms, {one['speedup_flat']:.1f}x flat, {one['bandwidth_ratio']:.2f}x "
        f"the time to read; 64 probes {ms['b64']:.0f} ms, {batch['speedup_flat']:.1f}x flat; "
        f"1 % filter {figures['filter_1pct_ratio']:.2f}; {figures['hot_bytes_per_row']:.0f} bytes/row"
    )
    return int(figures["differences"] > 0)


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    before = machine()
    figures = _compare(options)
    threads, rows = options.threads, options.rows
    bandwidth = read_bandwidth(threads)
    with tempfile.TemporaryDirectory(prefix="homeward-search-", dir=options.folder) as name:
        folder = Path(name)
        with subject(real_like, rows, folder, threads, SEED) as ours:
            bandwidth = max(bandwidth, read_bandwidth(threads))
            figures |= _real_like(ours, bandwidth, options)
        if options.full:
            from benchmarks.search_peers import measure_peers

            with subject(real_like, options.peer_rows or rows, folder, threads, SEED) as ours:
                figures["peers"] = measure_peers(ours, options.seconds)
        with subject(random_unit, rows, folder, threads, SEED) as ours:
            figures["random"] = _random(ours, bandwidth, options.seconds)
        figures["sweeps"] |= _sweeps(folder, figures, bandwidth, options)
    sampled = [figures["sampled"], figures["random"]["sampled"]]
    figures["differences"] += sum(each["differences"] for each in sampled)
    figures["compared"] += sum(each["compared"] for each in sampled)
    # What is measured last may have been measured faster; the limit is the machine's best.
    late = read_bandwidth(threads)
    return figures | {
        "read_bandwidth_gb_s": bandwidth / 1e9,
        "read_bandwidth_at_the_end_gb_s": late / 1e9,
        "rows": rows,
        "dimension": 128,
        "k": K,
        "faces_per_record": [1, FACES_MAX],
        "threads": threads,
        "seed": SEED,
        "method": METHOD,
        "versions": {package: version(package) for package in _PACKAGES},
        "machine": before,
        "machine_after": machine(),
    }


def _compare(options: argparse.Namespace) -> dict[str, Any]:
    """The answers of every kernel beside the reference's."""
    templates = None
    if options.photos:
        from benchmarks.search_photos import real_templates

        templates = real_templates()
    say(f"comparing {options.cases:,} random cases with each kernel")
    names = options.backend or backends()
    by_backend = run_all(names, options.cases, options.seed, templates)
    real = [each.get("real_templates", 0) for each in by_backend.values()]
    wrong = [each["differences"] + each.get("real_differences", 0) for each in by_backend.values()]
    return {
        "benchmark": "search",
        "differences": sum(wrong),
        "cases": min(each["cases"] for each in by_backend.values()),
        "compared": sum(each["cases"] for each in by_backend.values()) + sum(real),
        "real_templates": max(real),
        "backends": by_backend,
    }


def _real_like(ours: Subject, bandwidth: float, options: argparse.Namespace) -> dict[str, Any]:
    """Everything that is measured at full size with real-like templates."""
    budget = options.seconds
    say("one probe")
    one = one_figures(ours, 1.5 * budget, bandwidth)
    batches = {"1": one}
    for batch in (*_BATCHES, 1024) if options.full else _BATCHES:
        say(f"{batch} probes at once")
        batches[str(batch)] = batch_figures(ours, batch, budget)
    say("filters")
    filters: dict[str, Any] = filter_figures(ours, budget)
    say("lists of other lengths")
    by_k = []
    for k in _KS:
        times = alternate(ours.sides(1, k), most=20, budget_s=budget / 3)
        by_k.append({"k": k, **speed(times, len(ours.columns), ours.columns.dimension, bandwidth)})
    say("comparing sampled answers with the reference")
    return {
        "one": one,
        "b64": batches["64"],
        "batches": batches,
        "filter_1pct_ratio": max(each["ratio"] for each in filters.values()),
        "filters": filters,
        "hot_bytes_per_row": ours.bytes_per_row["ours"],
        "bytes_per_row": ours.bytes_per_row,
        "build_s": ours.build_s,
        "sampled": compare_answers(ours, plain=4, filtered=6),
        "sweeps": {"k": by_k},
    }


def _random(ours: Subject, bandwidth: float, budget: float) -> dict[str, Any]:
    say("random directions")
    return {
        "one": one_figures(ours, budget, bandwidth),
        "b64": batch_figures(ours, 64, budget),
        "build_s": ours.build_s,
        "sampled": compare_answers(ours, plain=2, filtered=2),
    }


def _sweeps(
    folder: Path, figures: dict[str, Any], bandwidth: float, options: argparse.Namespace
) -> dict[str, Any]:
    """Fewer rows, and more dimensions; what was measured at full size is among the points."""
    by_rows, by_dimension = [], []
    for rows, draw in (
        (options.rows // 100, real_like),
        (options.rows // 10, real_like),
        (options.rows // 10, real_like_512),
    ):
        with subject(draw, rows, folder, options.threads, SEED) as ours:
            times = alternate(ours.sides(1), calls=5, budget_s=options.seconds / 3)
            dimension = ours.columns.dimension
            point = {"rows": rows, "dimension": dimension, **speed(times, rows, dimension, bandwidth)}
        if dimension == 128:
            by_rows.append(point)
        if rows == options.rows // 10:
            by_dimension.append(point)
    latency = figures["one"]["latency_ms"]
    whole = {"ours_ms": latency["ours"], "flat_ms": latency["flat"]}
    limit = limit_ms(options.rows, 128, bandwidth)
    by_rows.append({"rows": options.rows, "dimension": 128, **whole, "limit_ms": limit})
    return {"rows": by_rows, "dimensions": by_dimension}


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks.search", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, required=True, help="where the figures are written")
    parser.add_argument("--rows", type=int, default=1_000_000, help="at full size (1,000,000)")
    parser.add_argument("--cases", type=int, default=10_000, help="random queries for each kernel (10,000)")
    parser.add_argument(
        "--backend", action="append", choices=(SELECTED, PORTABLE), help="kernels compared (all)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the random cases; rows have one of their own")
    parser.add_argument("--threads", type=int, default=cores(), help="of each side (all cores)")
    parser.add_argument("--seconds", type=float, default=10.0, help="spent on a measurement, about (10)")
    parser.add_argument("--full", action="store_true", help="HNSW, Milvus and 1024 probes at once as well")
    parser.add_argument("--peer-rows", type=int, default=0, help="rows of those peers (as --rows)")
    parser.add_argument("--photos", action="store_true", help="search every face of lfw_dev; embeds it once")
    parser.add_argument("--folder", type=Path, help="on a disk with 1 GB for the originals (the system's)")
    parser.add_argument("--plot", type=Path, help="PNG file (beside the JSON)")
    parser.add_argument("--draw", action="store_true", help="only draw what the JSON file says")
    options = parser.parse_args(arguments)
    if options.rows < 1000 and not options.draw:
        parser.error("--rows must be at least 1000")
    return options


if __name__ == "__main__":
    sys.exit(main())
