"""From the parts' best candidates to one candidate list.

A part is what one set of rows holding all rows of its records (a whole gallery, a slot, a shard)
can say of a query. Records never span parts, so merging is sorting.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from homeward.types import Candidate, CandidateList, Implausible, Query


@dataclass(frozen=True, slots=True)
class Partial:
    """The best of one part. Both tuples: score descending, then record id; at most k each."""

    plausible: tuple[Candidate, ...]
    implausible: tuple[Candidate, ...]  # records of which facts exclude every admitted row
    rows: int  # admitted by the filters
    records: int  # with an admitted row


def rank(candidate: Candidate) -> tuple[float, str]:
    """Sorting key of candidates: score descending, then record id."""
    return (-candidate.score, candidate.record_id)


def merge(parts: Sequence[Partial], query: Query, *, rev: int, method: str) -> CandidateList:
    """The list of `query` over all parts.

    `excluded` counts the implausible records that would stand in the list if they were included;
    one with two reasons counts under both.
    """
    plausible = sorted((one for part in parts for one in part.plausible), key=rank)[: query.k]
    implausible = [one for part in parts for one in part.implausible]
    including = sorted([*plausible, *implausible], key=rank)[: query.k]
    excluded: dict[Implausible, int] = {}
    if not query.include_implausible:
        for candidate in including:
            for reason in candidate.implausible:
                excluded[reason] = excluded.get(reason, 0) + 1
    return CandidateList(
        candidates=tuple(including if query.include_implausible else plausible),
        excluded=excluded,
        rows_searched=sum(part.rows for part in parts),
        records_searched=sum(part.records for part in parts),
        rev=rev,
        method=method,
    )
