"""What is shown beside a candidate, and how thresholds and names reach the index."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.facts import age_at, contradictions, earliest_taken, probe_facts, years_between
from cluster.plan import NOBODY, check_context, check_limits, coded, least_score, score_of_ratio
from cluster.search_types import Age, Known, SearchContext, SearchRequest, TemplateProbe, Wanted
from homeward.config import SearchSettings
from homeward.errors import CaseRequired, Conflict, InvalidInput
from homeward.types import DAY_MAX, DAY_MIN, Attributes, Calibration, DateRange, Sex
from tests.cluster.fakes import fake_template

CASE = SearchContext("case-1", "identification", "officer")
CALIBRATION = Calibration(
    a=40.0,
    b=-36.0,
    dataset="d",
    faces="adults",
    fitted_on=date(2026, 1, 1),
    mated=1000,
    non_mated=1_000_000,
    model_id="m",
)


def request(**changes: object) -> SearchRequest:
    return SearchRequest(context=CASE, probe=TemplateProbe(fake_template(b"", 0), "m"), **changes)  # type: ignore[arg-type]


def span(first: str, last: str = "", *, verified: bool = False) -> DateRange:
    return DateRange(date.fromisoformat(first), date.fromisoformat(last or first), verified)


@pytest.mark.parametrize("name", ["case_reference", "purpose", "requester"])
@pytest.mark.parametrize("value", ["", "  "])
def test_a_search_states_its_case_purpose_and_requester(name: str, value: str) -> None:
    texts = {"case_reference": "c", "purpose": "p", "requester": "r", name: value}
    with pytest.raises(CaseRequired) as refused:
        check_context(SearchContext(**texts))
    assert refused.value.details["field"] == f"context.{name}"


@given(st.floats(-200, 200))
def test_a_ratio_is_reached_from_its_score_on_and_not_one_bit_below(ratio: float) -> None:
    least = score_of_ratio(CALIBRATION, ratio)
    if least == 2.0:
        assert CALIBRATION.llr(2.0) < ratio
    else:
        assert CALIBRATION.llr(least) >= ratio
        if least > -2.0:
            below = least - 2.3e-16 * max(abs(least), 1e-3)
            assert CALIBRATION.llr(below) < ratio or below == least


def test_both_thresholds_hold() -> None:
    assert least_score(request(), None) is None
    assert least_score(request(min_score=0.5), None) == 0.5
    demanded = least_score(request(min_score=0.5, min_log_likelihood_ratio=0.0), CALIBRATION)
    assert demanded == pytest.approx(0.9)
    assert least_score(request(min_score=0.95, min_log_likelihood_ratio=0.0), CALIBRATION) == 0.95


def test_a_ratio_without_calibration_is_refused() -> None:
    with pytest.raises(Conflict) as refused:
        least_score(request(min_log_likelihood_ratio=1.0), None)
    assert refused.value.code == "NOT_CALIBRATED"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_thresholds_are_numbers(value: float) -> None:
    with pytest.raises(InvalidInput):
        least_score(request(min_score=value), None)
    with pytest.raises(InvalidInput):
        least_score(request(min_log_likelihood_ratio=value), CALIBRATION)


def test_limits_have_defaults_and_ends() -> None:
    settings = SearchSettings(default_k=7, max_k=9, max_evidence=5)
    assert check_limits(request(), settings) == (7, 3)
    assert check_limits(request(limit=9, evidence=5), settings) == (9, 5)
    for wrong in (request(limit=10), request(evidence=6)):
        with pytest.raises(InvalidInput):
            check_limits(wrong, settings)


def test_a_name_nobody_enrolled_under_finds_nothing() -> None:
    names = {("gallery", "missing"): 3}
    wanted = Wanted(galleries=("missing", "nowhere"), agencies=("nobody",))
    found = coded(wanted, lambda kind, name: names.get((kind, name)))
    assert found.galleries == {3, NOBODY}
    assert found.agencies == {NOBODY}


def test_only_verified_facts_may_exclude() -> None:
    born, taken = span("2010-01-01"), span("2015-01-01")
    loose = probe_facts(Known(Sex.MALE, False, born, taken, Age(5, 6)))
    assert (loose.sex, loose.born, loose.taken, loose.age_years) == (
        0,
        (DAY_MIN, DAY_MAX),
        (DAY_MIN, DAY_MAX),
        None,
    )
    firm = probe_facts(
        Known(
            Sex.MALE,
            True,
            span("2010-01-01", verified=True),
            span("2015-01-01", verified=True),
            Age(5, 6, True),
        )
    )
    assert firm.sex == Sex.MALE
    assert firm.born[0] == firm.born[1] != DAY_MIN
    assert firm.age_years == (5, 6)


def test_gaps_and_ages_are_elapsed_years() -> None:
    assert years_between(span("2011-06-01"), span("2014-06-01")) == pytest.approx(3.0, abs=0.01)
    assert years_between(span("2014-06-01"), span("2011-06-01")) == pytest.approx(3.0, abs=0.01)
    assert years_between(None, span("2011-06-01")) is None
    age = age_at(span("2010-01-01", "2010-12-31", verified=True), span("2015-12-31", verified=True))
    assert age is not None
    assert age.youngest == pytest.approx(5.0, abs=0.01)
    assert age.oldest == pytest.approx(6.0, abs=0.01)
    assert age.verified
    assert age_at(span("2020-01-01"), span("2015-01-01")) is None


def test_unverified_contradictions_are_noted() -> None:
    mine = Known(
        Sex.FEMALE, True, span("2010-01-01"), span("2015-01-01", verified=True), Age(5, 5, verified=True)
    )
    other = Attributes(born=span("2018-01-01"), sex=Sex.MALE)
    notes = contradictions(mine, other, mine.taken, span("2009-01-01", verified=True))
    assert notes == (
        "UNVERIFIED_SEX_DIFFERS",
        "UNVERIFIED_BIRTH_DIFFERS",
        "UNVERIFIED_REFERENCE_BEFORE_BIRTH",
        "UNVERIFIED_PROBE_BEFORE_BIRTH",
        "UNVERIFIED_AGE_IMPOSSIBLE",
    )


def test_verified_contradictions_are_the_indexs_business() -> None:
    mine = Known(Sex.FEMALE, True, span("2010-01-01", verified=True), span("2015-01-01", verified=True))
    other = Attributes(born=span("2018-01-01", verified=True), sex=Sex.MALE, sex_verified=True)
    assert contradictions(mine, other, mine.taken, span("2009-01-01", verified=True)) == ()


def test_what_is_unknown_contradicts_nothing() -> None:
    assert contradictions(Known(), Attributes(), None, None) == ()


def test_the_photo_that_shows_the_child_first_dates_it() -> None:
    early, late = span("2010-01-01"), span("2012-01-01", verified=True)
    assert earliest_taken([None, late, early]) == late
    assert earliest_taken([late, span("2011-01-01", verified=True)]) == span("2011-01-01", verified=True)
    assert earliest_taken([None]) is None
