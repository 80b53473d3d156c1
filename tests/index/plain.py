"""Filters and facts for one row at a time, in plain Python: what the vectorised ones must equal."""

from __future__ import annotations

import math

from homeward.types import DAY_MAX, DAY_MIN, FaceRow, Implausible, ProbeFacts, Query

UNKNOWN = (DAY_MIN, DAY_MAX)


def passes(query: Query, row: FaceRow) -> bool:
    """Whether the query may answer with the row."""
    wanted = query.filter
    if row.record_id in query.without_records or row.photo_sha256 in query.without_photos:
        return False
    if wanted.galleries and row.gallery not in wanted.galleries:
        return False
    if wanted.agencies and row.agency not in wanted.agencies:
        return False
    for value, values in ((row.sex, wanted.sexes), (row.place, wanted.places)):
        if values and value not in values and (wanted.strict or value != 0):
            return False
    for span, asked in (
        ((row.born_from, row.born_to), wanted.born),
        ((row.event_from, row.event_to), wanted.event),
    ):
        if asked is not None:
            if span == UNKNOWN and wanted.strict:
                return False
            if not _meet(span, asked):
                return False
    return True


def facts_against(facts: ProbeFacts, row: FaceRow) -> set[Implausible]:
    """Why the row cannot show the probe's child."""
    found = set()
    born = (row.born_from, row.born_to)
    if facts.sex and row.sex and facts.sex != row.sex:
        found.add(Implausible.SEX_DIFFERS)
    if row.taken_to < facts.born[0]:
        found.add(Implausible.REFERENCE_BEFORE_BIRTH)
    if facts.taken[1] < row.born_from:
        found.add(Implausible.PROBE_BEFORE_BIRTH)
    if not _meet(born, facts.born):
        found.add(Implausible.AGE_IMPOSSIBLE)
    if facts.age_years is not None:
        youngest, oldest = facts.age_years
        # Born so early that the child was older than `oldest` on the first day, or so late that it was
        # younger than `youngest` on the last.
        too_old = (
            facts.taken[0] != DAY_MIN
            and math.isfinite(oldest)
            and row.born_to < facts.taken[0] - math.ceil(oldest * 365.25)
        )
        too_young = facts.taken[1] != DAY_MAX and row.born_from > facts.taken[1] - math.floor(
            youngest * 365.25
        )
        if too_old or too_young:
            found.add(Implausible.AGE_IMPOSSIBLE)
    return found


def _meet(one: tuple[int, int], other: tuple[int, int]) -> bool:
    return one[0] <= other[1] and other[0] <= one[1]
