"""Milvus's HNSW beside the exact scan, at two sizes: from how many rows on it is faster, what it misses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import serve_milvus
from benchmarks.reporting import say
from benchmarks.serve_clients import K, percentiles
from benchmarks.serve_scan import Scan
from homeward.types import Float32
from index.columns import Columns

_RECALL_PROBES = 200
_MOST_ROWS = 1e9


async def hnsw_figures(
    uri: str, columns: Columns, templates: Float32, clients: int, budget_s: float, folder: Path
) -> list[dict[str, Any]]:
    """Both at a tenth of the rows and at all of them, while nothing else runs."""
    found = []
    for rows in (len(columns) // 10, len(columns)):
        some = columns.take(slice(0, rows))
        with serve_milvus.hnsw(uri, some.template) as (collection, built):
            say(f"searching Milvus HNSW of {rows:,} rows")
            one = await serve_milvus.search(collection, templates, 1, budget_s, "Bounded")
            many = await serve_milvus.search(collection, templates, clients, budget_s, "Bounded")
            recall = await serve_milvus.recall(collection, some.template, templates[:_RECALL_PROBES])
        with Scan(some, templates, K, folder) as scan:
            scan_ms = percentiles(scan.seconds(budget_s / 2))["p50_ms"]
        by_clients = {"1": one, str(clients): many}
        found.append({"rows": rows, "recall": recall, "scan_ms": scan_ms, "by_clients": by_clients, **built})
    return found


def exact_faster_up_to(sizes: Sequence[Mapping[str, Any]], overhead_ms: float) -> dict[str, object]:
    """The number of rows up to which one client's exact search over gRPC takes no longer than HNSW's.

    Exact search is taken to grow in proportion to the rows, HNSW with their logarithm, through both sizes
    measured; beyond the larger one that is an extrapolation."""
    few, many = sizes
    rows = np.array([few["rows"], many["rows"]], float)
    exact = np.array([few["scan_ms"], many["scan_ms"]]) + overhead_ms
    graph = np.array([one["by_clients"]["1"]["p50_ms"] for one in sizes])
    points = np.geomspace(1000.0, _MOST_ROWS, 2000)
    ours = exact[0] + (exact[1] - exact[0]) * (points - rows[0]) / (rows[1] - rows[0])
    theirs = graph[0] + (graph[1] - graph[0]) * np.log(points / rows[0]) / np.log(rows[1] / rows[0])
    slower = np.flatnonzero(ours > theirs)
    up_to = float(points[slower[0]]) if slower.size else _MOST_ROWS
    return {"exact_faster_up_to_rows": round(up_to, -3), "extrapolated": not rows[0] <= up_to <= rows[1]}
