"""Answers that are not the reference's: how to see one again, and in how few rows."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np

from homeward.types import CandidateList, FaceRow, Query
from index import reference
from index.columns import Columns, from_rows
from index.filters import admits_all, admitted
from index.merge import merge
from index.score import score
from index.shard import Shard


@dataclass(frozen=True, slots=True)
class Difference:
    """An answer that is not the reference's, and how to see it again."""

    seed: int
    step: int
    batch: int
    shards: int
    rows: int
    query: str
    found: str
    wanted: str
    smallest: str  # what a new shard of few rows does

    def __str__(self) -> str:
        return (
            f"seed {self.seed}, step {self.step}, batch of {self.batch}, {self.shards} shards, {self.rows} "
            f"rows\n  query  {self.query}\n  found  {self.found}\n  wanted {self.wanted}\n  {self.smallest}"
        )


class Differs(Exception):
    """Raised with three texts: what was found, what was wanted, and the smallest case."""


def wanted_answer(query: Query, columns: Columns, rev: int) -> CandidateList:
    """What an exact index that holds these rows must say."""
    return replace(reference.search(query, columns, rev=rev), method="exact")


def expected(query: Query, columns: Columns) -> CandidateList:
    """`index.reference.search` without facts or threshold, of a gallery whose records lie together.

    All rows are scored by the one function; candidates are made of the records that reach the k-th best.
    """
    if not admits_all(query):
        columns = columns.take(admitted(query, columns))
    starts = np.flatnonzero(np.append(True, (columns.record[1:] != columns.record[:-1]).any(axis=1)))
    if not len(columns):
        starts = starts[:0]
    best = np.max([score(columns.template, probe) for probe in query.templates], axis=0)
    of_records = np.maximum.reduceat(best, starts) if starts.size else best
    if len(starts) > query.k:
        reach = np.partition(of_records, len(starts) - query.k)[len(starts) - query.k]
        sizes = np.diff(np.append(starts, len(columns)))
        some = columns.take(np.repeat(of_records >= reach, sizes))
    else:
        some = columns
    part = replace(reference.partial(query, some), rows=len(columns), records=len(starts))
    return merge([part], query, rev=0, method="exact")


def smallest_case(query: Query, rows: Sequence[FaceRow], dimension: int) -> str:
    """The fewest rows found for which a new shard still answers the query wrongly, by their faces."""

    def differs(some: Sequence[FaceRow]) -> bool:
        with closing(Shard(dimension)) as shard:
            columns = from_rows(some, dimension)
            shard.apply(upserts=columns)
            return shard.search(query) != wanted_answer(query, columns, 0)

    if not differs(rows):
        return "a new shard of the same rows answers rightly: the history matters, or the slots asked"
    left = list(rows)
    step = max(1, len(left) // 2)
    while step:
        at = 0
        while at < len(left):
            fewer = left[:at] + left[at + step :]
            if differs(fewer):
                left = fewer
            else:
                at += step
        step //= 2
    return f"smallest: a new shard of {len(left)} rows, faces {[row.face_id for row in left]}"
