"""Exact search by Milvus itself: over-fetched until the list is certain, then scored by the one function.

Milvus ranks rows by a float32 product. Rows are fetched by falling product until k plausible records
stand above all that was not fetched, by more than the product can err; then all rows of the records seen
are read and the reference decides. When one fetch cannot hold enough rows, every row is read instead.

Milvus is not believed: each hit's product is compared with the row's true score, and the first that does
not fit sends the query to all rows. A wrong row without an error is the worst failure of a search.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from homeward.types import DAY_MAX, DAY_MIN, CandidateList, Filter, Query
from index.columns import Columns, concatenate, hex_ids
from index.merge import Partial, merge
from index.reference import check_query, partial
from index.score import scan_error, score

_MOST_ROWS = 16_384  # Milvus answers no more at once

_logger = logging.getLogger(__name__)


class Rows(Protocol):
    """What is asked of the gallery."""

    def nearest(self, query: Query, where: str, limit: int) -> list[dict[str, tuple[str, float]]]:
        """Per probe template, the best rows: face id to record id and product."""
        ...

    def matching(self, where: str) -> int:
        """How many rows the expression lets through."""
        ...

    def of_records(self, record_ids: Sequence[str]) -> Columns:
        """All rows of these records."""
        ...

    def iterate(self) -> Iterator[Columns]:
        """All rows, in batches."""
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


def search_milvus(rows: Rows, query: Query, *, rev: int) -> CandidateList:
    """The list of `query`. `rows_searched` and `records_searched` count what was scored here."""
    dimension = query.templates.shape[1] if query.templates.ndim == 2 else 0
    check_query(query, dimension)
    where = expression(query.filter)
    limit = 4 * query.k + 256
    while limit <= _MOST_ROWS:
        found = rows.nearest(query, where, limit)
        columns = rows.of_records(sorted({record for hits in found for record, _ in hits.values()}))
        if not _believable(found, columns, query):
            _logger.error("Milvus gave products that are not those of the rows it named; reading all rows")
            break
        # Fewer than asked for means all that there are: then none may have been lost.
        fewest = min(len(hits) for hits in found)
        if fewest < limit and fewest < min(limit, rows.matching(where)):
            _logger.error("Milvus found fewer rows than it counts; reading all rows")
            break
        cut = [min(product for _, product in hits.values()) for hits in found if len(hits) >= limit]
        part = partial(query, columns)
        if not cut or _certain(part, query, max(cut) + 2 * scan_error(dimension)):
            return merge([part], query, rev=rev, method="milvus")
        limit *= 4
    everything = concatenate(list(rows.iterate()), dimension)
    return merge([partial(query, everything)], query, rev=rev, method="milvus")


def _believable(found: Sequence[dict[str, tuple[str, float]]], columns: Columns, query: Query) -> bool:
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
