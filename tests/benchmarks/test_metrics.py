"""Error rates against hand-made scores, and against the definitions by brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.metrics import cmc, det, fnir_at_fpir, run_trial, tar_at_fmr, threshold_at
from homeward.types import Float32

_SCORES = st.lists(st.integers(-20, 20).map(lambda value: value / 20), min_size=1, max_size=60)


def _unit(*angles: float) -> list[Float32]:
    return [np.array([np.cos(angle), np.sin(angle)], dtype=np.float32) for angle in angles]


def test_a_threshold_lets_through_no_more_than_the_rate() -> None:
    scores = np.array([0.1, 0.2, 0.3, 0.4, 0.5])
    assert threshold_at(scores, 0.2) == np.nextafter(0.4, 1)
    assert threshold_at(scores, 0.19) == np.nextafter(0.5, 1)
    assert threshold_at(scores, 0.0) == np.nextafter(0.5, 1)
    assert threshold_at(scores, 1.0) == -np.inf
    assert threshold_at(np.zeros(0), 0.1) == -np.inf


def test_ties_at_the_threshold_are_all_kept_out() -> None:
    assert threshold_at(np.array([0.5, 0.5, 0.5, 0.1]), 0.5) == np.nextafter(0.5, 1)


@given(_SCORES, st.floats(0, 1))
def test_the_threshold_is_the_smallest_that_keeps_the_rate(scores: list[float], rate: float) -> None:
    values = np.array(scores)
    threshold = threshold_at(values, rate)
    assert (values >= threshold).mean() <= rate + 1e-9
    lower = values[values < threshold]
    if len(lower):
        assert (values >= lower.max()).mean() > rate - 1e-9


def test_a_failure_to_enrol_is_a_miss_at_every_threshold() -> None:
    mated = np.array([0.9, -np.inf])
    assert tar_at_fmr(mated, np.array([0.1]), 1.0) == 0.5
    assert tar_at_fmr(mated, np.zeros(0), 0.1) == 0.5


def test_a_small_trial_by_hand() -> None:
    gallery: list[Float32 | None] = [*_unit(0.0, 1.0, 2.0), None]
    probes: list[Float32 | None] = [*_unit(0.1, 1.6, 3.0), None, *_unit(0.0)]
    trial = run_trial(gallery, ["a", "b", "c", "d"], probes, ["a", "b", "x", "c", "d"])
    assert trial.has_mate.tolist() == [True, True, False, True, True]
    # b's probe at 1.6 lies nearer to c (2.0) than to b (1.0); c's failed; d is not enrolled.
    assert trial.rank[[0, 1, 3, 4]].tolist() == [1, 2, 5, 5]
    assert cmc(trial, 3).tolist() == [0.25, 0.5, 0.5]
    assert len(trial.non_mated) == 2 + 2 + 3 + 0 + 3
    assert sorted(trial.mated_pairs)[:2] == [-np.inf, -np.inf]
    assert len(trial.mated_pairs) == 4
    np.testing.assert_allclose(trial.mated[0], np.cos(0.1), atol=1e-6)
    np.testing.assert_allclose(trial.best_other[2], np.cos(1.0), atol=1e-6)
    assert trial.best_other[3] == -np.inf


def test_the_false_positive_threshold_comes_from_searches_without_the_mate() -> None:
    gallery: list[Float32 | None] = [*_unit(0.0, 1.5)]
    probes: list[Float32 | None] = [*_unit(0.2, 1.4)]
    trial = run_trial(gallery, ["a", "b"], probes, ["a", "b"])
    # Without mates the best are cos(1.3) and cos(1.4); both mates score far above.
    np.testing.assert_allclose(trial.best_other, [np.cos(1.3), np.cos(1.4)], atol=1e-6)
    assert fnir_at_fpir(trial, 0.0) == 0.0


def test_several_photos_of_one_identity_count_once_by_their_best() -> None:
    gallery: list[Float32 | None] = [*_unit(0.0, 1.0, 0.4)]
    trial = run_trial(gallery, ["a", "a", "b"], [*_unit(0.9)], ["a"])
    assert trial.rank.tolist() == [1]
    np.testing.assert_allclose(trial.mated, [np.cos(0.1)], atol=1e-6)
    assert len(trial.mated_pairs) == 2


def test_ties_rank_the_mate_last() -> None:
    trial = run_trial([*_unit(0.0, 0.0)], ["a", "b"], [*_unit(0.0)], ["a"])
    assert trial.rank.tolist() == [2]


@given(st.integers(1, 12), st.integers(1, 8), st.integers(0, 2**31), st.floats(0, 1))
def test_rates_equal_their_definitions(people: int, searches: int, seed: int, rate: float) -> None:
    rng = np.random.default_rng(seed)

    def some(count: int) -> list[Float32 | None]:
        rows = rng.standard_normal((count, 6))
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return [row.astype(np.float32) if rng.random() > 0.2 else None for row in rows]

    gallery, probes = some(people), some(searches)
    names = [str(number) for number in rng.integers(0, people, people)]
    owners = [str(number) for number in rng.integers(0, people + 2, searches)]
    trial = run_trial(gallery, names, probes, owners)
    both = [(g, p) for p in range(searches) for g in range(people)]

    def score(pair: tuple[int, int]) -> float:
        g, p = gallery[pair[0]], probes[pair[1]]
        return float(g.astype(float) @ p.astype(float)) if g is not None and p is not None else -np.inf

    mated = np.array([score((g, p)) for g, p in both if names[g] == owners[p]])
    other = [score((g, p)) for g, p in both if names[g] != owners[p]]
    np.testing.assert_allclose(np.sort(trial.mated_pairs), np.sort(mated), atol=1e-12)
    np.testing.assert_allclose(
        np.sort(trial.non_mated), sorted(value for value in other if value > -np.inf), atol=1e-12
    )
    for p, owner in enumerate(owners):
        assert trial.has_mate[p] == (owner in names)
        best = max((score((g, p)) for g in range(people) if names[g] == owner), default=-np.inf)
        np.testing.assert_allclose(trial.mated[p], best, atol=1e-12)
    value = fnir_at_fpir(trial, rate)
    if trial.has_mate.any():
        assert 0 <= value <= 1
        assert value >= np.mean(np.isneginf(trial.mated[trial.has_mate]))
    else:
        assert np.isnan(value)


@given(_SCORES, _SCORES)
def test_a_det_curve_is_monotone_and_holds_the_tar_points(own: list[float], others: list[float]) -> None:
    mated, non_mated = np.array(own), np.array(others)
    false, missed = det(mated, non_mated, points=20)
    assert (np.diff(false) >= 0).all()
    assert (np.diff(missed) <= 0).all()
    for rate, miss in zip(false, missed, strict=True):
        assert 1 - tar_at_fmr(mated, non_mated, rate) == pytest.approx(miss)
