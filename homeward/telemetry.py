"""What the code says about itself: typed events as things happen, and readings of how things are.

Neither holds a photo, a template, a name, a case's reference or a secret: only what was done, how it ended
and how long it took. Sinks (`homeward.metrics`, `homeward.logs`) are added by whoever composes the process;
without any, events go nowhere and nothing is read.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Operation:
    """Something ended."""

    name: str  # "search scan", "shard search", ...: a small, fixed set
    outcome: str  # "OK", FAILED, or a gRPC status name
    seconds: float
    request_id: str = ""
    reason: str = ""  # the error's stable code
    incident: str = ""  # names the log entry of an unexpected failure


@dataclass(frozen=True, slots=True)
class CallEnded(Operation):
    """A call over gRPC, or one item of a stream: each has a line in the log."""

    case: str = ""  # keyed hash of its case's reference
    stages: Mapping[str, float] = field(default_factory=dict)  # seconds


@dataclass(frozen=True, slots=True)
class Batched(Operation):
    """A queue's batch was worked on."""

    queue: str = ""
    items: int = 0


@dataclass(frozen=True, slots=True)
class StoreFailed(Operation):
    """A store did not do what it was asked for."""

    store: str = ""  # catalogue, gallery, photos, ...


@dataclass(frozen=True, slots=True)
class PhotoUnused(Operation):
    """A photo that was to be enrolled gave no template; `reason` says why."""


@dataclass(frozen=True, slots=True)
class SelfChecked(Operation):
    """A served search was recomputed from Milvus; outcome DATA_LOSS when its answer was another."""

    recall: float = 1.0  # 0..1
    score_error: float = 0.0  # largest difference of a score
    rows_read: int = 0
    left_out: int = 0  # records that changed since the answer


class Level(StrEnum):
    """What can be read at any time. `homeward.metrics` says what each is, and by what it is told apart."""

    READY = "homeward_ready"
    QUEUE = "homeward_queue_items"
    QUEUE_LIMIT = "homeward_queue_limit_items"
    INDEX_ROWS = "homeward_index_rows"
    INDEX_RECORDS = "homeward_index_records"
    INDEX_REV = "homeward_index_rev"
    INDEX_LAG = "homeward_index_lag_seconds"
    INDEX_SLOTS = "homeward_index_slots"
    SHARDS = "homeward_shards"
    SLOTS = "homeward_slots"
    MISSING_REPLICAS = "homeward_missing_slot_replicas"
    EMBEDDING_WORKERS = "homeward_embedding_workers"
    STORE_UP = "homeward_store_up"
    LOAD_PHOTOS = "homeward_load_photos"
    LOAD_PARTS = "homeward_load_parts"
    LOAD_WAITING = "homeward_load_waiting_photos"
    LOAD_LOADERS = "homeward_load_loaders"
    LOAD_HELD_BACK = "homeward_load_held_back"
    LOAD_STAGE_PHOTOS = "homeward_load_stage_photos"
    LOAD_STAGE_SECONDS = "homeward_load_stage_seconds"
    LOAD_FACES = "homeward_load_faces"
    LOAD_REJECTED = "homeward_load_rejected_photos"
    GPU_MEMORY = "homeward_gpu_memory_bytes"
    GPU_BUSY = "homeward_gpu_busy_ratio"


@dataclass(frozen=True, slots=True)
class Reading:
    """How something is now."""

    level: Level
    value: float
    label: str = ""  # the one word by which its kind is told apart, of a small, fixed set


Sink = Callable[[Operation], None]
Readings = Callable[[], Iterable[Reading]]

_logger = logging.getLogger(__name__)
_sinks: list[Sink] = []
_watched: list[Readings] = []


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


def watch(read: Readings) -> Callable[[], None]:
    """Have `read` called, from any thread, whenever somebody wants to know how things are, until what this
    returns is called. It must not block."""
    _watched.append(read)

    def end() -> None:
        if read in _watched:
            _watched.remove(read)

    return end


@contextmanager
def watching(read: Readings) -> Iterator[None]:
    """As `watch`, while the context lasts."""
    end = watch(read)
    try:
        yield
    finally:
        end()


def readings() -> Iterator[Reading]:
    """How everything watched is now. What cannot be read is left out."""
    for read in tuple(_watched):
        try:
            yield from tuple(read())
        except Exception as error:  # noqa: BLE001 - one part must not cost the page
            _logger.warning("%s could not be read: %s", read, type(error).__name__)


def store_failed(store: str, reason: str) -> None:
    """Tell that a store did not do what it was asked for."""
    emit(StoreFailed(f"store {store}", "UNAVAILABLE", 0.0, reason=reason, store=store))
