"""Biometric error rates from comparison scores, in the terms of ISO/IEC 19795-1. No I/O.

One convention throughout: a comparison is accepted when score >= threshold, and a failure to enrol
has score -inf, so that it is a miss at every threshold and never a false one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from homeward.types import Float32, Float64


@dataclass(frozen=True, slots=True)
class Trial:
    """All searches of one test: p probes against a gallery of i identities.

    A probe's score for an identity is its best over the identity's enrolled photos, -inf when none
    is. Arrays are (p,) unless said otherwise.
    """

    mated: Float64  # best score of the probe's own identity; only where `has_mate`
    best_other: Float64  # best score over all other identities: the search without the mate
    rank: np.ndarray  # int64, 1-based rank of the own identity; i + 1 when it has no score
    has_mate: np.ndarray  # bool: the probe's identity is in the gallery (enrolled or failed)
    non_mated: Float64  # (n,) scores of all non-mated gallery photo x probe pairs that have templates
    mated_pairs: Float64  # (m,) scores of all mated gallery photo x probe pairs, -inf for failures


Comparison = Callable[[Float64, Float64], Float64]  # gallery (g, d) and probe (d,) -> scores (g,)


def cosine(gallery: Float64, probe: Float64) -> Float64:
    """The score of unit templates."""
    return gallery @ probe


def negative_distance(gallery: Float64, probe: Float64) -> Float64:
    """Minus the Euclidean distance, how users of dlib compare its descriptors."""
    distance: Float64 = np.linalg.norm(gallery - probe, axis=1)
    return -distance


def run_trial(
    gallery: Sequence[Float32 | None],
    gallery_identities: Sequence[str],
    probes: Sequence[Float32 | None],
    probe_identities: Sequence[str],
    compare: Comparison = cosine,
) -> Trial:
    """Compare every probe with every gallery photo, in float64; None is a failure to enrol.

    Ties rank the mate last: an unlucky order must not look like luck.
    """
    names, columns = np.unique(np.asarray(gallery_identities, dtype=object), return_inverse=True)
    place = {str(name): number for number, name in enumerate(names)}
    own = np.array([place.get(name, -1) for name in probe_identities], dtype=np.int64)
    size = next((len(template) for template in (*gallery, *probes) if template is not None), 1)
    matrix, present = _stack(gallery, size)
    queries, usable = _stack(probes, size)
    mated, best_other, ranks = [], [], []
    non_mated, mated_pairs = [], []
    for row, identity in enumerate(own):
        scores = compare(matrix, queries[row])
        scores = np.where(present & usable[row], scores, -np.inf)
        same = columns == identity
        mated_pairs.append(scores[same])
        non_mated.append(scores[~same & present] if usable[row] else np.zeros(0))
        best = np.full(len(names), -np.inf)
        np.maximum.at(best, columns, scores)
        mate = best[identity] if identity >= 0 else -np.inf
        others = np.delete(best, identity) if identity >= 0 else best
        mated.append(mate)
        best_other.append(others.max(initial=-np.inf))
        ranks.append(1 + int((others >= mate).sum()) if mate > -np.inf else len(names) + 1)
    return Trial(
        mated=np.array(mated, dtype=np.float64),
        best_other=np.array(best_other, dtype=np.float64),
        rank=np.array(ranks, dtype=np.int64),
        has_mate=own >= 0,
        non_mated=np.concatenate([np.zeros(0), *non_mated]),
        mated_pairs=np.concatenate([np.zeros(0), *mated_pairs]),
    )


def _stack(templates: Sequence[Float32 | None], size: int) -> tuple[Float64, np.ndarray]:
    rows = [np.zeros(size) if template is None else template.astype(np.float64) for template in templates]
    present = np.array([template is not None for template in templates], dtype=bool)
    return np.array(rows, dtype=np.float64).reshape(len(rows), size), present


def threshold_at(false_scores: Float64, rate: float) -> float:
    """The smallest threshold at which the fraction of `false_scores` >= it is <= rate.

    With n scores, k = floor(rate * n) of them may pass: the threshold is the next float above the
    (k + 1)-th largest, and -inf when all may pass. With rate < 1/n none passes.
    """
    return _threshold(np.sort(false_scores), rate)


def tar_at_fmr(mated: Float64, non_mated: Float64, fmr: float) -> float:
    """Fraction of mated comparisons accepted at the smallest threshold whose FMR is <= fmr."""
    return _share(mated >= _finite(threshold_at(non_mated, fmr)))


def fnir_at_fpir(trial: Trial, fpir: float) -> float:
    """Fraction of searches with a mate in the gallery that do not return it, at any rank.

    The threshold is the smallest at which at most `fpir` of all probes, searched without their mate,
    return any candidate.
    """
    threshold = _finite(threshold_at(trial.best_other, fpir))
    return _share(trial.mated[trial.has_mate] < threshold)


def cmc(trial: Trial, ranks: int) -> Float64:
    """(ranks,) fraction of probes with a mate in the gallery that have it at rank 1..r."""
    own = trial.rank[trial.has_mate]
    return np.array([_share(own <= rank) for rank in range(1, ranks + 1)])


def det(misses: Float64, false_scores: Float64, points: int = 400) -> tuple[Float64, Float64]:
    """A DET curve: (false rates, miss rates), one pair per false rate on a log scale from 1/n to 1.

    misses: mated scores, -inf for failures. False rates are those the thresholds really have.
    """
    if not len(false_scores):
        return np.zeros(0), np.zeros(0)
    rates = np.geomspace(1 / len(false_scores), 1, points)
    ordered, mates = np.sort(false_scores), np.sort(misses)
    thresholds = np.array([_finite(_threshold(ordered, rate)) for rate in rates])
    false = 1 - np.searchsorted(ordered, thresholds, side="left") / len(ordered)
    missed = np.searchsorted(mates, thresholds, side="left") / max(len(mates), 1)
    return false, missed


def _threshold(ordered: Float64, rate: float) -> float:
    allowed = int(np.floor(rate * len(ordered) + 1e-9))
    if allowed >= len(ordered):
        return float("-inf")
    return float(np.nextafter(ordered[len(ordered) - 1 - allowed], np.inf))


def _finite(threshold: float) -> float:
    """No threshold accepts a failure: -inf becomes the smallest finite number."""
    return max(threshold, float(np.finfo(np.float64).min))


def _share(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
