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
from pymilvus import MilvusClient

from homeward.types import CandidateList, Filter, Query
from index.columns import Columns, concatenate, hex_ids
from index.merge import Partial, merge
from index.reference import check_query, partial
from index.score import scan_error, score

_MOST_ROWS = 16_384  # Milvus answers no more at once

_logger = logging.getLogger(__name__)


class Rows(Protocol):
    """What is read back from the gallery."""

    def of_records(self, record_ids: Sequence[str]) -> Columns:
        """All rows of these records."""
        ...

    def iterate(self) -> Iterator[Columns]:
        """All rows, in batches."""
        ...


def expression(wanted: Filter) -> str:
    """A Milvus expression that every row the filter passes passes, of integers alone. Ranges and whatever
    may be unknown are left to the reference."""
    parts = [
        f"{name} in {sorted(codes)}"
        for name, codes in (("gallery", wanted.galleries), ("agency", wanted.agencies))
        if codes
    ]
    return " and ".join(parts)


def search_milvus(
    client: MilvusClient, collection: str, rows: Rows, query: Query, *, rev: int
) -> CandidateList:
    """The list of `query`. `rows_searched` counts the rows that were scored here."""
    dimension = query.templates.shape[1]
    check_query(query, dimension)
    limit = 4 * query.k + 256
    while limit <= _MOST_ROWS:
        answers = client.search(
            collection,
            data=[template.tolist() for template in query.templates],
            anns_field="template",
            filter=expression(query.filter),
            limit=limit,
            output_fields=["face_id", "record_id"],
            search_params={"metric_type": "IP"},
            consistency_level="Strong",
        )
        products = [
            {str(hit["entity"]["face_id"]): float(hit["distance"]) for hit in hits} for hits in answers
        ]
        columns = rows.of_records(sorted({hit["entity"]["record_id"] for hits in answers for hit in hits}))
        if not _believable(products, columns, query):
            _logger.error("Milvus gave products that are not those of the rows it named; reading all rows")
            break
        least = max((min(found.values()) for found in products if len(found) >= limit), default=None)
        part = partial(query, columns)
        if least is None or _certain(part, query, least + 2 * scan_error(dimension)):
            return merge([part], query, rev=rev, method="milvus")
        limit *= 4
    everything = concatenate(list(rows.iterate()), dimension)
    return merge([partial(query, everything)], query, rev=rev, method="milvus")


def _believable(products: Sequence[dict[str, float]], columns: Columns, query: Query) -> bool:
    """Whether each product lies as near to the row's score as float32 arithmetic explains."""
    place = {face: row for row, face in enumerate(hex_ids(columns.face))}
    for found, probe in zip(products, query.templates, strict=True):
        if not all(face in place for face in found):
            return False
        true = score(columns.template, probe)[[place[face] for face in found]]
        if np.any(np.abs(true - np.array(list(found.values()))) > scan_error(columns.dimension)):
            return False
    return True


def _certain(part: Partial, query: Query, unseen: float) -> bool:
    """Whether nothing that was not fetched can enter the list, which lies at `unseen` or below."""
    if query.min_score is not None and query.min_score > unseen:
        return True
    return len(part.plausible) >= query.k and part.plausible[query.k - 1].score > unseen
