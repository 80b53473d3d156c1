"""The comparison score against plain arithmetic."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from homeward.errors import TemplateInvalid
from homeward.types import Float32
from index.score import check_template, check_templates, scan_error, score
from index.synthetic import unit_rows
from tests.index.random_rows import plain_score

SIZES = st.tuples(st.integers(0, 40), st.integers(1, 140), st.integers(0, 2**32 - 1))


def _unit(count: int, dimension: int, seed: int) -> Float32:
    generator = np.random.default_rng(seed)
    # Components of very different sizes, so that the order of the additions shows in the last bits.
    scale = 10.0 ** generator.uniform(-6, 0, (count, dimension))
    return unit_rows(generator.standard_normal((count, dimension)) * scale)


@given(SIZES)
@settings(max_examples=60, deadline=None)
def test_the_score_is_the_ordered_float64_sum_bit_for_bit(size: tuple[int, int, int]) -> None:
    count, dimension, seed = size
    rows = _unit(count + 1, dimension, seed)
    found = score(rows[:count], rows[count])
    assert found.dtype == np.float64
    assert found.tolist() == [plain_score(row.tolist(), rows[count].tolist()) for row in rows[:count]]


@given(SIZES)
@settings(max_examples=40, deadline=None)
def test_a_fused_multiply_add_would_give_the_same_bits(size: tuple[int, int, int]) -> None:
    count, dimension, seed = size
    rows = _unit(min(count, 4) + 1, dimension, seed)
    for row, found in zip(rows[:-1], score(rows[:-1], rows[-1]).tolist(), strict=True):
        total = 0.0
        for one, other in zip(row.tolist(), rows[-1].tolist(), strict=True):
            total = float(Fraction(total) + Fraction(one) * Fraction(other))  # rounds once
        assert found == total


@given(SIZES)
@settings(max_examples=40, deadline=None)
def test_scan_error_bounds_matrix_products_of_every_kind(size: tuple[int, int, int]) -> None:
    count, dimension, seed = size
    rows = _unit(count + 1, dimension, seed)
    probe = rows[count]
    true = score(rows[:count], probe)
    exact = [
        sum(Fraction(one) * Fraction(other) for one, other in zip(row.tolist(), probe.tolist(), strict=True))
        for row in rows[:count]
    ]
    backwards = np.zeros(count, np.float32)
    for component in reversed(range(dimension)):
        backwards += rows[:count, component] * probe[component]
    for product in (rows[:count] @ probe, (np.stack([probe, probe]) @ rows[:count].T)[0], backwards):
        assert np.all(np.abs(product.astype(np.float64) - true) <= scan_error(dimension))
    for one, other in zip(exact, true.tolist(), strict=True):
        assert abs(one - Fraction(other)) <= Fraction(dimension) * Fraction(1, 2**51)


def test_slicing_layout_and_company_change_no_bit() -> None:
    rows = _unit(5_000, 128, 1)
    probe = _unit(1, 128, 2)[0]
    whole = score(rows, probe)
    assert np.array_equal(score(np.asfortranarray(rows), probe), whole)
    assert np.array_equal(score(rows[::-1], probe)[::-1], whole)
    assert np.array_equal(score(rows[::7], probe), whole[::7])
    wide = np.zeros((5_000, 256), np.float32)
    wide[:, ::2] = rows
    assert np.array_equal(score(wide[:, ::2], probe), whole)
    assert np.array_equal(score(rows, np.tile(probe, (5_000, 1))), whole)
    for start, stop in ((0, 1), (1_023, 1_025), (1_000, 3_333), (4_999, 5_000)):
        assert np.array_equal(score(rows[start:stop], probe), whole[start:stop])


def test_a_score_is_the_same_whichever_is_the_probe() -> None:
    rows = _unit(50, 128, 3)
    assert all(score(rows[:1], rows[one])[0] == score(rows[one : one + 1], rows[0])[0] for one in range(50))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_refused(value: float) -> None:
    rows = _unit(3, 16, 4)
    rows[1, 5] = value
    with pytest.raises(TemplateInvalid, match="template 1 holds a value that is not finite"):
        check_templates(rows, 16)


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.ones(16, np.float64) / 4, "float32"),
        (np.ones(15, np.float32) / 4, "15"),
        (np.ones((1, 16), np.float32) / 4, "1x16"),
        (np.zeros(16, np.float32), "norm"),
        (np.full(16, 0.2501, np.float32), "norm"),
    ],
)
def test_a_template_of_another_kind_is_refused(array: Float32, reason: str) -> None:
    with pytest.raises(TemplateInvalid, match=reason):
        check_template(array, 16)


def test_a_checked_template_is_the_same_bits() -> None:
    rows = _unit(4, 16, 5)
    assert np.array_equal(check_templates(np.asfortranarray(rows), 16), rows)
    assert check_templates(np.asfortranarray(rows), 16).flags.c_contiguous
