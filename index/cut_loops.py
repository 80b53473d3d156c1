"""Compiled loops that raise a query's cut: the k-th best lower bound of a record that is known of."""

from __future__ import annotations

from typing import Any

import numpy as np

from index.compiled import compiled


@compiled
def ascending(values: Any) -> Any:  # pragma: no cover - compiled
    """(n,) the order that sorts the values: D. L. Shell's method (CACM 2(7), 1959) with gaps that shrink
    by 9/4 (N. Tokuda, 1992).
    (numpy's sorts take numba fifteen seconds to compile.)"""
    order = np.arange(len(values))
    gap = 1
    while gap < len(values):
        gap = gap * 9 // 4 + 1
    while gap > 1:
        gap = 1 if gap < 4 else gap * 4 // 9
        for start in range(gap, len(values)):
            one = order[start]
            at = start
            while at >= gap and values[order[at - gap]] > values[one]:
                order[at] = order[at - gap]
                at -= gap
            order[at] = one
    return order


@compiled
def kth_lower(keys: Any, lower: Any, counted: Any, k: int) -> float:  # pragma: no cover - compiled
    """The k-th best record's lower bound, each record at its best counted row; -inf with fewer records.
    Rows of a record lie side by side."""
    best = np.empty(len(keys), np.float64)
    records = 0
    last = np.int64(-1)
    for one in range(len(keys)):
        if not counted[one]:
            continue
        if keys[one] != last:
            last = keys[one]
            best[records] = lower[one]
            records += 1
        else:
            best[records - 1] = max(best[records - 1], lower[one])
    if records < k:
        return -np.inf
    return float(best[ascending(best[:records])[records - k]])


@compiled
def settle(
    used: int, rows: Any, keys: Any, lower: Any, upper: Any, speaks: Any, k: int, cuts: Any
) -> int:  # pragma: no cover - compiled
    """Raise a query's two cuts by the rows kept for it, drop those below, and each row's repeats.

    cuts[0] is of records that facts allow, cuts[1] of all records. Returns how many rows are left."""
    order = ascending(rows[:used])
    count = 0
    sorted_rows = np.empty(used, np.int64)
    sorted_keys = np.empty(used, np.int64)
    low = np.empty(used, np.float64)
    high = np.empty(used, np.float64)
    speaking = np.empty(used, np.uint8)
    for one in order:
        if count and sorted_rows[count - 1] == rows[one]:
            low[count - 1] = max(low[count - 1], lower[one])
            high[count - 1] = max(high[count - 1], upper[one])
            continue
        sorted_rows[count] = rows[one]
        sorted_keys[count] = keys[one]
        low[count] = lower[one]
        high[count] = upper[one]
        speaking[count] = speaks[one]
        count += 1
    everyone = np.ones(count, np.uint8)
    cuts[0] = max(cuts[0], kth_lower(sorted_keys[:count], low[:count], speaking[:count], k))
    cuts[1] = max(cuts[1], kth_lower(sorted_keys[:count], low[:count], everyone, k))
    left = 0
    for one in range(count):
        if high[one] >= cuts[0 if speaking[one] else 1]:
            rows[left] = sorted_rows[one]
            keys[left] = sorted_keys[one]
            lower[left] = low[one]
            upper[left] = high[one]
            speaks[left] = speaking[one]
            left += 1
    return left
