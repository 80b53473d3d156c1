"""The fitted log-likelihood ratio: right where the truth is known, bounded, and kept with its origin."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from homeward.errors import Corrupt, InvalidInput
from homeward.types import Calibration
from workers.calibrate import (
    MAX_NON_MATED,
    PairScores,
    calibrate,
    fit,
    load_calibration,
    pair_scores,
    save_calibration,
)

SOME = Calibration(
    a=21.5,
    b=-11.25,
    dataset='a "set"\n\x7f\\ß😀',
    faces="adults",
    fitted_on=date(2026, 1, 31),
    mated=400,
    non_mated=100_000,
    model_id="tiny-0123456789abcdef",
)


@pytest.mark.parametrize(("mated", "non_mated"), [(4000, 4000), (2000, 80_000), (20_000, 2000)])
def test_the_true_ratio_of_two_gaussians_is_found_whatever_the_proportion(mated: int, non_mated: int) -> None:
    # Equal variances: ln LR = ((m1 - m0) s + (m0² - m1²) / 2) / v, exactly linear in the score.
    rng = np.random.default_rng(7)
    m1, m0, v = 0.6, 0.3, 0.01
    scores = PairScores(rng.normal(m1, v**0.5, mated), rng.normal(m0, v**0.5, non_mated))
    a, b = fit(scores)
    assert a == pytest.approx((m1 - m0) / v, rel=0.1)
    assert b == pytest.approx((m0**2 - m1**2) / 2 / v, rel=0.1)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 60),
    st.integers(1, 300),
    st.floats(0.001, 0.5),
    st.floats(1e-6, 0.2),
    st.integers(0, 2**31),
)
def test_any_better_than_chance_scores_give_finite_rising_ratios(
    mated: int, non_mated: int, gap: float, width: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    own = 0.5 + gap + rng.uniform(-width, width, mated)
    others = 0.5 + rng.uniform(-width, width, non_mated)
    if own.mean() <= others.mean() + 1e-9:
        return
    try:
        a, b = fit(PairScores(own, others))
    except InvalidInput:
        assert own.mean() - others.mean() < width  # so weak that Platt's smoothing may undo it
        return
    assert a > 0
    assert np.isfinite([a, b]).all()


def test_perfectly_separated_scores_stay_bounded() -> None:
    scores = PairScores(np.linspace(0.8, 0.9, 50), np.linspace(0.1, 0.2, 2000))
    a, b = fit(scores)
    assert 0 < a < 1000
    calibration = Calibration(a, b, "d", "f", date(2026, 1, 1), 50, 2000, "m")
    assert calibration.llr(1.0) <= np.log(2000)
    assert calibration.llr(-1.0) >= -np.log(50)


def test_scores_that_say_nothing_are_refused() -> None:
    with pytest.raises(InvalidInput) as refused:
        fit(PairScores(np.linspace(0.1, 0.2, 50), np.linspace(0.8, 0.9, 500)))
    assert refused.value.code == "CALIBRATION_FAILED"
    with pytest.raises(InvalidInput):
        fit(PairScores(np.array([np.nan]), np.array([0.1])))


def test_very_many_pairs_are_thinned_without_moving_the_fit() -> None:
    rng = np.random.default_rng(3)
    own, others = rng.normal(0.6, 0.1, 500), rng.normal(0.3, 0.1, 50_000)
    few = fit(PairScores(own, others))
    many = fit(PairScores(own, np.repeat(others, 1 + MAX_NON_MATED // len(others))))
    assert many == pytest.approx(few, rel=0.15)


def _people(count: int, photos: int, noise: float) -> tuple[np.ndarray, list[str]]:
    rng = np.random.default_rng(5)
    centres = np.repeat(rng.standard_normal((count, 32)), photos, axis=0)
    rows = centres + noise * rng.standard_normal(centres.shape)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float32), [str(number // photos) for number in range(len(rows))]


def test_all_pairs_are_counted_once() -> None:
    templates, people = _people(4, 3, 0.1)
    scores = pair_scores(templates, people)
    assert (len(scores.mated), len(scores.non_mated)) == (4 * 3, 12 * 11 // 2 - 4 * 3)
    assert scores.mated.min() > scores.non_mated.max()


@pytest.mark.parametrize(("count", "photos"), [(0, 0), (1, 2), (19, 3), (40, 1)])
def test_too_few_people_or_pairs_are_refused(count: int, photos: int) -> None:
    templates, people = _people(count, photos, 0.5)
    with pytest.raises(InvalidInput) as refused:
        calibrate(templates, people, model_id="m", dataset="d", faces="f", today=date(2026, 1, 1))
    assert refused.value.code == "TOO_FEW_PAIRS"


def test_a_calibration_says_what_it_was_fitted_on_and_is_found_by_its_model_alone(tmp_path: Path) -> None:
    templates, people = _people(30, 3, 0.7)
    fitted = calibrate(
        templates, people, model_id="tiny-1", dataset="d", faces="adults", today=date(2026, 1, 31)
    )
    assert (fitted.mated, fitted.non_mated, fitted.faces) == (90, 90 * 89 // 2 - 90, "adults")
    save_calibration(tmp_path / "tiny", fitted)
    save_calibration(tmp_path / "default", SOME)
    assert load_calibration(tmp_path, "tiny-1") == fitted
    assert load_calibration(tmp_path, SOME.model_id) == SOME
    assert load_calibration(tmp_path, "tiny-2") is None
    assert load_calibration(tmp_path / "nowhere", "tiny-1") is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("a = 21.5", "a = -21.5"),
        ("a = 21.5", "a = nan"),
        ("a = 21.5", ""),
        ("a = 21.5", "a = '21'"),
        ("mated = 400", "mated = 0"),
        ("fitted_on = 2026-01-31", "fitted_on = '2026'"),
        ("b = ", "c = 1\nb = "),
        ("b = ", "b"),
    ],
)
def test_a_damaged_calibration_is_never_used(tmp_path: Path, old: str, new: str) -> None:
    path = save_calibration(tmp_path / "tiny", SOME)
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(Corrupt, match="homeward models calibrate"):
        load_calibration(tmp_path, SOME.model_id)
