"""A scan of one state of the index: which rows can matter, their true scores, the parts of the lists.

Let [l, u] hold a row's true score. k different records with l >= t show that the k-th best record scores t
or more, so a row with u < t is no record's best row in the list. All other rows get their true score, ties
included, and it decides the k records: k records, not k rows. The answer is certified, not estimated.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from homeward.types import Float32, Float64, Query
from index.block_table import USED
from index.columns import Int32
from index.cut_loops import settle
from index.filter_loops import FILTERS
from index.filters import admitted
from index.lists import candidates, rows_of
from index.merge import Partial
from index.origins import FilterTables, Int64, fact_table, filter_tables
from index.probe_codes import Probes
from index.scan_loops import CHUNK, scan_chunks
from index.view import View

Runner = Callable[[Sequence[Callable[[], object]]], None]  # runs all, returns when all have ended

_ROOM = 512  # rows kept per query and thread, beside two for each wanted record


Bounded = tuple[Int64, Int64, npt.NDArray[np.uint8]]  # (n,) each: see `Device.bounded`


@dataclass(frozen=True, slots=True)
class Batch:
    """Queries that share a scan."""

    queries: Sequence[Query]
    probes: Probes
    query_of: Int32  # (p,) the query of each probe
    left_out: Sequence[Int64]  # per query: positions where records begin that it leaves out by name


class Device(Protocol):
    """Scans on an accelerator in place of the compiled loops: `index.torch_scan.TorchScan`."""

    def bounded(self, view: View, batch: Batch, tables: FilterTables) -> tuple[list[Bounded], Int64]:
        """Per query the rows that may matter: positions, where their records begin, whether facts allow
        them; and per filter that filters how many rows and records it lets through, (f, 2)."""
        ...

    def follow(self, view: View) -> None:
        """Hold this state's rows, and nothing of those that have gone."""
        ...


def scan(view: View, batch: Batch, threads: int, run: Runner, device: Device | None = None) -> list[Partial]:
    """The part of each query's list that these rows give: `index.reference.partial` of the same rows."""
    tables = filter_tables(batch.queries, view.origins)
    if device is None:
        kept, counts = _bounded(view, batch, tables, _ROOM, threads=threads, run=run)
    else:
        kept, counts = device.bounded(view, batch, tables)
    parts = []
    for number, (query, rows) in enumerate(zip(batch.queries, kept, strict=True)):
        admitted_rows, records = counts[tables.of_query[number]].tolist()
        if not tables.filters[tables.of_query[number], FILTERS]:
            admitted_rows, records = view.rows, view.records
        out = _left_out(view, query, batch.left_out[number])
        parts.append(Partial(*candidates(view, query, *rows), admitted_rows - out[0], records - out[1]))
    return parts


def _bounded(
    view: View, batch: Batch, tables: FilterTables, room: int, *, threads: int, run: Runner
) -> tuple[list[Bounded], Int64]:
    """Per query the rows that may matter: positions, where their records begin, whether facts allow them;
    and per filter how many rows and records it lets through."""
    queries, probes = batch.queries, batch.probes
    ks = np.array([query.k for query in queries], np.int64)
    space = int(min(2 * ks.max() + room, max(view.table[:, USED].sum(), 1) * len(probes.units) + 1))
    ends = np.cumsum(-(-view.table[:, USED] // CHUNK))
    counter = ctypes.c_int64(0)
    left_out = np.concatenate([np.empty(0, np.int64), *batch.left_out])
    left_out_ends = np.cumsum([0, *(len(one) for one in batch.left_out)])
    shared = np.array([[_floor(query)] * 2 for query in queries], np.float64)
    offsets = view.means @ probes.templates.astype(np.float64).T
    slack = view.reaches[:, np.newaxis] * probes.lost + probes.rounding
    # What the second step of a bound can add to the first, and the roundings of both.
    rough = view.reaches[:, np.newaxis] * probes.rough + 2 * probes.rounding
    sexes = np.ascontiguousarray(view.origins[:, 2]) if len(view.origins) else np.zeros(1, np.int32)
    slots = np.ones(1, np.uint8) if view.wanted is None else view.wanted.astype(np.uint8)
    facts = fact_table(queries)
    threads = max(1, min(threads, int(ends[-1]))) if len(ends) else 0
    kept = [_Kept.of(len(queries), space, len(tables.filters)) for _ in range(threads)]

    def work(mine: _Kept) -> Callable[[], object]:
        return lambda: scan_chunks(
            view.table,
            ends,
            ctypes.addressof(counter),
            probes.pieces,
            probes.units,
            probes.biases,
            offsets,
            slack,
            rough,
            batch.query_of,
            tables.of_query,
            tables.filters,
            tables.origins,
            sexes,
            tables.places,
            tables.photos,
            slots,
            facts,
            left_out,
            left_out_ends,
            ks,
            shared,
            mine.rows,
            mine.keys,
            mine.lower,
            mine.upper,
            mine.speaks,
            mine.used,
            mine.overflowed,
            mine.counts,
        )

    run([work(one) for one in kept])
    counts = sum((one.counts for one in kept), np.zeros((len(tables.filters), 2), np.int64))
    found = []
    for number, query in enumerate(queries):
        if any(one.overflowed[number] for one in kept):
            # So many rows lie within the bounds' width of each other, ties of copied photos for one.
            alone = _only(batch, number)
            its_tables = filter_tables([query], view.origins)
            again, _ = _bounded(view, alone, its_tables, 16 * room, threads=threads, run=run)
            found += again
        else:
            found.append(_joined(kept, number, query.k, shared[number]))
    return found, counts


@dataclass(frozen=True, slots=True)
class _Kept:
    """What one thread keeps per query (q) and filter (f)."""

    rows: Int64  # (q, room)
    keys: Int64
    lower: Float64
    upper: Float64
    speaks: npt.NDArray[np.uint8]
    used: Int64  # (q,)
    overflowed: npt.NDArray[np.uint8]
    counts: Int64  # (f, 2)

    @classmethod
    def of(cls, queries: int, room: int, filters: int) -> _Kept:
        shape = (queries, room)
        return cls(
            np.empty(shape, np.int64),
            np.empty(shape, np.int64),
            np.empty(shape, np.float64),
            np.empty(shape, np.float64),
            np.empty(shape, np.uint8),
            np.zeros(queries, np.int64),
            np.zeros(queries, np.uint8),
            np.zeros((filters, 2), np.int64),
        )


def _joined(kept: Sequence[_Kept], query: int, k: int, cuts: Float64) -> Bounded:
    """The threads' rows of one query under the cuts of all of them."""

    def joined(name: str) -> Any:
        return np.concatenate([getattr(one, name)[query, : int(one.used[query])] for one in kept])

    if not kept:
        return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.uint8)
    rows, keys, speaks = joined("rows"), joined("keys"), joined("speaks")
    lower, upper = joined("lower"), joined("upper")
    left = settle(len(rows), rows, keys, lower, upper, speaks, k, cuts.copy())
    return rows[:left], keys[:left], speaks[:left]


def _left_out(view: View, query: Query, keys: Int64) -> tuple[int, int]:
    """How many rows and records the filter admits of those that the query leaves out by name."""
    if not keys.size:
        return 0, 0
    columns, owners = rows_of(view, keys)
    passes = admitted(replace(query, without_records=frozenset()), columns)
    return int(passes.sum()), len(np.unique(owners[passes]))


def _only(batch: Batch, number: int) -> Batch:
    of_query = np.flatnonzero(batch.query_of == number)
    probes = batch.probes
    alone = Probes(
        probes.templates[of_query],
        probes.pieces[of_query],
        probes.units[of_query],
        probes.biases[of_query],
        probes.lost[of_query],
        probes.rough[of_query],
        probes.rounding,
    )
    return Batch([batch.queries[number]], alone, np.zeros(len(of_query), np.int32), [batch.left_out[number]])


def _floor(query: Query) -> float:
    return -np.inf if query.min_score is None else query.min_score


def stacked(queries: Sequence[Query]) -> tuple[Float32, Int32]:
    """All probes of the queries, and whose each is."""
    templates = np.concatenate([query.templates for query in queries])
    return templates, np.repeat(
        np.arange(len(queries), dtype=np.int32), [len(query.templates) for query in queries]
    )
