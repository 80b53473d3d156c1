"""Where each record's rows begin: a hash table of four bytes an entry.

An entry is a place (block number << 16 | row); the id itself is read where the row is. Open addressing with
linear probing (Knuth, The Art of Computer Programming, vol. 3, section 6.4).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import uint64

from index.columns import UInt64
from index.compiled import compiled
from index.kernel import array_at, at_address

UInt32 = npt.NDArray[np.uint32]
ROW_BITS = 16
_EMPTY, _GONE = 0xFFFFFFFF, 0xFFFFFFFE
_FILL = 0.75  # entries in use, the gone ones among them, before the table is made anew
_LEAST = 64


@compiled
def _probe(
    table: Any, addresses: Any, stride: int, high: Any, low: Any
) -> Any:  # pragma: no cover - compiled
    """The entry of this id, or -1."""
    at = (high ^ (low * uint64(0x9E3779B97F4A7C15))) % uint64(len(table))
    while table[at] != _EMPTY:
        place = table[at]
        if place != _GONE:
            address = addresses[place >> 16] + np.int64(place & 0xFFFF) * stride
            record = array_at(at_address(address), 2, uint64)
            if record[0] == high and record[1] == low:
                return np.int64(at)
        at = at + uint64(1)
        if at == len(table):
            at = uint64(0)
    return -1


@compiled
def _find(
    table: Any, addresses: Any, stride: int, records: Any, places: Any
) -> None:  # pragma: no cover - compiled
    for one in range(len(records)):
        at = _probe(table, addresses, stride, records[one, 0], records[one, 1])
        places[one] = -1 if at < 0 else np.int64(table[at])


@compiled
def _put(
    table: Any, addresses: Any, stride: int, records: Any, places: Any
) -> int:  # pragma: no cover - compiled
    """Returns how many entries were taken into use."""
    taken = 0
    for one in range(len(records)):
        high, low = records[one, 0], records[one, 1]
        at = _probe(table, addresses, stride, high, low)
        if at < 0:
            spot = (high ^ (low * uint64(0x9E3779B97F4A7C15))) % uint64(len(table))
            while table[spot] != _EMPTY:
                spot = spot + uint64(1)
                if spot == len(table):
                    spot = uint64(0)
            at = np.int64(spot)
            taken += 1
        table[at] = places[one]
    return taken


@compiled
def _drop(table: Any, addresses: Any, stride: int, records: Any) -> int:  # pragma: no cover - compiled
    """Returns how many there were."""
    gone = 0
    for one in range(len(records)):
        at = _probe(table, addresses, stride, records[one, 0], records[one, 1])
        if at >= 0:
            table[at] = _GONE
            gone += 1
    return gone


@compiled
def _move(table: Any, into: Any, addresses: Any, stride: int) -> None:  # pragma: no cover - compiled
    for place in table:
        if place >= _GONE:
            continue
        address = addresses[place >> 16] + np.int64(place & 0xFFFF) * stride
        record = array_at(at_address(address), 2, uint64)
        at = (record[0] ^ (record[1] * uint64(0x9E3779B97F4A7C15))) % uint64(len(into))
        while into[at] != _EMPTY:
            at = at + uint64(1)
            if at == len(into):
                at = uint64(0)
        into[at] = place


class RunTable:
    """Record id to place. Written and read under the index's lock; the rows named must stay readable, with
    their ids, for as long as they are named."""

    def __init__(self, stride: int) -> None:
        self._stride = stride  # bytes between the ids of neighbouring rows
        self._table: UInt32 = np.full(_LEAST, _EMPTY, np.uint32)
        self._addresses = np.zeros(1, np.int64)  # by block number: where its first row's record id is
        self._used = 0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add_block(self, number: int, address: int) -> None:
        """Say where a block's record ids begin."""
        if number >= len(self._addresses):
            grown = np.zeros(max(number + 1, 2 * len(self._addresses)), np.int64)
            grown[: len(self._addresses)] = self._addresses
            self._addresses = grown
        self._addresses[number] = address

    def find(self, records: UInt64) -> npt.NDArray[np.int64]:
        """Places of the records (n, 2); -1 for one that has none."""
        places = np.empty(len(records), np.int64)
        _find(self._table, self._addresses, self._stride, np.ascontiguousarray(records), places)
        return places

    def put(self, records: UInt64, places: npt.NDArray[np.int64]) -> None:
        """Set the places of different records, whose rows are there already."""
        wanted = self._used + len(records)
        if wanted > _FILL * len(self._table):
            self._resize(self._count + len(records))
        taken = _put(
            self._table, self._addresses, self._stride, np.ascontiguousarray(records), places.astype(np.int64)
        )
        self._used += taken
        self._count += taken

    def drop(self, records: UInt64) -> None:
        """Forget different records, whose ids are still where they were."""
        self._count -= _drop(self._table, self._addresses, self._stride, np.ascontiguousarray(records))

    def _resize(self, count: int) -> None:
        larger: UInt32 = np.full(max(_LEAST, int(count / _FILL * 1.25)), _EMPTY, np.uint32)
        _move(self._table, larger, self._addresses, self._stride)
        self._table, self._used = larger, self._count
