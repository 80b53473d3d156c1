"""What a comparison score is worth: the log-likelihood ratio a * score + b, fitted on real pairs.

Platt's logistic regression ("Probabilistic Outputs for Support Vector Machines", 1999, with the
smoothed targets and the Newton steps of Lin, Lin and Weng, 2007) of mated against non-mated on the
score; taking the fitted set's own log prior odds off the intercept leaves the log-likelihood ratio
(N. Brümmer and J. du Preez, "Application-independent evaluation of speaker detection", 2006).
Natural logarithm throughout. It holds for faces and photos like those it was fitted on, no others.
"""

from __future__ import annotations

import json
import math
import os
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np

from homeward.errors import Corrupt, InvalidInput, Unavailable
from homeward.types import Calibration, Float32, Float64

CALIBRATION_TOML = "calibration.toml"
MIN_IDENTITIES = 20
MIN_MATED = 20
MIN_NON_MATED = 500
MAX_NON_MATED = 2_000_000  # more are thinned evenly
_STEPS = 100
_RIDGE = 1e-6  # of the curvature: keeps a Newton step finite when the scores separate perfectly


@dataclass(frozen=True, slots=True)
class PairScores:
    """Comparison scores of a labelled set: pairs of one identity, and pairs of two."""

    mated: Float64  # (m,)
    non_mated: Float64  # (n,)


def pair_scores(templates: Float32, identities: Sequence[str]) -> PairScores:
    """Scores of all pairs of rows: templates (n, d) float32 unit rows, identities (n,) labels."""
    exact = templates.astype(np.float64)
    labels = np.unique(np.asarray(identities), return_inverse=True)[1]
    mated: list[Float64] = []
    non_mated: list[Float64] = []
    for row in range(len(exact) - 1):
        scores = exact[row + 1 :] @ exact[row]
        same = labels[row + 1 :] == labels[row]
        mated.append(scores[same])
        non_mated.append(scores[~same])
    empty = np.zeros(0)
    return PairScores(np.concatenate([empty, *mated]), np.concatenate([empty, *non_mated]))


def check_enough(scores: PairScores, identities: int) -> None:
    """Raise `InvalidInput` (TOO_FEW_PAIRS) when the set is too small to say anything."""
    have = (identities, len(scores.mated), len(scores.non_mated))
    need = (MIN_IDENTITIES, MIN_MATED, MIN_NON_MATED)
    if any(count < least for count, least in zip(have, need, strict=True)):
        raise InvalidInput(
            f"{have[0]} people, {have[1]} mated and {have[2]} non-mated pairs are too few to calibrate on; "
            f"give at least {need[0]} people with two usable photos each, {need[1]} and {need[2]} pairs",
            code="TOO_FEW_PAIRS",
        )


def fit(scores: PairScores) -> tuple[float, float]:
    """The constants (a, b) of ln LR = a * score + b.

    Raises `InvalidInput` (CALIBRATION_FAILED) when mated pairs do not score higher than others, or
    when a score is not finite.
    """
    non_mated = scores.non_mated
    if len(non_mated) > MAX_NON_MATED:
        order = np.sort(non_mated)
        non_mated = order[np.linspace(0, len(order) - 1, MAX_NON_MATED).astype(np.int64)]
    values = np.concatenate([scores.mated, non_mated])
    if not len(scores.mated) or not len(non_mated) or not np.isfinite(values).all():
        raise InvalidInput("scores must be finite, of both kinds", code="CALIBRATION_FAILED")
    mated, others = len(scores.mated), len(non_mated)
    centre, spread = float(values.mean()), float(values.std()) or 1.0
    x = (values - centre) / spread
    # Platt's targets: what a Bayesian with one success and one failure seen would expect.
    target = np.concatenate([np.full(mated, (mated + 1) / (mated + 2)), np.full(others, 1 / (others + 2))])
    slope, intercept = _newton(x, target, math.log(mated / others))
    a = slope / spread
    b = intercept - a * centre - math.log(mated / others)
    if not (a > 0 and math.isfinite(a) and math.isfinite(b)):
        raise InvalidInput(
            "mated pairs do not score higher than non-mated ones: are the folders one person each?",
            code="CALIBRATION_FAILED",
        )
    return a, b


def _newton(x: Float64, target: Float64, intercept: float) -> tuple[float, float]:
    """Minimise the cross-entropy of sigmoid(w x + c) to `target`; Newton with step halving."""
    point = np.array([0.0, intercept])
    loss = _loss(x, target, point)
    for _ in range(_STEPS):
        z = point[0] * x + point[1]
        p = 1 / (1 + np.exp(-np.clip(z, -700, 700)))
        residual, curvature = p - target, p * (1 - p)
        gradient = np.array([residual @ x, residual.sum()])
        cross = float(curvature @ x)
        hessian = np.array([[float(curvature @ (x * x)), cross], [cross, float(curvature.sum())]])
        step = np.linalg.solve(hessian + np.eye(2) * (_RIDGE * np.trace(hessian) + 1e-12), gradient)
        size = 1.0
        while size > 1e-10 and _loss(x, target, point - size * step) > loss:
            size /= 2
        moved = point - size * step
        new = _loss(x, target, moved)
        if not new < loss:
            break
        done = loss - new < 1e-12 * max(loss, 1.0)
        point, loss = moved, new
        if done:
            break
    return float(point[0]), float(point[1])


def _loss(x: Float64, target: Float64, point: Float64) -> float:
    z = point[0] * x + point[1]
    return float((np.logaddexp(0, z) - target * z).sum())


def calibrate(
    templates: Float32,
    identities: Sequence[str],
    *,
    model_id: str,
    dataset: str,
    faces: str,
    today: date,
) -> Calibration:
    """Fit on all pairs of a labelled set, see `pair_scores`, `check_enough` and `fit` for the errors."""
    scores = pair_scores(templates, identities)
    check_enough(scores, len(set(identities)))
    a, b = fit(scores)
    return Calibration(
        a=a,
        b=b,
        dataset=dataset,
        faces=faces,
        fitted_on=today,
        mated=len(scores.mated),
        non_mated=len(scores.non_mated),
        model_id=model_id,
    )


def save_calibration(folder: Path, calibration: Calibration) -> Path:
    """Write `folder/calibration.toml`, atomically; returns its path."""
    lines = [
        "# Natural-log likelihood ratio of a comparison score: a * score + b.",
        f"a = {calibration.a!r}",
        f"b = {calibration.b!r}",
        f"dataset = {_toml_string(calibration.dataset)}",
        f"faces = {_toml_string(calibration.faces)}",
        f"fitted_on = {calibration.fitted_on.isoformat()}",
        f"mated = {calibration.mated}",
        f"non_mated = {calibration.non_mated}",
        f"model_id = {_toml_string(calibration.model_id)}",
    ]
    path = folder / CALIBRATION_TOML
    temporary = path.with_suffix(".part")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise Unavailable(f"{path} cannot be written ({error.strerror})") from error
    return path


def load_calibration(bundles_dir: Path, model_id: str) -> Calibration | None:
    """The calibration fitted for exactly this model, from `bundles_dir/*/calibration.toml`.

    None without one: a ratio is then absent, never zero. Raises `Corrupt` when a file is damaged.
    """
    for path in sorted(bundles_dir.glob(f"*/{CALIBRATION_TOML}")):
        if path.parent.name.startswith("."):
            continue
        calibration = find_calibration(path.parent)
        if calibration is not None and calibration.model_id == model_id:
            return calibration
    return None


def find_calibration(folder: Path) -> Calibration | None:
    """The calibration in one bundle's folder, whatever model it is of; raises like `load_calibration`."""
    path = folder / CALIBRATION_TOML
    return _read(path) if path.is_file() else None


def _read(path: Path) -> Calibration:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
        calibration = Calibration(**values)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, TypeError) as error:
        raise _damaged(path) from error
    numbers = (calibration.a, calibration.b)
    counts = (calibration.mated, calibration.non_mated)
    texts = (calibration.dataset, calibration.faces, calibration.model_id)
    sound = (
        all(isinstance(value, float) and math.isfinite(value) for value in numbers)
        and all(type(value) is int and value > 0 for value in counts)
        and all(isinstance(value, str) for value in texts)
        and type(calibration.fitted_on) is date
        and calibration.a > 0
    )
    if not sound:
        raise _damaged(path)
    return calibration


def _damaged(path: Path) -> Corrupt:
    return Corrupt(
        f"{path} is damaged: fit it again with `homeward models calibrate`, or remove it to do without",
        code="CALIBRATION_DAMAGED",
    )


def _toml_string(text: str) -> str:
    """A TOML basic string: JSON's escapes are TOML's, and DEL needs one too."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
