"""Compiled loops that say which rows a filter lets through and which contradict verified facts."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import int32

from index.block_table import SLOT_SHIFT
from index.compiled import compiled
from index.kernel import TILE, packed

# Columns of a filter; a range counts when its switch is 1.
(FILTERS, STRICT, BORN, BORN_LEAST, BORN_MOST, EVENT, EVENT_LEAST, EVENT_MOST) = range(8)
(PLACES, PLACES_END, PHOTOS, PHOTOS_END) = range(8, 12)
FILTER_FIELDS = 12
# Columns of facts: a row contradicts when it lies wholly outside.
(FACTS, SEX, FACT_BORN, FACT_TAKEN, EARLIEST, LATEST, AGE_EARLIEST, AGE_LATEST) = range(8)
FACT_FIELDS = 8

_MIN, _MAX = np.int32(-(2**31)), np.int32(2**31 - 1)


@compiled
def admits(
    row: int, columns: Any, place: Any, photo: Any, wanted: Any, origins: Any, places: Any, photos: Any
) -> bool:  # pragma: no cover - compiled
    """Whether a filter lets the row through. `columns` are origin, born and event from and to."""
    origin, born_from, born_to, event_from, event_to = columns
    if not origins[origin[row] & ((1 << SLOT_SHIFT) - 1)]:
        return False
    if wanted[BORN]:
        if born_from[row] > wanted[BORN_MOST] or born_to[row] < wanted[BORN_LEAST]:
            return False
        if wanted[STRICT] and born_from[row] == -(2**31) and born_to[row] == 2**31 - 1:
            return False
    if wanted[EVENT]:
        if event_from[row] > wanted[EVENT_MOST] or event_to[row] < wanted[EVENT_LEAST]:
            return False
        if wanted[STRICT] and event_from[row] == -(2**31) and event_to[row] == 2**31 - 1:
            return False
    if wanted[PLACES] < wanted[PLACES_END]:
        among = False
        for one in range(wanted[PLACES], wanted[PLACES_END]):
            among |= place[row] == places[one]
        if not among:
            return False
    for one in range(wanted[PHOTOS], wanted[PHOTOS_END]):
        if (
            photo[row, 0] == photos[one, 0]
            and photo[row, 1] == photos[one, 1]
            and photo[row, 2] == photos[one, 2]
            and photo[row, 3] == photos[one, 3]
        ):
            return False
    return True


@compiled
def admitted_tile(
    tile: int,
    stop: int,
    columns: Any,
    place: Any,
    photo: Any,
    wanted: Any,
    origins: Any,
    places: Any,
    photos: Any,
    passes: Any,
) -> int:  # pragma: no cover - compiled
    """As `admits`, for rows tile..tile+stop at once: bits. `passes` is room for 64 bytes."""
    origin, born_from, born_to, event_from, event_to = columns
    for one in range(stop):
        passes[one] = origins[origin[tile + one] & ((1 << SLOT_SHIFT) - 1)]
    if wanted[BORN]:
        least, most = int32(wanted[BORN_LEAST]), int32(wanted[BORN_MOST])
        for one in range(stop):
            passes[one] &= (born_from[tile + one] <= most) & (born_to[tile + one] >= least)
        if wanted[STRICT]:
            for one in range(stop):
                passes[one] &= (born_from[tile + one] != _MIN) | (born_to[tile + one] != _MAX)
    if wanted[EVENT]:
        least, most = int32(wanted[EVENT_LEAST]), int32(wanted[EVENT_MOST])
        for one in range(stop):
            passes[one] &= (event_from[tile + one] <= most) & (event_to[tile + one] >= least)
        if wanted[STRICT]:
            for one in range(stop):
                passes[one] &= (event_from[tile + one] != _MIN) | (event_to[tile + one] != _MAX)
    if wanted[PLACES] < wanted[PLACES_END]:
        for one in range(stop):
            if passes[one]:
                among = False
                for number in range(wanted[PLACES], wanted[PLACES_END]):
                    among |= place[tile + one] == places[number]
                passes[one] = among
    for number in range(wanted[PHOTOS], wanted[PHOTOS_END]):
        for one in range(stop):
            if photo[tile + one, 0] == photos[number, 0]:
                passes[one] &= not (
                    photo[tile + one, 1] == photos[number, 1]
                    and photo[tile + one, 2] == photos[number, 2]
                    and photo[tile + one, 3] == photos[number, 3]
                )
    for one in range(stop, TILE):
        passes[one] = 0
    return int(packed(passes.ctypes.data))


@compiled
def contradicts(
    row: int, columns: Any, taken_to: Any, facts: Any, sexes: Any
) -> bool:  # pragma: no cover - compiled
    """Whether verified facts exclude the row: `index.plausibility.reasons` is not 0."""
    origin, born_from, born_to, _, _ = columns
    sex = sexes[origin[row] & ((1 << SLOT_SHIFT) - 1)]
    return bool(
        (facts[SEX] != 0 and sex != 0 and sex != facts[SEX])
        or taken_to[row] < facts[FACT_BORN]
        or born_from[row] > facts[FACT_TAKEN]
        or born_from[row] > facts[LATEST]
        or born_to[row] < facts[EARLIEST]
        or born_from[row] > facts[AGE_LATEST]
        or born_to[row] < facts[AGE_EARLIEST]
    )
