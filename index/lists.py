"""The candidates of a part from the rows that a scan has kept: which records lead, and all of their rows.

What `index.reference.partial` says of a whole part, ranked by compiled loops: once the scan is done, this
is what a search of a thousand candidates, or a batch of a thousand searches, spends its time on.
"""

from __future__ import annotations

import numpy as np

from homeward.types import Candidate, Evidence, Float32, Query
from index import plausibility
from index.columns import INTEGER_COLUMNS, Columns, Index, hex_ids
from index.filters import admits_all, admitted
from index.list_loops import leading_records, ranked_rows
from index.row_loops import rows_of_records
from index.view import View

_Candidates = tuple[Candidate, ...]


def candidates(
    view: View, query: Query, rows: Index, keys: Index, speaks: plausibility.Reasons
) -> tuple[_Candidates, _Candidates]:
    """The best k whom facts allow and the best k whom they exclude, each by score, then record id.

    `rows` (n,) are the positions of all rows that may be a listed record's best, `keys` where their records
    begin, `speaks` whether facts allow each."""
    # Arrays of another kind, read-only ones too, would be compiled for, in the middle of a search.
    probes = np.require(query.templates, np.float32, ("C", "W"))
    leading = np.empty(len(rows), np.int64)
    count = leading_records(
        view.table,
        view.stride,
        len(INTEGER_COLUMNS),
        rows,
        keys,
        speaks,
        probes,
        min(query.k, len(rows)),
        leading,
    )
    columns, owners = rows_of(view, leading[:count])
    if not admits_all(query):
        passes = admitted(query, columns)
        columns, owners = columns.take(passes), owners[passes]
    return _ranked(query, probes, columns, owners)


def rows_of(view: View, keys: Index) -> tuple[Columns, Index]:
    """All live rows of the records that begin at these positions, and each row's index into `keys`."""
    found, owners = np.empty(4 * len(keys) + 64, np.int64), np.empty(4 * len(keys) + 64, np.int64)
    count = rows_of_records(view.table, keys, found, owners)
    if count > len(found):
        found, owners = np.empty(count, np.int64), np.empty(count, np.int64)
        rows_of_records(view.table, keys, found, owners)
    return view.rows_at(found[:count]), owners[:count]


def _ranked(
    query: Query, probes: Float32, columns: Columns, owners: Index
) -> tuple[_Candidates, _Candidates]:
    count = len(columns)
    if not count:
        return (), ()
    best = np.empty(count, np.float64)
    probe_of, shown, heads, ends = np.empty((4, count), np.int64)
    reasons = np.empty(count, np.uint8)
    allowed, excluded = ranked_rows(
        np.concatenate((columns.face, columns.record), axis=1),
        columns.template,
        owners,
        plausibility.reasons(query.facts, columns),
        probes,
        min(query.k, count),
        min(query.evidence, count),
        -np.inf if query.min_score is None else float(query.min_score),
        best,
        probe_of,
        shown,
        heads,
        ends,
        reasons,
    )
    made = allowed + excluded
    heads, ends = heads[:made], ends[:made].tolist()
    shown = shown[: ends[-1] if made else 0]
    evidence = [
        Evidence(*one)
        for one in zip(
            hex_ids(columns.face[shown]),
            hex_ids(columns.photo[shown]),
            columns.ordinal[shown].tolist(),
            best[shown].tolist(),
            probe_of[shown].tolist(),
            strict=True,
        )
    ]
    found = tuple(
        Candidate(record, top, tuple(evidence[begin:end]), plausibility.names(bits))
        for record, top, begin, end, bits in zip(
            hex_ids(columns.record[heads]),
            best[heads].tolist(),
            [0, *ends][:made],
            ends,
            reasons[:made].tolist(),
            strict=True,
        )
    )
    return found[:allowed], found[allowed:]
