"""Whether answers that came over gRPC are the reference's, among a million rows."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from benchmarks.serve_clients import K
from homeward.types import CandidateList, Float32, Query
from homeward.v1 import search_pb2
from index import reference
from index.columns import Columns
from index.score import scan_error

_NEAREST = 2000  # rows of whose records the reference is asked; checked to be enough


def says(answer: search_pb2.SearchResponse, right: CandidateList) -> bool:
    """Whether the answer has these records, in this order, with the same scores to the bit and the same
    evidence."""
    wanted = [
        (one.record_id, one.score, [(each.face_id, each.score) for each in one.evidence])
        for one in right.candidates
    ]
    found = [
        (
            one.record_id,
            one.comparison_score,
            [(each.face.face_id, each.comparison_score) for each in one.evidence],
        )
        for one in answer.lists[0].candidates
    ]
    return found == wanted


class Truth:
    """The reference over given rows, which hold all of their records' rows."""

    def __init__(self, columns: Columns) -> None:
        self._columns = columns
        # Rows of one record have one number.
        self._record_of = np.unique(columns.record, axis=0, return_inverse=True)[1].reshape(-1)
        self.records = int(self._record_of.max()) + 1

    def differs(self, template: Float32, answer: search_pb2.SearchResponse) -> bool:
        """Whether the answer has other records, another order, other scores by a bit, other evidence or
        other counts than the reference."""
        counted = (answer.account.rows, answer.account.records)
        return not says(answer, self._list(template)) or counted != (len(self._columns), self.records)

    def differences(
        self, templates: Float32, answers: Iterable[tuple[int, search_pb2.SearchResponse]]
    ) -> int:
        """How many of the answers differ; each has the number of its template, counted on around."""
        return sum(self.differs(templates[number % len(templates)], answer) for number, answer in answers)

    def _list(self, template: Float32) -> CandidateList:
        """`reference.search` of the records of the nearest rows. No other record can stand in the list: its
        rows' products, and how far these are from their scores at most, are below the list's last score."""
        query = Query(templates=template[np.newaxis], k=K)
        products = self._columns.template @ template
        nearest = np.argpartition(-products, min(_NEAREST, len(products) - 1))[:_NEAREST]
        some = np.isin(self._record_of, self._record_of[nearest])
        found = reference.search(query, self._columns.take(some))
        left = products[~some]
        reach = float(left.max()) + scan_error(self._columns.dimension) if left.size else -np.inf
        if len(found.candidates) < K or reach >= found.candidates[-1].score:
            return reference.search(query, self._columns)
        return found
