"""What an index in this process's memory holds, for metrics."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping

from homeward.telemetry import Level, Reading
from index.columns import Bool
from index.shard import Shard


def index_readings(index: Shard, states: Mapping[str, Bool], confirmed_at: float) -> Iterator[Reading]:
    """Rows and slots by state, each (SLOTS,); `confirmed_at`: monotonic seconds of the last moment whose
    changes are all in it, before the first -inf."""
    rows = index.slot_rows
    for state, slots in states.items():
        yield Reading(Level.INDEX_SLOTS, int(slots.sum()), state)
        yield Reading(Level.INDEX_ROWS, int(rows[slots].sum()), state)
    yield Reading(Level.INDEX_RECORDS, index.records)
    yield Reading(Level.INDEX_REV, index.rev)
    if math.isfinite(confirmed_at):
        yield Reading(Level.INDEX_LAG, max(0.0, time.monotonic() - confirmed_at))
