"""The compiled loop of a scan: it looks at every row roughly, bounds few, and keeps those that may matter.

Each thread takes chunks of rows from a shared counter and keeps, per query, the rows whose upper bound
reaches the k-th best lower bound of a record it knows of (its *cut*). Cuts only rise, are shared between the
threads, and hold for the whole index at any moment: k records with such lower bounds exist. A row is told
apart by its position, block << 32 | row, a record by its first row's: its rows lie side by side.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import float32, int32, uint8, uint32, uint64

from index.block_table import (
    BORN_FROM,
    BORN_TO,
    CODES,
    DEAD,
    ERRORS,
    EVENT_FROM,
    EVENT_TO,
    FIRST,
    FLAGS,
    LIVE,
    MIXED,
    ORIGIN,
    PHOTO,
    PLACE,
    SCALES,
    SLOT_SHIFT,
    TAKEN_TO,
    USED,
)
from index.compiled import compiled
from index.cut_loops import settle
from index.filter_loops import FACTS, FILTERS, admits, admitted_tile, contradicts
from index.kernel import TILE, array_at, at_address, bit_count, bounds, fetch, lowest_bit, take

CHUNK = 64 * TILE  # rows taken at a time


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
    # Codes of the tile after the next are fetched while this one's are worked on, a share by each probe: the
    # memory's time and the arithmetic's do not add up.
    lines = TILE * 4 * quads // 64
    ahead = 2 * 64 * lines
    share = -(-lines // probes)
    least = np.empty((probes, 2), np.float32)  # of the rough look and of the whole one
    masks = np.empty(len(filters), np.uint64)
    cuts = shared.copy()
    centres = np.empty(TILE, np.float32)
    passes = np.empty(TILE, np.uint8)
    total = chunk_ends[-1]
    asked = np.full(
        queries, np.int64(-1)
    )  # the record of which `silent` says whether its excluded rows are so
    silent = np.zeros(queries, np.uint8)
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
        known_row, known_first = -1, -1  # a row and where its record begins: large ones are not walked again
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
                for line in range(probe * share, min((probe + 1) * share, lines)):
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
                        first_row = known_first if first_row == known_row else first_row - 1
                    known_row, known_first = row, first_row
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
                        if middle + reach < cuts[query, 1]:
                            continue
                        wanted = filters[filter_of[query]]
                        one = n if asked[query] == key else first_row
                        if one < n:
                            asked[query], silent[query] = key, 0
                        while one < n and not silent[query] and (one == first_row or not flags[one] & FIRST):
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
                                silent[query] = 1
                            one += 1
                        if silent[query]:
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
