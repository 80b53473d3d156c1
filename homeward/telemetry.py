"""What the code says about itself: one typed event, and the sinks that turn it into logs and metrics.

An event never holds a photo, a template, a name, a case or a secret: only what was done, how it
ended and how long it took. Sinks are added by whoever composes the process; without any, events go
nowhere.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


@dataclass(frozen=True, slots=True)
class Operation:
    """Something ended."""

    name: str  # "rpc /homeward.v1.SearchService/Search", "search scan", ...: a small, fixed set
    outcome: str  # "OK" or a gRPC status name
    seconds: float
    request_id: str = ""
    reason: str = ""  # the error's stable code
    incident: str = ""  # names the log entry of an unexpected failure


@dataclass(frozen=True, slots=True)
class SelfChecked(Operation):
    """A served search was recomputed from Milvus; outcome DATA_LOSS when its answer was another."""

    recall: float = 1.0  # 0..1
    score_error: float = 0.0  # largest difference of a score
    rows_read: int = 0
    left_out: int = 0  # records that changed since the answer


Sink = Callable[[Operation], None]

_sinks: list[Sink] = []


def emit(event: Operation) -> None:
    """Hand the event to every sink, in the order they were added."""
    for sink in tuple(_sinks):
        sink(event)


@contextmanager
def sinks(*added: Sink) -> Iterator[None]:
    """Add sinks while the context lasts."""
    _sinks.extend(added)
    try:
        yield
    finally:
        for sink in added:
            _sinks.remove(sink)


class LogSink:
    """One line of JSON per event."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def __call__(self, event: Operation) -> None:
        """Log the event; what is empty is left out."""
        if not self._logger.isEnabledFor(logging.INFO):
            return
        line: dict[str, str | float] = {
            "operation": event.name,
            "outcome": event.outcome,
            "ms": round(event.seconds * 1e3, 3),
        }
        for name in ("request_id", "reason", "incident"):
            if value := getattr(event, name):
                line[name] = value
        if isinstance(event, SelfChecked):
            for name in ("recall", "score_error", "rows_read", "left_out"):
                line[name] = getattr(event, name)
        self._logger.info("%s", json.dumps(line))


class PrometheusSink:
    """Durations and reasons of failure, by operation; what the self-check found."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._seconds = Histogram(
            "homeward_operation_seconds",
            "How long operations took.",
            ("operation", "outcome"),
            buckets=BUCKETS_S,
            registry=registry,
        )
        self._failures = Counter(
            "homeward_operation_failures",
            "Operations that ended in an error, by its reason code.",
            ("operation", "reason"),
            registry=registry,
        )
        self._self_checks = _SelfCheckMetrics(registry)
        self._of: dict[tuple[str, str], Histogram] = {}  # looking one up by its labels takes longer than it

    def __call__(self, event: Operation) -> None:
        """Count the event."""
        seconds = self._of.get((event.name, event.outcome))
        if seconds is None:
            seconds = self._of[event.name, event.outcome] = self._seconds.labels(event.name, event.outcome)
        seconds.observe(event.seconds)
        if event.reason:
            self._failures.labels(event.name, event.reason).inc()
        if isinstance(event, SelfChecked):
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
