"""Searches over gRPC, end to end, beside the same searches sent straight to Milvus.

    .venv/bin/python -m benchmarks.serve --json benchmarks/results/serve.json --keep FOLDER
    .venv/bin/python -m benchmarks.serve --json FILE --full --keep FOLDER       # HNSW too: about an hour
    .venv/bin/python -m benchmarks.serve --json FILE --rows 20000 --seconds 2   # a first look

The stores (PostgreSQL, Milvus 2.3, S3) are real and filled with the faces of synthetic children, the
catalogue included; that takes some three minutes for a million, once with --keep: the folder can be used
again, by the other benchmarks too. Homeward is `homeward serve` in a process of its own, first with the index
in its memory ("local"), then with shards on a Ray of its own on this machine ("ray"). This process is the
clients, and each of them waits for its answer.

  overhead_local_ms       p50 of Search by template, one client, minus p50 of the scan of the same rows by
                          `Shard.search_many` in this process; both in turns
  overhead_ray_ms         the same with the index on shards
  milvus_flat_speedup_32  searches by template per second with 32 clients, over Milvus's own, FLAT (exact), by
                          the faster of two consistency levels, while no Homeward runs
  photo.p50_ms            one client's searches by photo, 1024 x 768 with one face
  photo.share_of_embedder photos per second of 32 clients over those of the embedder alone, in this process,
                          kept as busy, without a search; in turns, the median
  differences             of the sampled answers by template from the reference: 0, or the exit code is 1
  template, photo         for 1, 8, 32 and 128 clients: rate, p50, p95, p99 and the stages' times, as the
                          answers say them
  hnsw                    with --full: Milvus HNSW's latency, rate and recall, and the number of rows up to
                          which Homeward's exact search is faster, one client

Run it on a machine with nothing else to do: `machine.load_average` says whether it was.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import over_stores, serve_milvus
from benchmarks.filled import Filled
from benchmarks.ray_shards import running_shards
from benchmarks.reporting import say
from benchmarks.search_rows import probes, real_like
from benchmarks.serve_answers import Truth
from benchmarks.serve_clients import K, Run, by_photo, by_template, percentiles, search
from benchmarks.serve_hnsw import exact_faster_up_to, hnsw_figures
from benchmarks.serve_photos import Embedder, probe_photos
from benchmarks.serve_plots import draw_serve
from benchmarks.serve_scan import Scan
from benchmarks.served import Served, served
from benchmarks.snapshots_written import wait_for_snapshots
from cluster.shard_process import IndexModel
from homeward.types import Float32
from index.milvus import collection_name

CLIENTS = (1, 8, 32, 128)
_MANY = 32
_PROBES = 1024
_PHOTOS = 96
_SAMPLED_EVERY = 32
_ROUNDS = 5
_WARM_S = 2.0
_SNAPSHOTS_S = 900.0


@dataclass(frozen=True, slots=True)
class ByTemplate:
    """One configuration's searches by template."""

    runs: dict[int, Run]  # by number of clients
    scan_ms: float  # p50 in this process, in turns with one client's searches

    @property
    def overhead_ms(self) -> float:
        """What gRPC, catalogue, log and (with shards) the way to them add."""
        return percentiles(self.runs[1].seconds)["p50_ms"] - self.scan_ms


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns 1 when an answer is not the reference's."""
    return over_stores.run(_arguments(arguments), _measure, draw_serve, _tell)


def _tell(figures: dict[str, Any]) -> int:
    photo = figures["photo"]
    print(
        f"serve: {figures['rows']:,} rows; {figures['differences']} of {figures['compared']} answers differ; "
        f"over gRPC {figures['overhead_local_ms']:.1f} ms more than the scan's "
        f"{figures['scan_ms']['local']:.1f}, by shards {figures['overhead_ray_ms']:.1f}; {_MANY} clients "
        f"{figures['milvus_flat_speedup_32']:.1f}x Milvus FLAT; by photo {photo['p50_ms']:.0f} ms, "
        f"{photo['share_of_embedder']:.2f} of the embedder"
    )
    return int(figures["differences"] > 0)


async def _measure(filled: Filled, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    say("making the rows again, for this process's own scan and the reference")
    columns = filled.columns()
    templates = probes(columns.template, real_like, _PROBES, 7)
    truth = Truth(columns)
    figures: dict[str, Any] = {
        "benchmark": "serve",
        "rows": filled.rows,
        "records": truth.records,
        "dimension": filled.dimension,
        "k": K,
        "model_id": filled.model_id,
        "fill_s": filled.fill_s,
        "filled_before": filled.was_there,
        "milvus_flat": await _milvus_flat(filled, templates, options.seconds),
    }
    if options.full:
        uri = filled.stores.gallery.uri
        sizes = await hnsw_figures(uri, columns, templates, _MANY, options.seconds, folder)
    with Scan(columns, templates, K, folder) as scan:
        say("starting Homeward with the index in its memory")
        async with served(filled.stores, folder / "local") as server:
            say(f"it serves after {server.serving_s:.0f} s; waiting until it has written its snapshots")
            snapshots = await asyncio.to_thread(wait_for_snapshots, filled, _SNAPSHOTS_S)
            local = await _by_template(server, filled, templates, scan, options.seconds)
            figures["photo"] = await _by_photo(server, options.seconds)
        say(f"starting {options.shards} shards on a Ray of their own")
        model = IndexModel(filled.model_id, filled.dimension)
        async with running_shards(filled.stores, model, folder / "ray", options.shards) as shards:
            say(f"they hold every slot after {shards.start_s + shards.load_s:.0f} s")
            async with served(filled.stores, folder / "gateway", shards.environment) as gateway:
                ray = await _by_template(gateway, filled, templates, scan, options.seconds)
    say("comparing sampled answers with the reference")
    by_index = {"local": local, "ray": ray}
    answers = [one for each in by_index.values() for run in each.runs.values() for one in run.answers]
    if options.full:
        figures["hnsw"] = {"sizes": sizes, **exact_faster_up_to(sizes, local.overhead_ms)}
    flat_rate = max(each["per_s"] for each in figures["milvus_flat"].values())
    return figures | {
        "differences": truth.differences(templates, answers),
        "compared": len(answers),
        "template": {name: _by_clients(each.runs) for name, each in by_index.items()},
        "scan_ms": {name: each.scan_ms for name, each in by_index.items()},
        "overhead_local_ms": local.overhead_ms,
        "overhead_ray_ms": ray.overhead_ms,
        "milvus_flat_speedup_32": local.runs[_MANY].rate / flat_rate,
        "snapshots": snapshots,
        "server_start_s": {"local": server.serving_s, "ray": gateway.serving_s},
        "shards": {
            "count": shards.count,
            "threads_each": shards.threads,
            "start_s": shards.start_s,
            "load_s": shards.load_s,
        },
    }


async def _milvus_flat(filled: Filled, templates: Float32, budget_s: float) -> dict[str, dict[str, Any]]:
    """The very collection that Homeward writes, by consistency level."""
    name = collection_name(filled.stores.gallery.collection, filled.model_id)
    collection = serve_milvus.Collection(filled.stores.gallery.uri, name, filled.rows, "record_id", {})
    found = {}
    for consistency in serve_milvus.CONSISTENCIES:
        say(f"searching Milvus FLAT with {_MANY} clients, consistency {consistency}")
        found[consistency] = await serve_milvus.search(collection, templates, _MANY, budget_s, consistency)
    return found


async def _by_template(
    server: Served, filled: Filled, templates: Float32, scan: Scan, budget_s: float
) -> ByTemplate:
    request = by_template(templates, filled.model_id)
    await search(server, request, 1, _WARM_S)
    scan.seconds(_WARM_S / 2)
    runs = {1: Run(1)}
    scans: list[float] = []
    for _ in range(_ROUNDS):
        runs[1].add(await search(server, request, 1, 0.4 * budget_s, first=len(scans), every=_SAMPLED_EVERY))
        scans += scan.seconds(0.2 * budget_s)
    for clients in CLIENTS[1:]:
        say(f"searching by template with {clients} clients")
        await search(server, request, clients, _WARM_S / 2)
        runs[clients] = await search(server, request, clients, budget_s, every=_SAMPLED_EVERY)
    return ByTemplate(runs, percentiles(scans)["p50_ms"])


async def _by_photo(server: Served, budget_s: float) -> dict[str, Any]:
    embedder = await Embedder.open()
    try:
        made, what = probe_photos(_PHOTOS)
        photos = await embedder.with_one_face(made)
        request = by_photo(photos)
        await search(server, request, 1, _WARM_S)
        runs = {}
        for clients in CLIENTS:
            say(f"searching by photo with {clients} clients")
            if clients != _MANY:
                runs[clients] = await search(server, request, clients, budget_s)
                continue
            runs[clients], alone = Run(clients), []
            shares = []
            for turn in range(_ROUNDS):
                run = await search(server, request, clients, 0.6 * budget_s, first=turn)
                alone.append(await embedder.rate(photos, clients, 0.6 * budget_s))
                shares.append(run.rate / alone[-1])
                runs[clients].add(run)
    finally:
        await embedder.close()
    return {
        "p50_ms": percentiles(runs[1].seconds)["p50_ms"],
        "share_of_embedder": median(shares),
        "embedder_photos_per_s": median(alone),
        "shares": shares,
        "photos": len(photos),
        "photos_what": what,
        "by_clients": _by_clients(runs),
    }


def _by_clients(runs: dict[int, Run]) -> dict[str, dict[str, object]]:
    return {str(clients): run.figures() for clients, run in runs.items()}


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = over_stores.parser("serve", __doc__, 1_000_000)
    parser.add_argument("--seconds", type=float, default=2.0, help="spent on a measurement, about (2)")
    parser.add_argument("--shards", type=int, default=2, help="on the Ray of its own (2)")
    parser.add_argument("--full", action="store_true", help="Milvus HNSW as well")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
