"""What the caller wants searched, as a mask over rows."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from homeward.errors import InvalidInput
from homeward.ids import check_id, check_sha256
from homeward.types import DAY_MAX, DAY_MIN, Filter, Query
from index.columns import Bool, Columns, Int32, member


def mask(wanted: Filter, columns: Columns) -> Bool:
    """(n,) whether each row passes.

    Sets: the row's code is one of them; ranges: the row's range overlaps the wanted one, both ends
    included. An unknown sex, place or range passes, unless the filter is strict; in a strict filter
    the code 0 in `sexes` or `places` asks for the unknown ones by name.
    """
    passes = np.ones(len(columns), dtype=np.bool_)
    if wanted.galleries:
        passes &= _among(columns.gallery, wanted.galleries)
    if wanted.agencies:
        passes &= _among(columns.agency, wanted.agencies)
    if wanted.sexes:
        passes &= _among(columns.sex, wanted.sexes, unknown_passes=not wanted.strict)
    if wanted.places:
        passes &= _among(columns.place, wanted.places, unknown_passes=not wanted.strict)
    if wanted.born is not None:
        passes &= _overlaps(columns.born_from, columns.born_to, wanted.born, strict=wanted.strict)
    if wanted.event is not None:
        passes &= _overlaps(columns.event_from, columns.event_to, wanted.event, strict=wanted.strict)
    return passes


def admitted(query: Query, columns: Columns) -> Bool:
    """(n,) whether each row passes the query's filter and is of no record or photo left out by name."""
    passes = mask(query.filter, columns)
    if query.without_records:
        passes &= ~member(columns.record, query.without_records)
    if query.without_photos:
        passes &= ~member(columns.photo, query.without_photos)
    return passes


def admits_all(query: Query) -> bool:
    """Whether the query lets every row through, so that no mask need be made."""
    return query.filter in (Filter(), Filter(strict=True)) and not (
        query.without_records or query.without_photos
    )


def check_filter(query: Query) -> None:
    """Raise `InvalidInput` on ids that are none and on ranges that end before they begin."""
    for record in query.without_records:
        check_id(record, "without_records")
    for photo in query.without_photos:
        check_sha256(photo, "without_photos")
    for name, span in (("born", query.filter.born), ("event", query.filter.event)):
        if span is not None and span[0] > span[1]:
            raise InvalidInput(f"the filter's {name} range ends before it begins", field=f"filter.{name}")


def _among(column: Int32, codes: Collection[int], *, unknown_passes: bool = False) -> Bool:
    wanted = set(codes) | {0} if unknown_passes else set(codes)
    return np.isin(column, np.array(sorted(wanted), dtype=np.int64))


def _overlaps(earliest: Int32, latest: Int32, wanted: tuple[int, int], *, strict: bool) -> Bool:
    passes = (earliest <= wanted[1]) & (latest >= wanted[0])
    if strict:
        passes &= (earliest != DAY_MIN) | (latest != DAY_MAX)
    return np.asarray(passes, dtype=np.bool_)
