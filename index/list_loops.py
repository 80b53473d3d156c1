"""Compiled loops that rank: which records lead, and in which order their rows speak.

Orders are by lines of four unsigned words, the first that differs decides. A score is a word that falls as
it rises, so that the best come first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import uint64

from index.block_table import ROWS
from index.compiled import compiled
from index.kernel import array_at, at_address
from index.row_loops import best_score, true_scores

_WORDS = 4
_SIGN = np.uint64(1 << 63)


@compiled
def falling(score: float) -> Any:  # pragma: no cover - compiled
    """A word that is smaller for a larger score and the same for the same; -0 and 0 are the same score."""
    room = np.empty(1, np.float64)
    room[0] = score + 0.0
    word = room.view(np.uint64)[0]
    return word if word & _SIGN else ~(word | _SIGN)


@compiled
def line_order(lines: Any, count: int) -> Any:  # pragma: no cover - compiled
    """(count,) the order that sorts the first lines of (n, 4); equal ones by their number. By the method of
    `cut_loops.ascending`."""
    order = np.arange(count)
    gap = 1
    while gap < count:
        gap = gap * 9 // 4 + 1
    while gap > 1:
        gap = 1 if gap < 4 else gap * 4 // 9
        for start in range(gap, count):
            one = order[start]
            at = start
            while at >= gap:
                other = order[at - gap]
                word = 0
                while word < _WORDS and lines[other, word] == lines[one, word]:
                    word += 1
                if lines[other, word] < lines[one, word] if word < _WORDS else other < one:
                    break
                order[at] = other
                at -= gap
            order[at] = one
    return order


@compiled
def leading_records(
    blocks: Any, stride: int, columns: int, rows: Any, keys: Any, speaks: Any, probes: Any, k: int, found: Any
) -> int:  # pragma: no cover - compiled
    """Where the k records begin that lead among these rows by true score, then record id, of those that facts
    allow (`speaks`), then as many of the others. `keys`: where each row's record begins; `columns`: numbers
    before a row's template. Returns how many are written; there is room for as many as rows."""
    n = len(rows)
    scores = np.empty(n, np.float64)
    true_scores(blocks[:, ROWS].copy(), stride, rows, probes, scores)
    lines = np.zeros((n, _WORDS), np.uint64)
    for one in range(n):
        lines[one, 0] = 0 if speaks[one] else 1
        lines[one, 1] = uint64(keys[one])
        lines[one, 2] = falling(scores[one])
    order = line_order(lines, n)
    heads = np.empty(n, np.int64)  # each record's best row
    count = 0
    for one in order:
        if count and lines[heads[count - 1], 0] == lines[one, 0] and keys[heads[count - 1]] == keys[one]:
            continue
        heads[count] = one
        count += 1
    ranks = np.empty((count, _WORDS), np.uint64)
    for at in range(count):
        one = heads[at]
        address = blocks[keys[one] >> 32, ROWS] + (keys[one] & 0xFFFFFFFF) * stride - 4 * columns - 16
        ident = array_at(at_address(address), 2, uint64)
        ranks[at, 0], ranks[at, 1], ranks[at, 2], ranks[at, 3] = (
            lines[one, 0],
            lines[one, 2],
            ident[0],
            ident[1],
        )
    written = 0
    of_kind = np.zeros(2, np.int64)
    for at in line_order(ranks, count):
        kind = np.int64(ranks[at, 0])
        if of_kind[kind] < k:
            of_kind[kind] += 1
            found[written] = keys[heads[at]]
            written += 1
    return written


@compiled
def ranked_rows(
    ids: Any,
    templates: Any,
    owners: Any,
    against: Any,
    probes: Any,
    k: int,
    evidence: int,
    floor: float,
    best: Any,
    probe_of: Any,
    shown: Any,
    heads: Any,
    ends: Any,
    reasons: Any,
) -> Any:  # pragma: no cover - compiled
    """What `index.reference.partial` says of these n rows, all of their records', a record's side by side.

    ids (n, 4): face id, record id; owners (n,): another number for another record; against (n,): bits of the
    reasons against a row. Written: per row its best score and the first probe that gives it; per candidate,
    those that facts allow first, its best row (`heads`), where its rows that are shown end in `shown`, and
    the reasons against it. Returns the numbers of candidates that facts allow and of the others."""
    n = len(owners)
    wide = probes.astype(np.float64)
    for row in range(n):
        best[row], probe_of[row] = best_score(templates[row], wide)
    lines = np.empty((n, _WORDS), np.uint64)  # by record: rows that speak for it, the best first
    kinds = np.empty(n, np.uint64)
    bits = np.empty(n, np.uint8)
    records = 0
    first = 0
    while first < n:
        stop = first
        allowed, together = False, np.uint8(0)
        while stop < n and owners[stop] == owners[first]:
            allowed |= against[stop] == 0
            together |= against[stop]
            stop += 1
        kinds[records] = 0 if allowed else 1
        bits[records] = 0 if allowed else together
        for row in range(first, stop):
            silent = allowed and against[row] != 0
            lines[row, 0] = 2 * records + (1 if silent else 0)
            lines[row, 1] = falling(best[row])
            lines[row, 2], lines[row, 3] = ids[row, 0], ids[row, 1]
        records += 1
        first = stop
    order = line_order(lines, n)
    begins = np.empty(records + 1, np.int64)  # in `order`
    lasts = np.empty(records, np.int64)
    at = 0
    for record in range(records):
        begins[record] = at
        while at < n and lines[order[at], 0] == 2 * record:
            at += 1
        lasts[record] = at
        while at < n and lines[order[at], 0] == 2 * record + 1:
            at += 1
    ranks = np.empty((records, _WORDS), np.uint64)
    for record in range(records):
        head = order[begins[record]]
        ranks[record, 0], ranks[record, 1] = kinds[record], lines[head, 1]
        ranks[record, 2], ranks[record, 3] = ids[head, 2], ids[head, 3]
    of_kind = np.zeros(2, np.int64)
    made, used = 0, 0
    for record in line_order(ranks, records):
        kind = np.int64(kinds[record])
        head = order[begins[record]]
        if of_kind[kind] >= k or best[head] < floor:
            continue
        of_kind[kind] += 1
        heads[made] = head
        reasons[made] = bits[record]
        for place in range(begins[record], min(lasts[record], begins[record] + evidence)):
            shown[used] = order[place]
            used += 1
        ends[made] = used
        made += 1
    return of_kind[0], of_kind[1]
