"""What verified facts exclude, day by day."""

from __future__ import annotations

import math
from datetime import date

import numpy as np
import pytest

from homeward.errors import InvalidInput
from homeward.types import DAY_MAX, DAY_MIN, Filter, Implausible, ProbeFacts, Query, day_number
from index.columns import from_rows
from index.filters import check_filter
from index.plausibility import REASONS, birth_from_age, check_facts, excludes_nobody, names, reasons
from tests.index.rows import face_row

EAST = np.array([1, 0], np.float32)


def _reasons(facts: ProbeFacts, **columns: int) -> tuple[Implausible, ...]:
    (bits,) = reasons(facts, from_rows([face_row("r", "p", 0, EAST, **columns)], 2)).tolist()
    return names(bits)


def test_unknown_facts_exclude_nobody() -> None:
    assert excludes_nobody(ProbeFacts())
    assert excludes_nobody(ProbeFacts(age_years=(1.0, 2.0)))  # an age without a date says nothing
    assert _reasons(ProbeFacts(age_years=(1.0, 2.0)), born_from=0, born_to=1) == ()
    full = ProbeFacts(sex=1, born=(10, 20), taken=(30, 40), age_years=(0.0, 1.0))
    assert _reasons(full) == ()
    known = {"sex": 2, "born_from": 0, "born_to": 1, "taken_from": 5, "taken_to": 6}
    assert _reasons(ProbeFacts(), **known) == ()


@pytest.mark.parametrize(
    ("probe", "row", "differs"), [(1, 2, True), (1, 1, False), (0, 2, False), (1, 0, False)]
)
def test_sexes_exclude_only_when_both_are_known(probe: int, row: int, differs: bool) -> None:
    assert _reasons(ProbeFacts(sex=probe), sex=row) == ((Implausible.SEX_DIFFERS,) if differs else ())


@pytest.mark.parametrize(("taken_to", "excluded"), [(99, True), (100, False), (DAY_MAX, False)])
def test_a_reference_from_before_the_probe_was_born(taken_to: int, excluded: bool) -> None:
    facts = ProbeFacts(born=(100, 200))
    found = _reasons(facts, taken_from=50, taken_to=taken_to)
    assert found == ((Implausible.REFERENCE_BEFORE_BIRTH,) if excluded else ())


@pytest.mark.parametrize(("born_from", "excluded"), [(201, True), (200, False), (DAY_MIN, False)])
def test_a_probe_from_before_the_reference_was_born(born_from: int, excluded: bool) -> None:
    facts = ProbeFacts(taken=(100, 200))
    found = _reasons(facts, born_from=born_from, born_to=900)
    assert found == ((Implausible.PROBE_BEFORE_BIRTH,) if excluded else ())


@pytest.mark.parametrize(
    ("born", "excluded"), [((0, 99), True), ((0, 100), False), ((200, 300), False), ((201, 300), True)]
)
def test_births_that_share_no_day(born: tuple[int, int], excluded: bool) -> None:
    found = _reasons(ProbeFacts(born=(100, 200)), born_from=born[0], born_to=born[1])
    assert found == ((Implausible.AGE_IMPOSSIBLE,) if excluded else ())


def test_an_age_allows_every_birthday_that_gives_it() -> None:
    taken = date(2020, 6, 15)
    day = day_number(taken)
    for years in range(18):
        earliest, latest = birth_from_age(ProbeFacts(taken=(day, day), age_years=(years, years + 1)))
        # Aged `years` on that day: born after the day `years` + 1 years before, and no later than `years`.
        assert latest >= day_number(date(2020 - years, 6, 15))
        assert earliest <= day_number(date(2020 - years - 1, 6, 16))
        assert latest - earliest <= 368
        facts = ProbeFacts(taken=(day, day), age_years=(years, years + 1))
        for born in (earliest, latest):
            assert _reasons(facts, born_from=born, born_to=born) == ()
        for born in (earliest - 1, latest + 1):
            assert Implausible.AGE_IMPOSSIBLE in _reasons(facts, born_from=born, born_to=born)


def test_an_age_without_upper_end_leaves_the_birth_open() -> None:
    facts = ProbeFacts(taken=(20_000, 20_010), age_years=(2.0, float("inf")))
    assert birth_from_age(facts) == (DAY_MIN, 20_010 - 730)
    half = ProbeFacts(taken=(DAY_MIN, 20_010), age_years=(2.0, 3.0))
    assert birth_from_age(half) == (DAY_MIN, 20_010 - 730)


def test_reasons_are_named_in_their_fixed_order() -> None:
    assert names(0) == ()
    assert names(0b1111) == REASONS == tuple(Implausible)


@pytest.mark.parametrize(
    "facts",
    [
        ProbeFacts(born=(2, 1)),
        ProbeFacts(taken=(2, 1)),
        ProbeFacts(age_years=(3.0, 2.0)),
        ProbeFacts(age_years=(-1.0, 2.0)),
        ProbeFacts(age_years=(float("nan"), 2.0)),
        ProbeFacts(age_years=(1.0, float("nan"))),
        ProbeFacts(taken=(-(2**63), -(2**63))),
        ProbeFacts(born=(0, 2**31)),
    ],
)
def test_facts_that_make_no_sense_are_refused(facts: ProbeFacts) -> None:
    with pytest.raises(InvalidInput):
        check_facts(facts)


@pytest.mark.parametrize("oldest", [1e7, 1.9e7, 2e7, 1e306, float("inf")])
def test_an_age_beyond_all_days_leaves_the_birth_open(oldest: float) -> None:
    for taken in (DAY_MIN + 1, 0, DAY_MAX - 1):
        earliest, _ = birth_from_age(ProbeFacts(taken=(taken, DAY_MAX), age_years=(0.0, oldest)))
        assert earliest == DAY_MIN or (oldest < 2e7 and earliest == taken - math.ceil(oldest * 365.25))


@pytest.mark.parametrize("wanted", [Filter(born=(2, 1)), Filter(event=(2, 1))])
def test_filters_that_make_no_sense_are_refused(wanted: Filter) -> None:
    with pytest.raises(InvalidInput, match="ends before it begins"):
        check_filter(Query(EAST[np.newaxis], 1, filter=wanted))
