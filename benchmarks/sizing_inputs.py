"""What `benchmarks.sizing` reckons with: figures of kept results, each with the command that measured it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from index.columns import COLUMN_NAMES, empty

RESULTS = Path(__file__).parent / "results"
DIMENSION = 128
CORES = 2  # of the machine that all results were measured on


@dataclass(frozen=True, slots=True)
class Measured:
    """A figure of a results file. `path` leads to it, keys joined by dots."""

    what: str
    unit: str
    benchmark: str
    path: str
    factor: float = 1.0  # from the file's unit to this one
    note: str = ""

    @property
    def value(self) -> float:
        """The figure, in `unit`. Raises `KeyError` when the file has none."""
        found: Any = _results(self.benchmark)
        for key in self.path.split("."):
            found = found[int(key)] if isinstance(found, list) else found[key]
        return float(found) * self.factor


@cache
def _results(benchmark: str) -> Any:
    return json.loads((RESULTS / f"{benchmark}.json").read_text(encoding="utf-8"))


# Memory that holding the rows adds to a process; the other figure is that of its arrays alone.
SHARD_ROW = Measured(
    "memory of a shard, a row", "bytes", "scale", "rows.1000000.shards.1.bytes_per_row", note="a million rows"
)
SERVER_ROW = Measured(
    "memory of a server that holds the index, a row",
    "bytes",
    "scale",
    "rows.1000000.in_process_bytes_per_row",
    note="a million rows",
)
SCAN_ONE = Measured(
    "a scan for one probe, a million rows",
    "core ms",
    "search",
    "one.latency_ms.ours",
    factor=CORES,
    note="in a slow hour",
)
SCAN_MANY = Measured(
    "a scan for 64 probes at once, a million rows, each",
    "core ms",
    "search",
    "b64.latency_ms.ours",
    factor=CORES / 64,
)
SEARCH_PHOTO = Measured(
    "a search by photo at a server, its scan of a million rows included",
    "core ms",
    "serve",
    "photo.by_clients.32.server_cpu_ms_each",
    note="80 photos of 1024 x 768, 32 clients",
)
SEARCH_TEMPLATE = Measured(
    "a search by template at a server, its scan included",
    "core ms",
    "serve",
    "template.local.32.server_cpu_ms_each",
    note="32 clients",
)
SEARCH_ELSEWHERE = Measured(
    "the same at a server whose index is on shards",
    "core ms",
    "serve",
    "template.ray.32.server_cpu_ms_each",
    note="32 clients",
)
MILVUS_SEARCH = Measured(
    "Milvus's own exact searches among a million rows",
    "a second",
    "serve",
    "milvus_flat.Strong.per_s",
    note="32 clients, two cores shared with them",
)
SNAPSHOT_START = Measured(
    "loading a million rows from snapshots", "s", "restart", "starts.start 1.stages.loading_s"
)
MILVUS_START = Measured(
    "loading a million rows from Milvus, without snapshots",
    "s",
    "restart",
    "starts.without a snapshot.stages.loading_s",
)
LOAD_PACE = Measured(
    "photos of a load, a core",
    "a second",
    "load",
    "steady_photos_per_s.1",
    factor=1 / CORES,
    note="250 px; the stores on the same cores",
)
LARGE_PACE = Measured(
    "photos of 1350 px enrolled over gRPC, a core",
    "a second",
    "enrol",
    "large.photos_per_s",
    factor=1 / CORES,
    note="stores embedded",
)
LOAD_PEAK = Measured(
    "most memory of a load, Ray and two loaders", "GB", "load_memory", "rss_peak_bytes.50000", factor=1e-9
)
POSTGRES_ROW = Measured(
    "PostgreSQL, a template",
    "bytes",
    "stored",
    "servers.postgres_bytes_per_row",
    note="1.6 templates a child",
)
FACES_TABLE = Measured(
    "of that the table `faces`, which every search reads",
    "bytes",
    "stored",
    "servers.postgres_faces_bytes_per_row",
)
MILVUS_ROW = Measured(
    "Milvus's object store, a template",
    "bytes",
    "stored",
    "servers.milvus_bytes_per_row",
    note="one copy, flushed",
)
MILVUS_MEMORY = Measured(
    "Milvus's memory, a template",
    "bytes",
    "stored",
    "servers.milvus_resident_bytes_per_row",
    note="one process, its index FLAT, after loading 400,000",
)
SNAPSHOT_ROW = Measured(
    "snapshots of the index in S3, a template", "bytes", "stored", "servers.snapshot_bytes_per_row"
)
SERVER = Measured(
    "memory of a server without rows: model, decoders, embedded stores",
    "GB",
    "stored",
    "embedded.server_resident_bytes",
    factor=1e-9,
)
LOG_LINE = Measured(
    "the log of searches, a search",
    "bytes",
    "stored",
    "embedded.search_log_bytes_per_line",
    note="20 candidates",
)

MEASURED = (
    SHARD_ROW,
    SERVER_ROW,
    SCAN_ONE,
    SCAN_MANY,
    SEARCH_PHOTO,
    SEARCH_TEMPLATE,
    SEARCH_ELSEWHERE,
    MILVUS_SEARCH,
    SNAPSHOT_START,
    MILVUS_START,
    LOAD_PACE,
    LARGE_PACE,
    LOAD_PEAK,
    POSTGRES_ROW,
    FACES_TABLE,
    MILVUS_ROW,
    MILVUS_MEMORY,
    SNAPSHOT_ROW,
    SERVER,
    LOG_LINE,
)


def original_bytes() -> int:
    """Of a row's originals on the disk beside the index: the sum of its columns' types."""
    columns = empty(DIMENSION, 1)
    return sum(int(getattr(columns, name)[:1].nbytes) for name in COLUMN_NAMES)
