"""Verified facts that exclude a row: reasons why it cannot show the probe's child.

Only verified facts reach the columns and `ProbeFacts`; an unknown side of a range is unbounded and
excludes nobody. The tolerance is 0 days: ranges exclude one another when they have no day in common.

Facts are judged row by row, for a record's photos differ: a photo dated before the probe's child
was born may be a wrongly filed photo in an otherwise plausible record. A record with a plausible
row is judged by its plausible rows alone (the others are no evidence for it, whatever they score); a
record is implausible when every one of its admitted rows is, and then for all their reasons together.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import numpy.typing as npt

from homeward.errors import InvalidInput
from homeward.types import DAY_MAX, DAY_MIN, Implausible, ProbeFacts
from index.columns import Bool, Columns

Reasons = npt.NDArray[np.uint8]  # (n,) one bit per reason, in the order of `REASONS`

REASONS = (
    Implausible.SEX_DIFFERS,
    Implausible.REFERENCE_BEFORE_BIRTH,
    Implausible.PROBE_BEFORE_BIRTH,
    Implausible.AGE_IMPOSSIBLE,
)
_DAYS_PER_YEAR = 365.25


def reasons(facts: ProbeFacts, columns: Columns) -> Reasons:
    """(n,) bits of the reasons against each row; 0 where the facts allow it.

    SEX_DIFFERS: both sexes are known and differ. REFERENCE_BEFORE_BIRTH: the reference photo was
    taken wholly before the probe's child was born. PROBE_BEFORE_BIRTH: the probe was taken wholly
    before the reference's child was born. AGE_IMPOSSIBLE: both births are known and share no day,
    or the probe's age when it was taken puts its child's birth wholly outside the reference's.
    """
    against = np.zeros(len(columns), dtype=np.uint8)
    born_from = facts.born[0]
    if facts.sex:
        _mark(against, 0, (columns.sex != 0) & (columns.sex != facts.sex))
    if born_from != DAY_MIN:
        _mark(against, 1, columns.taken_to < born_from)
    if facts.taken[1] != DAY_MAX:
        _mark(against, 2, columns.born_from > facts.taken[1])
    for earliest, latest in (facts.born, birth_from_age(facts)):
        if (earliest, latest) != (DAY_MIN, DAY_MAX):
            _mark(against, 3, (columns.born_from > latest) | (columns.born_to < earliest))
    return against


def excludes_nobody(facts: ProbeFacts) -> bool:
    """Whether the facts say nothing, so that `reasons` need not be computed."""
    unbounded = (DAY_MIN, DAY_MAX)
    return not facts.sex and facts.born == unbounded and facts.taken == unbounded


_ENDLESS_YEARS = 2e7  # before any day that there is


def birth_from_age(facts: ProbeFacts) -> tuple[int, int]:
    """Day numbers between which the probe's child was born, from its age when the probe was taken.

    Ages are elapsed years: a child "of five" is (5, 6). Whole years are turned into days by 365.25,
    rounded outwards, which holds every calendar length of n years from 1901 to 2099.
    """
    if facts.age_years is None:
        return DAY_MIN, DAY_MAX
    youngest, oldest = facts.age_years
    earliest, latest = DAY_MIN, DAY_MAX
    if facts.taken[0] != DAY_MIN and oldest < _ENDLESS_YEARS:
        earliest = max(DAY_MIN, facts.taken[0] - math.ceil(oldest * _DAYS_PER_YEAR))
    if facts.taken[1] != DAY_MAX:
        latest = facts.taken[1] - math.floor(youngest * _DAYS_PER_YEAR)
    return earliest, latest


def check_facts(facts: ProbeFacts) -> None:
    """Raise `InvalidInput` on ranges that end before they begin and on ages that are none."""
    for name, span in (("born", facts.born), ("taken", facts.taken)):
        if span[0] > span[1]:
            raise InvalidInput(f"the probe's {name} range ends before it begins", field=f"facts.{name}")
        if span[0] < DAY_MIN or span[1] > DAY_MAX:
            raise InvalidInput(f"the probe's {name} range has days that are none", field=f"facts.{name}")
    if facts.age_years is not None:
        youngest, oldest = facts.age_years
        if not (0.0 <= youngest <= oldest and youngest < 200.0):
            raise InvalidInput(
                "the probe's age must be a range of years, youngest first", field="facts.age_years"
            )


@cache
def names(bits: int) -> tuple[Implausible, ...]:
    """The reasons of a bit set, in their fixed order."""
    return tuple(reason for bit, reason in enumerate(REASONS) if bits >> bit & 1)


def _mark(against: Reasons, bit: int, rows: Bool) -> None:
    against[rows] |= np.uint8(1 << bit)
