"""Filters as the compiled scan takes them: numbers and tables instead of sets.

Agency, gallery and sex of a row are one number, its origin: a gallery has few different ones. A filter on
them is a table of the origins it lets through.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from homeward.errors import InvalidInput
from homeward.types import DAY_MAX, DAY_MIN, Filter, Query, UInt8
from index import plausibility
from index.block_table import SLOT_SHIFT
from index.columns import Columns, Int32, UInt64, id_words
from index.filter_loops import (
    AGE_EARLIEST,
    AGE_LATEST,
    BORN,
    EARLIEST,
    EVENT,
    FACT_BORN,
    FACT_FIELDS,
    FACT_TAKEN,
    FACTS,
    FILTER_FIELDS,
    FILTERS,
    LATEST,
    PHOTOS,
    PHOTOS_END,
    PLACES,
    PLACES_END,
    SEX,
    STRICT,
)

Int64 = npt.NDArray[np.int64]
UInt32 = npt.NDArray[np.uint32]


class Origins:
    """The different (agency, gallery, sex) of an index, numbered. One writer; readers take `table`."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[int, int, int], int] = {}
        self._table: Int32 = np.empty((0, 3), np.int32)

    @property
    def table(self) -> Int32:
        """(n, 3) agency, gallery and sex by number; replaced, never changed."""
        return self._table

    def code(self, columns: Columns, slots: npt.NDArray[np.uint16]) -> UInt32:
        """(n,) each row's slot and origin number. Raises `InvalidInput` beyond 2^20 different origins."""
        keys = np.zeros(len(columns), np.int64)
        for column in (columns.agency, columns.gallery, columns.sex):
            values, places = np.unique(column, return_inverse=True)
            _, keys = np.unique(keys * (len(values) + 1) + places, return_inverse=True)
        _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        different = zip(
            columns.agency[first].tolist(),
            columns.gallery[first].tolist(),
            columns.sex[first].tolist(),
            strict=True,
        )
        numbers = np.array([self._number(key) for key in different], np.uint32)
        if len(self._numbers) > len(self._table):
            self._table = np.array(list(self._numbers), np.int32).reshape(-1, 3)
        coded: UInt32 = numbers[inverse] | slots.astype(np.uint32) << np.uint32(SLOT_SHIFT)
        return coded

    def _number(self, key: tuple[int, int, int]) -> int:
        number = self._numbers.get(key)
        if number is None:
            number = len(self._numbers)
            if number >> SLOT_SHIFT:
                raise InvalidInput(
                    f"more than {1 << SLOT_SHIFT} different agencies, galleries and sexes",
                    code="COLUMN_RANGE",
                )
            self._numbers[key] = number
        return number


@dataclass(frozen=True, slots=True)
class FilterTables:
    """All filters of a batch."""

    filters: Int64  # (f, FILTER_FIELDS)
    origins: UInt8  # (f, origins)
    places: Int32
    photos: UInt64  # (n, 4)
    of_query: Int32  # (queries,)


def filter_tables(queries: Sequence[Query], origins: Int32) -> FilterTables:
    """The queries' filters; those that are equal are one."""
    numbers: dict[tuple[Filter, frozenset[str]], int] = {}
    of_query = [numbers.setdefault((one.filter, one.without_photos), len(numbers)) for one in queries]
    filters = np.zeros((len(numbers), FILTER_FIELDS), np.int64)
    passes = np.ones((len(numbers), max(1, len(origins))), np.uint8)
    places: list[int] = []
    photos: list[UInt64] = [np.empty((0, 4), np.uint64)]
    held = 0
    for number, (wanted, without) in enumerate(numbers):
        line = filters[number]
        line[FILTERS] = wanted not in (Filter(), Filter(strict=True)) or bool(without)
        line[STRICT] = wanted.strict
        for switch, span in ((BORN, wanted.born), (EVENT, wanted.event)):
            line[switch] = span is not None
            line[switch + 1 : switch + 3] = np.clip(span or (0, 0), DAY_MIN, DAY_MAX)
            if span is not None and (span[0] > DAY_MAX or span[1] < DAY_MIN):  # no row has such a day
                passes[number] = 0
        line[PLACES] = len(places)
        known = _known(wanted.places, wanted.strict)
        places += sorted(place for place in known if DAY_MIN <= place <= DAY_MAX)
        line[PLACES_END] = len(places)
        if known and line[PLACES] == line[PLACES_END]:  # no row can have a place that does not fit
            passes[number] = 0
        line[PHOTOS] = held
        if without:
            photos.append(id_words(sorted(without), 4))
            held += len(without)
        line[PHOTOS_END] = held
        for column, codes in (
            (0, wanted.agencies),
            (1, wanted.galleries),
            (2, _known(wanted.sexes, wanted.strict)),
        ):
            if codes and len(origins):
                passes[number, : len(origins)] &= np.isin(origins[:, column], np.array(sorted(codes)))
    return FilterTables(
        filters,
        passes,
        np.array(places, np.int32),
        np.concatenate(photos),
        np.array(of_query, np.int32),
    )


def fact_table(queries: Sequence[Query]) -> Int64:
    """(queries, FACT_FIELDS) what contradicts a row, as `index.plausibility.reasons` says."""
    table = np.zeros((len(queries), FACT_FIELDS), np.int64)
    for line, query in zip(table, queries, strict=True):
        facts = query.facts
        line[FACTS] = not plausibility.excludes_nobody(facts)
        line[SEX] = facts.sex
        line[FACT_BORN] = facts.born[0]
        line[FACT_TAKEN] = facts.taken[1]
        line[EARLIEST], line[LATEST] = facts.born
        line[AGE_EARLIEST], line[AGE_LATEST] = plausibility.birth_from_age(facts)
    return table


def _known(codes: frozenset[int], strict: bool) -> frozenset[int]:
    """The codes, and 0 (unknown) unless the filter is strict."""
    return codes | {0} if codes and not strict else codes
