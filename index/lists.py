"""A part's candidates from all rows of the records that can stand in it, as arrays as far as possible.

What `index.reference.partial` says, without a step per row: once the scan is done, this is what a search of
a thousand candidates, or a batch of a thousand searches, spends its time on.
"""

from __future__ import annotations

import numpy as np

from homeward.types import Candidate, Evidence, Query
from index import plausibility
from index.columns import Bool, Columns, Index, hex_ids
from index.filters import admits_all, admitted
from index.merge import Partial
from index.score import score


def part_of(query: Query, columns: Columns, owners: Index) -> Partial:
    """As `index.reference.partial` of these rows, which are all rows of their records, a record's side by
    side; `owners` (n,) are different numbers for different records, rising. `rows` and `records` count
    what the filter admits of these rows alone."""
    if not admits_all(query):
        passes = admitted(query, columns)
        columns, owners = columns.take(passes), owners[passes]
    if not len(columns):
        return Partial((), (), 0, 0)
    scores = np.stack([score(columns.template, probe) for probe in query.templates])
    probe_of, best = scores.argmax(axis=0), scores.max(axis=0)
    against = plausibility.reasons(query.facts, columns)
    firsts = _changes(owners)
    begins = np.flatnonzero(firsts)
    record = np.cumsum(firsts) - 1  # (n,) number of the row's record
    allowed = np.logical_or.reduceat(against == 0, begins)
    reasons = np.where(allowed, 0, np.bitwise_or.reduceat(against, begins))
    speaks = (against == 0) | ~allowed[record]
    rows = np.flatnonzero(speaks)
    order = rows[np.lexsort((columns.face[rows, 1], columns.face[rows, 0], -best[rows], record[rows]))]
    heads = order[_changes(record[order])]  # (records,) each one's best row
    ids = columns.record[heads]
    ranked = np.lexsort((ids[:, 1], ids[:, 0], -best[heads]))
    if query.min_score is not None:
        ranked = ranked[best[heads[ranked]] >= query.min_score]
    starts = np.searchsorted(record[order], np.arange(len(heads)))
    ends = np.append(starts[1:], len(order))
    made: dict[bool, list[Candidate]] = {}
    for kind in (True, False):
        chosen = ranked[allowed[ranked] == kind][: query.k]
        shown = [order[starts[one] : min(ends[one], starts[one] + query.evidence)] for one in chosen]
        made[kind] = _candidates(
            chosen, shown, columns, heads=heads, best=best, probe_of=probe_of, reasons=reasons
        )
    return Partial(tuple(made[True]), tuple(made[False]), len(columns), len(begins))


def _changes(numbers: Index) -> Bool:
    """(n,) whether each differs from the one before; the first does."""
    found = np.ones(len(numbers), np.bool_)
    np.not_equal(numbers[1:], numbers[:-1], out=found[1:])
    return found


def _candidates(
    chosen: Index,
    shown: list[Index],
    columns: Columns,
    *,
    heads: Index,
    best: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    probe_of: Index,
    reasons: Index,
) -> list[Candidate]:
    if not len(chosen):
        return []
    rows = np.concatenate(shown)
    evidence = [
        Evidence(*one)
        for one in zip(
            hex_ids(columns.face[rows]),
            hex_ids(columns.photo[rows]),
            columns.ordinal[rows].tolist(),
            best[rows].tolist(),
            probe_of[rows].tolist(),
            strict=True,
        )
    ]
    ends = np.cumsum([len(one) for one in shown]).tolist()
    return [
        Candidate(record, top, tuple(evidence[end - len(own) : end]), plausibility.names(bits))
        for record, top, own, end, bits in zip(
            hex_ids(columns.record[heads[chosen]]),
            best[heads[chosen]].tolist(),
            shown,
            ends,
            reasons[chosen].tolist(),
            strict=True,
        )
    ]
