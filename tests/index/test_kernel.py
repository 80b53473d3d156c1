"""The innermost loops against plain arithmetic, on this processor's instruction and without it."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from homeward.types import Float32
from index import kernel
from index.cut_loops import ascending, settle
from index.encode import code_bytes, decode_row, encode_rows
from index.kernel import TILE, bounds, bounds_portable
from index.probe_codes import encode_probes, padded
from index.score import score
from index.synthetic import unit_rows

shapes = st.tuples(st.integers(1, 70), st.sampled_from((1, 3, 16, 33, 128)), st.integers(0, 2**32 - 1))


def unit(count: int, dimension: int, seed: int, spread: float) -> Float32:
    """(count, dimension) unit rows, the nearer each other the smaller the spread."""
    generator = np.random.default_rng(seed)
    mean = generator.standard_normal(dimension) + 0.1
    return unit_rows(mean + generator.standard_normal((count, dimension)) * spread)


def coded(rows: Float32, mean: np.ndarray[Any, Any]) -> tuple[Any, Any, Any, float]:
    """Codes, scales and errors of the rows, in whole tiles."""
    room = -(-len(rows) // TILE) * TILE
    codes = np.zeros(code_bytes(room, rows.shape[1]), np.uint8)
    scales, errors = np.zeros(room, np.float32), np.zeros(room, np.float32)
    reach = encode_rows(rows, mean, codes, scales, errors, 0)
    return codes, scales, errors, reach


@given(shapes, st.sampled_from((0.01, 0.3, 5.0)))
@settings(max_examples=60, deadline=None)
def test_a_rows_code_and_error_norm_hold_the_row(shape: tuple[int, int, int], spread: float) -> None:
    count, dimension, seed = shape
    rows = unit(count, dimension, seed, spread)
    mean = rows.mean(axis=0, dtype=np.float64)
    codes, scales, errors, reach = coded(rows, mean)
    for number, row in enumerate(rows):
        integers = decode_row(codes, number, dimension)
        assert np.abs(integers).max(initial=0) <= 127
        left = row.astype(np.float64) - mean - np.float64(scales[number]) * integers
        assert np.linalg.norm(left) * 1.000001 <= errors[number]
        assert np.linalg.norm(np.float64(scales[number]) * integers) <= reach


@given(shapes, st.sampled_from((0.01, 0.3, 5.0)))
@settings(max_examples=60, deadline=None)
def test_a_probes_code_and_loss_hold_the_probe(shape: tuple[int, int, int], spread: float) -> None:
    count, dimension, seed = shape
    templates = unit(count, dimension, seed, spread)
    probes = encode_probes(templates)
    whole = 128.0 * probes.pieces[:, 0].astype(np.float64) + probes.pieces[:, 1]
    assert not whole[:, dimension:].any()
    left = templates.astype(np.float64) - probes.units.astype(np.float64)[:, None] * whole[:, :dimension]
    assert (np.linalg.norm(left, axis=1) <= probes.lost).all()
    low = probes.units.astype(np.float64) * np.linalg.norm(probes.pieces[:, 1].astype(np.float64), axis=1)
    assert (low <= probes.rough).all()  # reached by a row that lies along the low piece


@numba.njit
def _both(
    codes: Any, scales: Any, errors: Any, piece: Any, unit_: Any, biases: Any, leasts: Any, out: Any
) -> Any:
    quads = len(piece) // 8
    one = bounds(
        codes.ctypes.data,
        scales.ctypes.data,
        errors.ctypes.data,
        piece.ctypes.data,
        quads,
        unit_,
        (biases[0], biases[1]),
        (leasts[0], leasts[1]),
        out[0].ctypes.data,
    )
    other = bounds_portable(
        codes.ctypes.data,
        scales.ctypes.data,
        errors.ctypes.data,
        piece.ctypes.data,
        quads,
        unit_,
        (biases[0], biases[1]),
        (leasts[0], leasts[1]),
        out[1].ctypes.data,
    )
    return one, other


@given(
    st.sampled_from((1, 16, 33, 128, 512, 1056, 4096)),
    st.integers(0, 2**32 - 1),
    st.sampled_from((0.05, 1.0)),
)
@settings(max_examples=60, deadline=None)
def test_bounds_hold_every_true_score_whichever_instruction(dimension: int, seed: int, spread: float) -> None:
    rows = unit(TILE, dimension, seed, spread)
    probes = encode_probes(unit(1, dimension, seed + 1, spread))
    mean = rows.mean(axis=0, dtype=np.float64)
    codes, scales, errors, reach = coded(rows, mean)
    true = score(rows, probes.templates[0])
    offset = float(mean @ probes.templates[0].astype(np.float64))
    slack = float(probes.lost[0] * reach + probes.rounding)
    cut = float(np.median(true))
    out = np.zeros((2, TILE), np.float32)
    piece = np.ascontiguousarray(probes.pieces[0].reshape(-1))
    least = np.float32(cut - offset - slack)
    rough = np.float32(least - (probes.rough[0] * reach + 2 * probes.rounding))
    given_ = (codes, scales, errors, piece, probes.units[0], probes.biases[0])
    one, other = _both(*given_, np.array([rough, least]), out)
    assert one == other
    assert np.array_equal(out[0], out[1])
    # No row is missed for its tile being looked at roughly first, wherever the threshold lies.
    room = np.zeros((2, TILE), np.float32)
    for cut_ in np.sort(true)[[0, TILE // 2, -2, -1]] - offset - slack:
        leasts = np.array([cut_ - (probes.rough[0] * reach + 2 * probes.rounding), cut_]).astype(np.float32)
        everything = np.array([-np.inf, leasts[1]]).astype(np.float32)
        assert _both(*given_, leasts, room) == _both(*given_, everything, out)
    assert (np.abs(out[0] + offset - true) <= errors + slack).all()
    passed = np.array([bool(one >> lane & 1) for lane in range(TILE)])
    assert passed[true >= cut].all()
    whole = 128.0 * probes.pieces[0, 0].astype(np.float64) + probes.pieces[0, 1]
    exact = [
        float(probes.units[0]) * float(scales[row]) * (decode_row(codes, row, padded(dimension)) @ whole)
        for row in range(TILE)
    ]
    assert np.allclose(out[0], exact, rtol=1e-6, atol=1e-9)


@given(st.lists(st.integers(-50, 50), max_size=200))
@settings(deadline=None)
def test_ascending_sorts(values: list[int]) -> None:
    array = np.array(values, np.int64)
    assert array[ascending(array)].tolist() == sorted(values)


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 60))
@settings(max_examples=100, deadline=None)
def test_settling_keeps_every_row_that_could_still_be_in_the_list(seed: int, k: int, count: int) -> None:
    generator = np.random.default_rng(seed)
    rows = generator.integers(0, 40, count)
    keys = rows // 3 * 3
    true = np.round(generator.random(41), 1)[rows]
    width = 0.2
    lower, upper = true - width * generator.random(count), true + width * generator.random(count)
    kept: list[Any] = [rows.copy(), keys.copy(), lower.copy(), upper.copy(), np.ones(count, np.uint8)]
    cuts = np.full(2, -np.inf)
    left = settle(count, kept[0], kept[1], kept[2], kept[3], kept[4], k, cuts)
    best: dict[int, float] = {}
    for row, score_ in zip(rows.tolist(), true.tolist(), strict=True):
        best[row // 3 * 3] = max(best.get(row // 3 * 3, -1.0), score_)
    ranked = sorted(best.values(), reverse=True)
    reach = ranked[k - 1] if len(ranked) >= k else -np.inf
    assert set(rows[true >= reach].tolist()) <= set(kept[0][:left].tolist())
    assert len(set(kept[0][:left].tolist())) == left
    assert cuts[0] <= reach


@pytest.mark.skipif(not kernel.has_byte_dot(), reason="this processor has no other kernel to compare with")
def test_the_shard_is_exact_on_a_processor_without_the_instruction() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PORTABLE],
        env={**os.environ, "NUMBA_CPU_NAME": "x86-64-v2"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["False", "exact"]


_PORTABLE = """
from index.kernel import has_byte_dot
from tests.index.test_shard import _differ
print(has_byte_dot())
for seed in range(8):
    _differ(seed, steps=4)
print("exact")
"""
