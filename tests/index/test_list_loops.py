"""The words by which candidates are ordered, and the order itself, against plain sorting."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from homeward.types import Filter, ProbeFacts, Query
from index.cut_loops import settle
from index.list_loops import falling, leading_records, line_order, ranked_rows
from index.row_loops import copy_rows, rows_of_records
from index.scan_loops import scan_chunks
from index.shard import Shard
from index.warm_up import compile_kernels
from tests.index.rows import face_row, hex_id, templates

_LOOPS: tuple[Any, ...] = (
    leading_records,
    ranked_rows,
    rows_of_records,
    copy_rows,
    settle,
    scan_chunks,
)

scores = st.floats(allow_nan=False, width=64)
words = st.sampled_from((0, 1, 2, 2**63 - 1, 2**63, 2**64 - 1))


@given(scores, scores)
@settings(deadline=None)
def test_the_larger_score_has_the_smaller_word(one: float, two: float) -> None:
    first, second = int(falling(one)), int(falling(two))
    assert (first < second, first == second) == (one > two, one == two)


@given(st.lists(st.tuples(words, words, words, words), max_size=60))
@settings(deadline=None)
def test_lines_are_ordered_by_their_first_different_word_then_by_number(
    lines: list[tuple[int, int, int, int]],
) -> None:
    array = np.array(lines, np.uint64).reshape(-1, 4)
    expected = sorted(range(len(lines)), key=lambda at: (lines[at], at))
    assert line_order(array, len(lines)).tolist() == expected


def test_no_search_waits_for_a_compiler() -> None:
    """One kind of array for each loop, the one that `compile_kernels` has met, whatever callers hand in."""
    compile_kernels()
    before = [len(loop.signatures) for loop in _LOOPS]
    assert before == [1] * len(_LOOPS)
    drawn = templates(np.random.default_rng(1), 9, 16)
    shard = Shard(16)
    shard.upsert([face_row(f"r{number % 4}", "p", number, one) for number, one in enumerate(drawn)])
    frozen = drawn[::2].copy()
    frozen.flags.writeable = False
    strided = drawn[::2]
    for probe in (drawn[:1], frozen[:1], frozen, strided):
        for query in (
            Query(probe, 3),
            Query(probe, 1000, min_score=0, evidence=0),
            Query(probe, 2**40, evidence=2**64),
            Query(probe, 3, Filter(galleries=frozenset({1})), ProbeFacts(sex=1)),
            Query(probe, 3, without_records=frozenset({hex_id("r1")})),
        ):
            shard.search(query)
    shard.close()
    assert [len(loop.signatures) for loop in _LOOPS] == before
