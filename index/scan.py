"""Finding the records that can stand in a list, by a float32 matrix product with an error bound.

Let s be a row's approximate score and e the bound of `scan_error`: its true score lies in
[s - e, s + e]. Let t be the k-th best record by approximate score: k records truly score t - e or
more, so a row with s + e < t - e cannot be the best row of a record in the list. Every other row is
scored by the one function, ties included, which decides the k records: k records, not k rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from homeward.types import CandidateList, Float32, Query
from index import plausibility
from index.columns import Bool, Index, Int32
from index.filters import admits_all, admitted
from index.merge import merge
from index.reference import partial
from index.score import scan_error, score
from index.snapshot import Segment, Snapshot, gather

_PROBES_AT_ONCE = 256  # lines of the product with one segment held in memory
_BELOW_ALL = -2.0  # no score is this low, and -inf is lower


def scan(snapshot: Snapshot, queries: Sequence[Query], probes: Sequence[Float32]) -> list[CandidateList]:
    """The certified list of each query over one snapshot; `probes` are their checked templates (p, d)."""
    answers: list[CandidateList] = []
    start = 0
    while start < len(queries):
        stop, held = start, 0
        while stop < len(queries) and (stop == start or held + len(probes[stop]) <= _PROBES_AT_ONCE):
            held += len(probes[stop])
            stop += 1
        answers += _scan_together(snapshot, queries[start:stop], probes[start:stop])
        start = stop
    return answers


def _scan_together(
    snapshot: Snapshot, queries: Sequence[Query], probes: Sequence[Float32]
) -> list[CandidateList]:
    admissions = _admissions(snapshot, queries)
    selections = [
        (Selection(query, snapshot.dimension), Selection(query, snapshot.dimension)) for query in queries
    ]
    stacked = np.concatenate(probes)
    ends = np.cumsum([len(probe) for probe in probes])
    for number, segment in enumerate(snapshot.segments):
        product = stacked @ segment.columns.template.T  # (probes, n)
        for admission, probe, end, (plausible, implausible) in zip(
            admissions, probes, ends, selections, strict=True
        ):
            lines = product[end - len(probe) : end]
            approximate = lines[0] if len(lines) == 1 else lines.max(axis=0)
            plausible.offer(segment, approximate, admission.plausible[number])
            if admission.implausible:
                implausible.offer(segment, approximate, admission.implausible[number])
    chosen = [np.concatenate([one.codes() for one in pair]) for pair in selections]
    columns, codes = snapshot.rows_of(np.concatenate(chosen))
    answers = []
    for query, admission, mine in zip(queries, admissions, chosen, strict=True):
        part = partial(query, columns.take(np.isin(codes, mine)))
        part = replace(part, rows=admission.rows, records=admission.records)
        answers.append(merge([part], query, rev=snapshot.rev, method="exact"))
    return answers


def _admissions(snapshot: Snapshot, queries: Sequence[Query]) -> list[Admission]:
    """As `admit` of each query; queries that ask for the same rows share the work."""
    known: dict[object, Admission] = {}
    found = []
    for query in queries:
        key = (query.filter, query.facts, query.without_records, query.without_photos)
        if key not in known:
            known[key] = admit(query, snapshot)
        found.append(known[key])
    return found


@dataclass(frozen=True, slots=True)
class Admission:
    """Which rows of each segment a query may answer with; None means every row of the segment."""

    plausible: tuple[Bool | None, ...]
    implausible: tuple[Bool, ...]  # admitted rows of records without a plausible row; empty: no facts
    rows: int
    records: int


def admit(query: Query, snapshot: Snapshot) -> Admission:
    """Apply filters and facts to every live row."""
    if admits_all(query) and plausibility.excludes_nobody(query.facts):
        lives = tuple(segment.live for segment in snapshot.segments)
        return Admission(lives, (), snapshot.rows, snapshot.records)
    admitted_rows: list[Bool] = []
    present = np.zeros(snapshot.codes, dtype=np.bool_)
    for segment in snapshot.segments:
        passes = admitted(query, segment.columns)
        if segment.live is not None:
            passes &= segment.live
        present[segment.codes[passes]] = True
        admitted_rows.append(passes)
    rows, records = sum(int(np.count_nonzero(one)) for one in admitted_rows), int(np.count_nonzero(present))
    if plausibility.excludes_nobody(query.facts):
        return Admission(tuple(admitted_rows), (), rows, records)
    allowed: list[Bool] = []
    spoken_for = np.zeros(snapshot.codes, dtype=np.bool_)
    for segment, passes in zip(snapshot.segments, admitted_rows, strict=True):
        plausible = passes & (plausibility.reasons(query.facts, segment.columns) == 0)
        spoken_for[segment.codes[plausible]] = True
        allowed.append(plausible)
    alone = tuple(
        passes & ~spoken_for[segment.codes]
        for segment, passes in zip(snapshot.segments, admitted_rows, strict=True)
    )
    return Admission(tuple(allowed), alone, rows, records)


class Selection:
    """The rows that may be the best of one of the k best records, narrowed as segments are scanned."""

    def __init__(self, query: Query, dimension: int) -> None:
        self._query = query
        self._error = scan_error(dimension)
        self._dimension = dimension
        self._kept: list[tuple[Segment, Index, Float32]] = []
        self._count = 0
        self._settled = 0
        least = query.min_score
        self._cut = _round_down(_BELOW_ALL if least is None else max(_BELOW_ALL, least - self._error))

    def offer(self, segment: Segment, approximate: Float32, allowed: Bool | None) -> None:
        """Take over the segment's rows that may matter. `approximate` is (n,), best over the templates."""
        rows = np.flatnonzero(approximate >= self._cut)
        if allowed is not None:
            rows = rows[allowed[rows]]
        if not rows.size:
            return
        scores = approximate[rows]
        if rows.size > 4 * self._query.k + 64:
            self._raise(scores, segment.codes[rows])
            above = scores >= self._cut
            rows, scores = rows[above], scores[above]
        self._kept.append((segment, rows, scores))
        self._count += rows.size
        if self._count - self._settled > 4 * self._query.k + 64:
            self._settle()

    def codes(self) -> Int32:
        """The k records (fewer if there are fewer) that lead by true score, then record id."""
        self._settle()
        columns, codes = gather([(segment, rows) for segment, rows, _ in self._kept], self._dimension)
        if not codes.size:
            return codes
        true = np.max([score(columns.template, probe) for probe in self._query.templates], axis=0)
        order = np.lexsort((columns.record[:, 1], columns.record[:, 0], -true))
        ranked = codes[order]
        _, first = np.unique(ranked, return_index=True)
        return ranked[np.sort(first)[: self._query.k]]

    def _settle(self) -> None:
        """Raise the cut by all rows kept so far, and drop those below."""
        if not self._kept:
            return
        self._raise(
            np.concatenate([scores for _, _, scores in self._kept]),
            np.concatenate([segment.codes[rows] for segment, rows, _ in self._kept]),
        )
        narrowed = []
        for segment, rows, scores in self._kept:
            above = scores >= self._cut
            if above.any():
                narrowed.append((segment, rows[above], scores[above]))
        self._kept = narrowed
        self._count = self._settled = sum(len(rows) for _, rows, _ in narrowed)

    def _raise(self, scores: Float32, codes: Int32) -> None:
        kth = kth_record(scores, codes, self._query.k)
        if kth is not None:
            self._cut = max(self._cut, _round_down(kth - 2.0 * self._error))


def kth_record(scores: npt.NDArray[np.floating], codes: Int32, k: int) -> float | None:
    """The score of the k-th best record, each taken at its best row; None if there are fewer."""
    few = 4 * k + 64
    if len(scores) > few:
        # The best rows tell, if they are of k records; else one record fills them and all must speak.
        head = np.argpartition(scores, len(scores) - few)[-few:]
        kth = kth_record(scores[head], codes[head], k)
        if kth is not None:
            return kth
    order = np.argsort(-scores, kind="stable")
    _, first = np.unique(codes[order], return_index=True)
    if len(first) < k:
        return None
    return float(scores[order[np.partition(first, k - 1)[k - 1]]])


def _round_down(value: float) -> np.float32:
    """The nearest float32 that is surely not above: a comparison in float32 must not lose a row."""
    return np.float32(np.nextafter(np.float32(value), np.float32(-np.inf)))
