"""The reference search: the score function over every row. Slow, small, and the oracle of every index.

The other indexes only select: they find rows that provably hold every row of every record that
can stand in the list, and let `partial` answer over those.
"""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np

from homeward.errors import InvalidInput
from homeward.types import Candidate, CandidateList, Evidence, Float32, Query
from index import plausibility
from index.columns import Columns, hex_ids
from index.filters import admitted, check_filter
from index.merge import Partial, merge, rank
from index.score import check_templates, score


def search(query: Query, columns: Columns, *, rev: int = 0) -> CandidateList:
    """The candidate list of `query` over all rows; method "reference".

    Raises `TemplateInvalid` and `InvalidInput` on a query that makes no sense.
    """
    check_query(query, columns.dimension)
    return merge([partial(query, columns)], query, rev=rev, method="reference")


def partial(query: Query, columns: Columns) -> Partial:
    """The best candidates among these rows, which must hold all rows of their records.

    A face scores its best over the probe's templates (the first of equals is named); a record scores
    its best face, and shows its `query.evidence` best ones, whether or not each reaches `min_score`.
    """
    columns = columns.take(admitted(query, columns))
    scores = np.stack([score(columns.template, probe) for probe in query.templates])
    faces, photos, records = hex_ids(columns.face), hex_ids(columns.photo), hex_ids(columns.record)
    against = plausibility.reasons(query.facts, columns).tolist()
    probe_of, ordinals = scores.argmax(axis=0).tolist(), columns.ordinal.tolist()
    best = scores.max(axis=0).tolist()

    rows_of: defaultdict[str, list[int]] = defaultdict(list)
    for row, record in enumerate(records):
        rows_of[record].append(row)

    plausible: list[Candidate] = []
    implausible: list[Candidate] = []
    for record, rows in rows_of.items():
        speaking = [row for row in rows if not against[row]]
        reasons = 0
        if not speaking:
            speaking = rows
            for row in rows:
                reasons |= against[row]
        speaking.sort(key=lambda row: (-best[row], faces[row]))
        top = best[speaking[0]]
        if query.min_score is not None and top < query.min_score:
            continue
        evidence = tuple(
            Evidence(faces[row], photos[row], ordinals[row], best[row], probe_of[row])
            for row in speaking[: query.evidence]
        )
        candidate = Candidate(record, top, evidence, plausibility.names(reasons))
        (implausible if reasons else plausible).append(candidate)
    return Partial(
        plausible=tuple(sorted(plausible, key=rank)[: query.k]),
        implausible=tuple(sorted(implausible, key=rank)[: query.k]),
        rows=len(columns),
        records=len(rows_of),
    )


def check_query(query: Query, dimension: int) -> Float32:
    """The query's templates, (p, d) float32; raises on anything in the query that makes no sense."""
    if query.k < 1:
        raise InvalidInput("k must be at least 1", field="k")
    if query.evidence < 0:
        raise InvalidInput("evidence must not be negative", field="evidence")
    if query.min_score is not None and math.isnan(query.min_score):
        raise InvalidInput("min_score must be a number", field="min_score")
    if not len(query.templates):
        raise InvalidInput("a query needs at least one template", field="templates")
    check_filter(query)
    plausibility.check_facts(query.facts)
    return check_templates(query.templates, dimension)
