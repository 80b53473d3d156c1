"""The compiled loops of a scan: bounds of every row, the few rows that may matter, their true scores.

Each thread takes chunks of rows from a shared counter and keeps, per query, the rows whose upper bound
reaches the k-th best lower bound of a record it knows of (its *cut*). Cuts only rise, are shared between the
threads, and hold for the whole index at any moment: k records with such lower bounds exist. A row is told
apart by its position, block << 32 | row, a record by its first row's: its rows lie side by side.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import float32, int32, uint8, uint32, uint64

from index.compiled import compiled, compiled_briefly
from index.kernel import TILE, array_at, at_address, bit_count, bounds, fetch, lowest_bit, packed, take

CHUNK = 64 * TILE  # rows taken at a time
LIVE, FIRST = 1, 2  # flags of a row: it counts; its record begins here
SLOT_SHIFT = 20  # an origin is slot << 20 | number of its (agency, gallery, sex)

# Columns of the block table: addresses of the block's arrays, then what is known of the block.
(CODES, SCALES, ERRORS, FLAGS, ORIGIN, PLACE, BORN_FROM, BORN_TO, EVENT_FROM, EVENT_TO, TAKEN_TO) = range(11)
(PHOTO, ROWS, USED, DEAD, MIXED) = range(11, 16)
BLOCK_FIELDS = 16
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


@compiled
def ascending(values: Any) -> Any:  # pragma: no cover - compiled
    """(n,) the order that sorts the values: D. L. Shell's method (CACM 2(7), 1959) with gaps that shrink
    by 9/4 (N. Tokuda, 1992).
    (numpy's sorts take numba fifteen seconds to compile.)"""
    order = np.arange(len(values))
    gap = 1
    while gap < len(values):
        gap = gap * 9 // 4 + 1
    while gap > 1:
        gap = 1 if gap < 4 else gap * 4 // 9
        for start in range(gap, len(values)):
            one = order[start]
            at = start
            while at >= gap and values[order[at - gap]] > values[one]:
                order[at] = order[at - gap]
                at -= gap
            order[at] = one
    return order


@compiled
def kth_lower(keys: Any, lower: Any, counted: Any, k: int) -> float:  # pragma: no cover - compiled
    """The k-th best record's lower bound, each record at its best counted row; -inf with fewer records.
    Rows of a record lie side by side."""
    best = np.empty(len(keys), np.float64)
    records = 0
    last = np.int64(-1)
    for one in range(len(keys)):
        if not counted[one]:
            continue
        if keys[one] != last:
            last = keys[one]
            best[records] = lower[one]
            records += 1
        else:
            best[records - 1] = max(best[records - 1], lower[one])
    if records < k:
        return -np.inf
    return float(best[ascending(best[:records])[records - k]])


@compiled_briefly
def settle(
    used: int, rows: Any, keys: Any, lower: Any, upper: Any, speaks: Any, k: int, cuts: Any
) -> int:  # pragma: no cover - compiled
    """Raise a query's two cuts by the rows kept for it, drop those below, and each row's repeats.

    cuts[0] is of records that facts allow, cuts[1] of all records. Returns how many rows are left."""
    order = ascending(rows[:used])
    count = 0
    sorted_rows = np.empty(used, np.int64)
    sorted_keys = np.empty(used, np.int64)
    low = np.empty(used, np.float64)
    high = np.empty(used, np.float64)
    speaking = np.empty(used, np.uint8)
    for one in order:
        if count and sorted_rows[count - 1] == rows[one]:
            low[count - 1] = max(low[count - 1], lower[one])
            high[count - 1] = max(high[count - 1], upper[one])
            continue
        sorted_rows[count] = rows[one]
        sorted_keys[count] = keys[one]
        low[count] = lower[one]
        high[count] = upper[one]
        speaking[count] = speaks[one]
        count += 1
    everyone = np.ones(count, np.uint8)
    cuts[0] = max(cuts[0], kth_lower(sorted_keys[:count], low[:count], speaking[:count], k))
    cuts[1] = max(cuts[1], kth_lower(sorted_keys[:count], low[:count], everyone, k))
    left = 0
    for one in range(count):
        if high[one] >= cuts[0 if speaking[one] else 1]:
            rows[left] = sorted_rows[one]
            keys[left] = sorted_keys[one]
            lower[left] = low[one]
            upper[left] = high[one]
            speaks[left] = speaking[one]
            left += 1
    return left


@compiled
def scan_chunks(
    blocks: Any,
    chunk_ends: Any,
    counter: int,
    pieces: Any,
    units: Any,
    biases: Any,
    offsets: Any,
    slack: Any,
    rough: Any,
    query_of: Any,
    filter_of: Any,
    filters: Any,
    origins: Any,
    sexes: Any,
    places: Any,
    photos: Any,
    slots: Any,
    facts: Any,
    left_out: Any,
    left_out_ends: Any,
    ks: Any,
    shared: Any,
    kept_rows: Any,
    kept_keys: Any,
    lower: Any,
    upper: Any,
    speaks: Any,
    used: Any,
    overflowed: Any,
    counts: Any,
) -> int:  # pragma: no cover - compiled
    """One thread's share of a scan; see `index.scan` for the arguments. Returns the chunks it did."""
    probes, queries, room = len(units), len(ks), kept_rows.shape[1]
    quads = pieces.shape[2] // 4
    # The next tile's codes are fetched while this one's are worked on: the memory's pace and the arithmetic's
    # do not add up.
    lines = TILE * 4 * quads // 64
    ahead = 2 * 64 * lines
    share = -(-lines // probes)
    least = np.empty((probes, 2), np.float32)  # of the rough look and of the whole one
    masks = np.empty(len(filters), np.uint64)
    cuts = shared.copy()
    centres = np.empty(TILE, np.float32)
    passes = np.empty(TILE, np.uint8)
    total = chunk_ends[-1]
    block = 0
    done = 0
    while True:
        chunk = take(counter, 1)
        if chunk >= total:
            return done
        done += 1
        while chunk >= chunk_ends[block]:
            block += 1
        begin = (chunk - (chunk_ends[block - 1] if block else 0)) * CHUNK
        table = blocks[block]
        n = table[USED]
        end = min(n, begin + CHUNK)
        errors = array_at(at_address(table[ERRORS]), n, float32)
        flags = array_at(at_address(table[FLAGS]), n, uint8)
        origin = array_at(at_address(table[ORIGIN]), n, uint32)
        place = array_at(at_address(table[PLACE]), n, int32)
        columns = (
            origin,
            array_at(at_address(table[BORN_FROM]), n, int32),
            array_at(at_address(table[BORN_TO]), n, int32),
            array_at(at_address(table[EVENT_FROM]), n, int32),
            array_at(at_address(table[EVENT_TO]), n, int32),
        )
        taken_to = array_at(at_address(table[TAKEN_TO]), n, int32)
        photo = array_at(at_address(table[PHOTO]), (n, 4), uint64)
        for query in range(queries):
            for kind in range(2):
                cuts[query, kind] = max(cuts[query, kind], shared[query, kind])
        for probe in range(probes):
            cut = cuts[query_of[probe], 0] - offsets[block, probe] - slack[block, probe]
            # A little lower than rounding may have put it: `slack` has room for that.
            least[probe, 1] = np.float32(max(cut, -1e30)) if not overflowed[query_of[probe]] else np.inf
            least[probe, 0] = np.float32(least[probe, 1] - rough[block, probe])
        for tile in range(begin, end, TILE):
            stop = min(TILE, end - tile)
            alive = uint64(0xFFFFFFFFFFFFFFFF) if stop == TILE else (uint64(1) << uint64(stop)) - uint64(1)
            if table[DEAD] or table[MIXED]:
                for one in range(stop):
                    row = tile + one
                    if not flags[row] & LIVE or (table[MIXED] and not slots[origin[row] >> SLOT_SHIFT]):
                        alive &= ~(uint64(1) << uint64(one))
                if not alive:
                    continue
            anything = uint64(0)
            for number in range(len(filters)):
                wanted = filters[number]
                mask = alive
                if wanted[FILTERS]:
                    mask = alive & uint64(
                        admitted_tile(
                            tile, stop, columns, place, photo, wanted, origins[number], places, photos, passes
                        )
                    )
                    if mask:
                        counts[number, 0] += bit_count(mask)
                        # A record counts at the first of its admitted rows.
                        bits = mask
                        while bits:
                            row = tile + lowest_bit(bits)
                            bits &= bits - uint64(1)
                            first = True
                            while first and not flags[row] & FIRST:
                                row -= 1
                                if row >= tile:
                                    first = not mask >> uint64(row - tile) & uint64(1)
                                elif flags[row] & LIVE:
                                    first = not admits(
                                        row, columns, place, photo, wanted, origins[number], places, photos
                                    )
                            if first:
                                counts[number, 1] += 1
                masks[number] = mask
                anything |= mask
            if not anything:
                continue
            base = table[CODES] + (tile // 16) * (quads * 64)
            for probe in range(probes):
                query = query_of[probe]
                mask = masks[filter_of[query]]
                if not mask:
                    continue
                for line in range(probe * share, (probe + 1) * share):
                    fetch(base + ahead + 64 * line)
                hits = mask & bounds(
                    base,
                    table[SCALES] + 4 * tile,
                    table[ERRORS] + 4 * tile,
                    pieces.ctypes.data + probe * 8 * quads,
                    quads,
                    units[probe],
                    (biases[probe, 0], biases[probe, 1]),
                    (least[probe, 0], least[probe, 1]),
                    centres.ctypes.data,
                )
                while hits:
                    lane = lowest_bit(hits)
                    hits &= hits - uint64(1)
                    row = tile + lane
                    middle = offsets[block, probe] + centres[lane]
                    reach = slack[block, probe] + errors[row]
                    first_row = row
                    while not flags[first_row] & FIRST:
                        first_row -= 1
                    key = np.int64(block) << 32 | first_row
                    out = False
                    for one in range(left_out_ends[query], left_out_ends[query + 1]):
                        out |= left_out[one] == key
                    if out:
                        continue
                    speaking = True
                    if facts[query, FACTS] and contradicts(row, columns, taken_to, facts[query], sexes):
                        # Rows that facts exclude speak only for a record of which all rows are so.
                        speaking = False
                        wanted = filters[filter_of[query]]
                        one = first_row
                        while one < n and not out and (one == first_row or not flags[one] & FIRST):
                            if (
                                flags[one] & LIVE
                                and not contradicts(one, columns, taken_to, facts[query], sexes)
                                and (
                                    not wanted[FILTERS]
                                    or admits(
                                        one,
                                        columns,
                                        place,
                                        photo,
                                        wanted,
                                        origins[filter_of[query]],
                                        places,
                                        photos,
                                    )
                                )
                            ):
                                out = True
                            one += 1
                        if out or middle + reach < cuts[query, 1]:
                            continue
                    at = used[query]
                    kept_rows[query, at] = np.int64(block) << 32 | row
                    kept_keys[query, at] = key
                    lower[query, at] = middle - reach
                    upper[query, at] = middle + reach
                    speaks[query, at] = speaking
                    used[query] = at + 1
                    if at + 1 < room:
                        continue
                    used[query] = settle(
                        room,
                        kept_rows[query],
                        kept_keys[query],
                        lower[query],
                        upper[query],
                        speaks[query],
                        ks[query],
                        cuts[query],
                    )
                    for kind in range(2):
                        shared[query, kind] = max(shared[query, kind], cuts[query, kind])
                        cuts[query, kind] = shared[query, kind]
                    if used[query] > room - room // 4:
                        overflowed[query] = 1
                        used[query] = 0
                    for one in range(probes):
                        if query_of[one] == query:
                            cut = cuts[query, 0] - offsets[block, one] - slack[block, one]
                            least[one, 1] = np.inf if overflowed[query] else np.float32(max(cut, -1e30))
                            least[one, 0] = np.float32(least[one, 1] - rough[block, one])
                    if overflowed[query]:
                        break
