"""From what the caller wants to what the index is asked: limits, thresholds, dictionary codes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from cluster.facts import days
from cluster.search_types import SearchContext, SearchRequest, Wanted
from homeward.config import SearchSettings
from homeward.errors import CaseRequired, Conflict, InvalidInput
from homeward.types import Calibration, Filter

DEFAULT_EVIDENCE = 3
SHOWN_MAX = 30_000  # enrolled faces of one answer: some 20 MiB
NOBODY = -1  # a code that no row carries: what a name that nobody enrolled under stands for


@dataclass(frozen=True, slots=True)
class Plan:
    """The checked, coded part of a request that does not depend on the probe."""

    k: int
    evidence: int
    min_score: float | None
    filter: Filter


def check_context(context: SearchContext) -> None:
    """Raise `CaseRequired` when case, purpose or requester is missing: nobody browses children."""
    for name in ("case_reference", "purpose", "requester"):
        # Joiners are text inside of names, and show nothing where they stand alone.
        if not any(one.isprintable() and not one.isspace() for one in getattr(context, name)):
            raise CaseRequired(
                f"a search must state its {name.replace('_', ' ')}: set context.{name}",
                field=f"context.{name}",
            )


def check_limits(request: SearchRequest, settings: SearchSettings) -> tuple[int, int]:
    """k and the faces shown per candidate. Raises `InvalidInput` (LIMIT_TOO_LARGE)."""
    k, evidence = request.limit or settings.default_k, request.evidence or DEFAULT_EVIDENCE
    for value, most, name in (
        (k, settings.max_k, "limit"),
        (evidence, max(settings.max_evidence, DEFAULT_EVIDENCE), "evidence_limit"),
    ):
        if value > most:
            raise InvalidInput(f"{name} is {value}; at most {most}", code="LIMIT_TOO_LARGE", field=name)
    return k, evidence


def check_size(faces: int, k: int, evidence: int) -> None:
    """Raise `InvalidInput` (ANSWER_TOO_LARGE) for an answer that could show too much to be written."""
    if faces * k * evidence > SHOWN_MAX:
        raise InvalidInput(
            f"{faces} lists of {k} candidates with {evidence} faces each are more than one answer holds; "
            "lower limit or evidence_limit, or name one face with face_ordinal",
            code="ANSWER_TOO_LARGE",
            field="limit",
        )


def least_score(request: SearchRequest, calibration: Calibration | None) -> float | None:
    """The comparison score that both thresholds demand; None without any.

    Raises `Conflict` (NOT_CALIBRATED) for a ratio when the model has no calibration.
    """
    ratio, least = request.min_log_likelihood_ratio, request.min_score
    for value, name in ((ratio, "min_log_likelihood_ratio"), (least, "min_comparison_score")):
        if value is not None and not math.isfinite(value):
            raise InvalidInput(f"{name} must be a finite number", field=name)
    if ratio is None:
        return least
    if calibration is None:
        raise Conflict(
            "this model has no calibration, so no log-likelihood ratio: use min_comparison_score, or run "
            "`homeward models calibrate`",
            code="NOT_CALIBRATED",
            field="min_log_likelihood_ratio",
        )
    demanded = score_of_ratio(calibration, ratio)
    return demanded if least is None else max(least, demanded)


def score_of_ratio(calibration: Calibration, ratio: float) -> float:
    """The least comparison score whose log-likelihood ratio reaches `ratio`, to the last bit.

    -2 (below every score) when every score reaches it, 2 (above every score) when none can.
    """
    low, high = -2.0, 2.0
    if calibration.llr(high) < ratio:
        return high
    if calibration.llr(low) >= ratio:
        return low
    while (middle := (low + high) / 2) not in (low, high):
        if calibration.llr(middle) >= ratio:
            high = middle
        else:
            low = middle
    return high


def coded(wanted: Wanted, code_of: Callable[[str, str], int | None]) -> Filter:
    """The filter in dictionary codes. `code_of(dictionary, name)` is None for an unknown name, which then
    finds nothing (it is no error: nobody may learn from it which names exist)."""

    def codes(dictionary: str, names: tuple[str, ...]) -> frozenset[int]:
        found = (code_of(dictionary, name) for name in names)
        return frozenset(NOBODY if code is None else code for code in found)

    return Filter(
        galleries=codes("gallery", wanted.galleries),
        agencies=codes("agency", wanted.agencies),
        sexes=frozenset(int(sex) for sex in wanted.sexes),
        born=days(wanted.born),
        event=days(wanted.event),
        places=codes("place", wanted.places),
        strict=wanted.strict,
    )
