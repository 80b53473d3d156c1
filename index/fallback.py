"""Exact search by Milvus itself: over-fetched until the list is certain, then scored by the one function.

Milvus ranks rows by a float32 product. Rows are fetched by falling product until k plausible records
stand above all that was not fetched, by more than the product can err; then all rows of the records seen
are read and the reference decides. When one fetch cannot hold enough rows, every row is read instead.

Milvus is not believed: each hit's product is compared with the row's true score, and the first that does
not fit sends the query to all rows. A wrong row without an error is the worst failure of a search.

Where some slots alone are asked for, Milvus filters by them if they are few; else its hits of other slots are
passed over, and more are fetched to begin with.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np

from homeward.types import DAY_MAX, DAY_MIN, CandidateList, Filter, Query
from index.columns import Bool, Columns, concatenate, empty, hex_ids
from index.merge import Partial, merge
from index.placement import SLOT_BITS, slot_of, slots_of
from index.reference import check_query, partial
from index.score import scan_error, score

_MOST_ROWS = 16_384  # Milvus answers no more at once
_SLOT_RUNS = 32  # of one expression

Exists = Callable[[Sequence[str]], set[str]]  # which of these faces the catalogue has
_Hits = dict[str, tuple[str, float]]  # face id to record id and product

_logger = logging.getLogger(__name__)


class Rows(Protocol):
    """What is asked of the gallery."""

    def nearest(self, query: Query, where: str, limit: int) -> list[_Hits]:
        """Per probe template, the best rows: face id to record id and product."""
        ...

    def matching(self, where: str) -> int:
        """How many rows the expression lets through."""
        ...

    def of_records(self, record_ids: Sequence[str]) -> Columns:
        """All rows of these records."""
        ...

    def iterate(self, *, where: str = "") -> Iterator[Columns]:
        """All rows that the expression lets through, in batches."""
        ...


def expression(wanted: Filter) -> str:
    """A Milvus expression, of integers alone, that every row the filter passes passes.

    Strictness is left to the reference, which filters again.
    """
    parts = [
        f"{name} in {sorted(codes)}"
        for name, codes in (
            ("gallery", wanted.galleries),
            ("agency", wanted.agencies),
            ("sex", wanted.sexes | {0} if wanted.sexes else wanted.sexes),
            ("place", wanted.places | {0} if wanted.places else wanted.places),
        )
        if codes
    ]
    for name, span in (("born", wanted.born), ("event", wanted.event)):
        if span is not None and span[0] > DAY_MIN:
            parts.append(f"{name}_to >= {span[0]}")
        if span is not None and span[1] < DAY_MAX:
            parts.append(f"{name}_from <= {span[1]}")
    return " and ".join(parts)


def slot_expression(slots: Bool) -> str:
    """A Milvus expression that exactly the records of these slots (SLOTS,) pass; empty, which all pass, when
    it would be too long."""
    edges = np.flatnonzero(np.diff(slots.astype(np.int8), prepend=0, append=0)).tolist()
    if len(edges) // 2 > _SLOT_RUNS:
        return ""
    digits = SLOT_BITS // 4
    # Ids are lower-case hex: they are ordered as their first digits, and "g" stands behind all of them.
    bounds = [f"{edge:0{digits}x}" if edge < len(slots) else "g" for edge in edges]
    pairs = zip(bounds[::2], bounds[1::2], strict=True)
    return "(" + " or ".join(f'(record_id >= "{low}" and record_id < "{high}")' for low, high in pairs) + ")"


def search_milvus(rows: Rows, query: Query, *, rev: int) -> CandidateList:
    """The list of `query`. `rows_searched` and `records_searched` count what was scored here."""
    return merge([search_slots(rows, query)], query, rev=rev, method="milvus")


def search_slots(
    rows: Rows, query: Query, slots: Bool | None = None, exists: Exists | None = None
) -> Partial:
    """The part of `query` that the rows of these slots (SLOTS,) give, or of all.

    Rows of faces that do not exist are as if not there. Rows and records are counted of what was scored
    here: they may be less than what the filter admits.
    """
    dimension = query.templates.shape[1] if query.templates.ndim == 2 else 0
    check_query(query, dimension)
    if slots is not None and slots.all():
        slots = None
    if slots is not None and not slots.any():
        return partial(query, empty(dimension))
    within = "" if slots is None else slot_expression(slots)
    where = " and ".join(part for part in (expression(query.filter), within) if part)
    limit = 4 * query.k + 256
    if slots is not None and not within and limit <= _MOST_ROWS:
        limit = min(_MOST_ROWS, int(limit / slots.mean()))
    while limit <= _MOST_ROWS:
        found = rows.nearest(query, where, limit)
        mine = [_hits_of(hits, slots) for hits in found]
        columns = rows.of_records(sorted({record for hits in mine for record, _ in hits.values()}))
        if not _believable(mine, columns, query):
            _logger.error("Milvus gave products that are not those of the rows it named; reading all rows")
            break
        # Fewer than asked for means all that there are: then none may have been lost.
        fewest = min(len(hits) for hits in found)
        if fewest < limit and fewest < min(limit, rows.matching(where)):
            _logger.error("Milvus found fewer rows than it counts; reading all rows")
            break
        # What was not fetched lies no higher than the lowest of the hits that were checked.
        cut = [
            min((product for _, product in checked.values()), default=np.inf)
            for hits, checked in zip(found, mine, strict=True)
            if len(hits) >= limit
        ]
        part = partial(query, _kept(columns, slots, exists))
        if not cut or _certain(part, query, max(cut) + 2 * scan_error(dimension)):
            return part
        limit *= 4
    everything = [_kept(columns, slots, exists) for columns in rows.iterate(where=within)]
    return partial(query, concatenate(everything, dimension))


def _hits_of(hits: _Hits, slots: Bool | None) -> _Hits:
    if slots is None:
        return hits
    return {face: (record, product) for face, (record, product) in hits.items() if slots[slot_of(record)]}


def _kept(columns: Columns, slots: Bool | None, exists: Exists | None) -> Columns:
    """The rows of these slots whose faces exist."""
    if slots is not None:
        columns = columns.take(slots[slots_of(columns.record)])
    if exists is not None and len(columns):
        faces = hex_ids(columns.face)
        there = exists(faces)
        columns = columns.take(np.array([face in there for face in faces], np.bool_))
    return columns


def _believable(found: Sequence[_Hits], columns: Columns, query: Query) -> bool:
    """Whether each product lies as near to the row's score as float32 arithmetic explains."""
    place = {face: row for row, face in enumerate(hex_ids(columns.face))}
    for hits, probe in zip(found, query.templates, strict=True):
        if not all(face in place for face in hits):
            return False
        true = score(columns.template, probe)[[place[face] for face in hits]]
        told = np.array([product for _, product in hits.values()])
        if np.any(np.abs(true - told) > scan_error(columns.dimension)):
            return False
    return True


def _certain(part: Partial, query: Query, unseen: float) -> bool:
    """Whether nothing that was not fetched can enter the list, which lies at `unseen` or below."""
    if query.min_score is not None and query.min_score > unseen:
        return True
    return len(part.plausible) >= query.k and part.plausible[query.k - 1].score > unseen
