"""Every metric of Homeward's, for Prometheus: what events count, and what is read when the page is asked for.

Names carry their units. Labels take few, fixed words: never a child, a case, an agency, a load, a token or
anything else that a caller writes.
"""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from homeward.telemetry import (
    Batched,
    Level,
    Operation,
    PhotoUnused,
    SelfChecked,
    StoreFailed,
    readings,
)

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


@dataclass(frozen=True, slots=True)
class _Described:
    """One kind of reading."""

    says: str
    label: str = ""  # its name
    combine: Callable[[float, float], float] = float.__add__  # of readings of the same
    counts: bool = False  # it only rises: a counter, whose name ends in _total


LEVELS: Mapping[Level, _Described] = {
    Level.READY: _Described("1 when this process answers searches, 0 while it loads.", combine=min),
    Level.QUEUE: _Described("Items that wait for their batch.", "queue"),
    Level.QUEUE_LIMIT: _Described("Items that may wait before calls are refused.", "queue"),
    Level.INDEX_ROWS: _Described("Templates in this process's index, by what its slots do.", "state"),
    Level.INDEX_RECORDS: _Described("Records in this process's index."),
    Level.INDEX_REV: _Described("The change up to which this process's index holds all.", combine=max),
    Level.INDEX_LAG: _Described(
        "Since when this process's index may lack a committed change; beyond index.stale_s a shard refuses.",
        combine=max,
    ),
    Level.INDEX_SLOTS: _Described(
        "Slots of this process's index, of 4096: ready ones answer, loading ones are being filled, leaving "
        "ones go to another shard.",
        "state",
    ),
    Level.SHARDS: _Described("Shards of the map, as this server finds them: up or silent.", "state"),
    Level.SLOTS: _Described(
        "Slots of the gallery as this server sees them: covered by a shard that answers, or uncovered, for "
        "which Milvus answers.",
        "state",
    ),
    Level.MISSING_REPLICAS: _Described("Replicas of slots that are wanted and not ready."),
    Level.EMBEDDING_WORKERS: _Described(
        "Embedding workers over the network, as this server finds them.", "state"
    ),
    Level.STORE_UP: _Described("1 when the store answered when last asked, else 0.", "store", min),
    Level.LOAD_PHOTOS: _Described("Photos of the load that this process drives.", "state"),
    Level.LOAD_PARTS: _Described("Parts of the load that this process drives.", "state"),
    Level.LOAD_WAITING: _Described("Photos in front of a stage of the load.", "stage"),
    Level.LOAD_LOADERS: _Described("Loaders at work."),
    Level.LOAD_HELD_BACK: _Described("1 while the load waits for a store that does not answer.", combine=max),
    Level.LOAD_STAGE_PHOTOS: _Described("Photos that have passed a stage of the load.", "stage", counts=True),
    Level.LOAD_STAGE_SECONDS: _Described("Spent in a stage, over all loaders.", "stage", counts=True),
    Level.LOAD_FACES: _Described("Templates written by the load.", counts=True),
    Level.LOAD_REJECTED: _Described("Photos that the load rejected.", "reason", counts=True),
    Level.GPU_MEMORY: _Described(
        "Memory of the GPUs that this process sees: used by anybody, allocated by this process, total.",
        "state",
    ),
    Level.GPU_BUSY: _Described(
        "Share of its driver's last sample in which the GPU ran a kernel, by anybody.", "gpu"
    ),
}


class PrometheusSink:
    """Counts events in a registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._seconds = Histogram(
            "homeward_operation_seconds",
            "How long operations took: calls over gRPC, stages of searches, batches.",
            ("operation", "outcome"),
            buckets=SECONDS,
            registry=registry,
        )
        self._failures = Counter(
            "homeward_operation_failures",
            "Operations that ended in an error, by its reason code.",
            ("operation", "reason"),
            registry=registry,
        )
        self._items = Histogram(
            "homeward_batch_items", "Items worked on together.", ("queue",), buckets=ITEMS, registry=registry
        )
        self._store_errors = Counter(
            "homeward_store_errors", "Calls of a store that failed.", ("store", "reason"), registry=registry
        )
        self._unused = Counter(
            "homeward_unused_photos",
            "Photos that were to be enrolled and gave no template.",
            ("reason",),
            registry=registry,
        )
        self._self_checks = _SelfCheckMetrics(registry)
        self._of: dict[tuple[str, str], Histogram] = {}  # looking one up by its labels takes longer than it
        self._items_of: dict[str, Histogram] = {}

    def __call__(self, event: Operation) -> None:
        """Count the event."""
        if isinstance(event, StoreFailed):
            self._store_errors.labels(event.store, event.reason).inc()
            return
        if isinstance(event, PhotoUnused):
            self._unused.labels(event.reason).inc()
            return
        seconds = self._of.get((event.name, event.outcome))
        if seconds is None:
            seconds = self._of[event.name, event.outcome] = self._seconds.labels(event.name, event.outcome)
        seconds.observe(event.seconds)
        if event.reason:
            self._failures.labels(event.name, event.reason).inc()
        if isinstance(event, Batched):
            items = self._items_of.get(event.queue)
            if items is None:
                items = self._items_of[event.queue] = self._items.labels(event.queue)
            items.observe(event.items)
        elif isinstance(event, SelfChecked):
            self._self_checks.count(event)


class _SelfCheckMetrics:
    """Gauges have no value until a first search was recomputed: 0 would be an alarm, 1 a lie."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._recall = Gauge(
            "homeward_self_check_recall_ratio",
            "Recall of the search recomputed last, 0 to 1.",
            registry=registry,
        )
        self._error = Gauge(
            "homeward_self_check_score_error_max",
            "Largest difference of a served score from the recomputed one since the start.",
            registry=registry,
        )
        self._searches = Counter(
            "homeward_self_check_searches", "Searches recomputed from Milvus.", registry=registry
        )
        self._differing = Counter(
            "homeward_self_check_differing_searches",
            "Recomputed searches whose answer had been another.",
            registry=registry,
        )
        self._left_out = Counter(
            "homeward_self_check_left_out_records",
            "Records not compared because they had changed since the answer.",
            registry=registry,
        )
        self._rows = Counter(
            "homeward_self_check_read_rows", "Rows read from Milvus to recompute searches.", registry=registry
        )
        self._largest = 0.0
        self._recall.set(math.nan)
        self._error.set(math.nan)

    def count(self, event: SelfChecked) -> None:
        """Take one check in."""
        self._largest = max(self._largest, event.score_error)
        self._recall.set(event.recall)
        self._error.set(self._largest)
        self._searches.inc()
        self._differing.inc(event.outcome != "OK")
        self._left_out.inc(event.left_out)
        self._rows.inc(event.rows_read)


class LevelCollector(Collector):
    """Reads what the process's parts say of themselves when the page is asked for."""

    def collect(self) -> Iterator[Metric]:
        """A family for each kind that somebody reads."""
        found: dict[Level, dict[str, float]] = {}
        for one in readings():
            values = found.setdefault(one.level, {})
            known = values.get(one.label)
            combined = one.value if known is None else LEVELS[one.level].combine(known, float(one.value))
            values[one.label] = float(combined)
        for level, values in found.items():
            described = LEVELS[level]
            kind = CounterMetricFamily if described.counts else GaugeMetricFamily
            labels = (described.label,) if described.label else ()
            family = kind(level.value, described.says, labels=labels)
            for label, value in sorted(values.items()):
                family.add_metric((label,) if described.label else (), value)
            yield family


def new_registry() -> CollectorRegistry:
    """A registry with everything that is read; a `PrometheusSink` adds what is counted."""
    registry = CollectorRegistry()
    registry.register(LevelCollector())
    ProcessCollector(registry=registry)
    build = Gauge("homeward_build_info", "Always 1; the version is a label.", ("version",), registry=registry)
    build.labels(importlib.metadata.version("homeward")).set(1)
    return registry
