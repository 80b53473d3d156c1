"""Ages, gaps and contradictions between a probe and a candidate, from what is known of both.

Verified facts have excluded candidates already, in the index; here the rest is worked out, to be shown
beside a candidate and to exclude nobody. Years are elapsed years of 365.25 days.
"""

from __future__ import annotations

from cluster.search_types import Age, Known
from homeward.types import (
    Attributes,
    DateRange,
    ProbeFacts,
    Sex,
    day_number,
    verified_days,
)

DAYS_PER_YEAR = 365.25


SEX_DIFFERS = "UNVERIFIED_SEX_DIFFERS"
BIRTH_DIFFERS = "UNVERIFIED_BIRTH_DIFFERS"
REFERENCE_BEFORE_BIRTH = "UNVERIFIED_REFERENCE_BEFORE_BIRTH"
PROBE_BEFORE_BIRTH = "UNVERIFIED_PROBE_BEFORE_BIRTH"
AGE_IMPOSSIBLE = "UNVERIFIED_AGE_IMPOSSIBLE"


def probe_facts(known: Known) -> ProbeFacts:
    """The verified part of what is known: what the index may exclude by."""
    age = known.age
    return ProbeFacts(
        sex=int(known.sex) if known.sex_verified else int(Sex.UNKNOWN),
        born=verified_days(known.born),
        taken=verified_days(known.taken),
        age_years=(age.youngest, age.oldest) if age is not None and age.verified else None,
    )


def years_between(reference: DateRange | None, probe: DateRange | None) -> float | None:
    """Years between two photos, taken at the middle of each range; None where a date is unknown."""
    if reference is None or probe is None:
        return None
    return abs(_middle(probe) - _middle(reference)) / DAYS_PER_YEAR


def age_at(born: DateRange | None, taken: DateRange | None) -> Age | None:
    """How old a child born in `born` was in `taken`; None where unknown, or if it was not yet born."""
    if born is None or taken is None:
        return None
    oldest = (day_number(taken.latest) - day_number(born.earliest)) / DAYS_PER_YEAR
    if oldest < 0:
        return None
    youngest = max(0.0, (day_number(taken.earliest) - day_number(born.latest)) / DAYS_PER_YEAR)
    return Age(youngest, oldest, verified=born.verified and taken.verified)


def contradictions(
    known: Known, attributes: Attributes, probe_taken: DateRange | None, reference_taken: DateRange | None
) -> tuple[str, ...]:
    """Notes on facts that speak against a candidate and of which one at least is not verified."""
    found: list[str] = []
    born, mine = attributes.born, known.born
    if (
        known.sex
        and attributes.sex
        and known.sex != attributes.sex
        and not (known.sex_verified and attributes.sex_verified)
    ):
        found.append(SEX_DIFFERS)
    if _disjoint(mine, born) and not _both_verified(mine, born):
        found.append(BIRTH_DIFFERS)
    if _before(reference_taken, mine) and not _both_verified(reference_taken, mine):
        found.append(REFERENCE_BEFORE_BIRTH)
    if _before(probe_taken, born) and not _both_verified(probe_taken, born):
        found.append(PROBE_BEFORE_BIRTH)
    if known.age is not None and born is not None and probe_taken is not None:
        all_verified = known.age.verified and _both_verified(born, probe_taken)
        earliest = day_number(probe_taken.earliest) - known.age.oldest * DAYS_PER_YEAR - 1
        latest = day_number(probe_taken.latest) - known.age.youngest * DAYS_PER_YEAR + 1
        if (day_number(born.earliest) > latest or day_number(born.latest) < earliest) and not all_verified:
            found.append(AGE_IMPOSSIBLE)
    return tuple(found)


def earliest_taken(spans: list[DateRange | None]) -> DateRange | None:
    """Of several photos of one child: the one that shows it first, which bounds its birth best.

    Verified dates come before unverified ones.
    """
    dated = [span for span in spans if span is not None]
    return min(dated, key=lambda span: (not span.verified, span.latest, span.earliest), default=None)


def days(span: DateRange | None) -> tuple[int, int] | None:
    """A filter's range as day numbers; None for no range."""
    return None if span is None else (day_number(span.earliest), day_number(span.latest))


def _middle(span: DateRange) -> float:
    return (day_number(span.earliest) + day_number(span.latest)) / 2


def _before(first: DateRange | None, second: DateRange | None) -> bool:
    return first is not None and second is not None and first.latest < second.earliest


def _disjoint(first: DateRange | None, second: DateRange | None) -> bool:
    return _before(first, second) or _before(second, first)


def _both_verified(first: DateRange | None, second: DateRange | None) -> bool:
    return first is not None and second is not None and first.verified and second.verified
