"""All pairs of hashes that differ in few bits, without comparing every pair.

Multi-index hashing (Norouzi, Punjani, Fleet: Fast Search in Hamming Space with Multi-Index Hashing, CVPR
2012): the 256 bits are cut into 16 chunks of 16. Two hashes at most 16 r + a bits apart (a < 16) are at most
r bits apart in one of the first a + 1 chunks, or at most r - 1 in one of the others, for else they would
differ in (a + 1)(r + 1) + (15 - a) r = 16 r + a + 1 bits. So only hashes are compared that are so close in
such a chunk, which a table of its 65,536 values finds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

from homeward.types import UInt8

MOST_BITS = 63  # beyond it more values of a chunk would have to be looked at than there are photos

Int64 = npt.NDArray[np.int64]
_UInt16 = npt.NDArray[np.uint16]
_UInt64 = npt.NDArray[np.uint64]
_Function = TypeVar("_Function", bound=Callable[..., Any])

_BYTES = 32
_CHUNKS = 16
_BITS = 16  # of a chunk
_SLICE = 1 << 16  # hashes whose bits are laid out at a time
_FOUND = 1 << 18  # links of one array of the answer, about


def _compiled(function: _Function) -> _Function:
    """As machine code, compiled anew in each process: a second, for what runs once a load."""
    return cast(_Function, numba.njit(nogil=True)(function))


def links(hashes: UInt8, most_bits: int) -> Iterator[Int64]:
    """Every pair of rows of `hashes` (n, 32) uint8 that are at most `most_bits` (0 to 63) bits apart.

    Arrays (k, 3) int64 of a, b and the bits between them, a < b; each pair comes once, and the same hashes
    give the same arrays in the same order. Every pair is found, however many there are: of n equal hashes
    n (n - 1) / 2, so ask about different ones. Takes about 200 n bytes. Raises `ValueError` for other shapes.
    """
    if hashes.ndim != 2 or hashes.shape[1] != _BYTES or hashes.dtype != np.uint8:
        raise ValueError(f"hashes are (n, {_BYTES}) uint8, not {hashes.shape} {hashes.dtype}")
    if not 0 <= most_bits <= MOST_BITS:
        raise ValueError(f"from 0 to {MOST_BITS} bits, not {most_bits}")
    return _links(_laid_out(hashes), most_bits)


def _links(chunks: _UInt16, most_bits: int) -> Iterator[Int64]:
    count = len(chunks)
    r, a = divmod(most_bits, _CHUNKS)
    within = np.array([r if chunk <= a else r - 1 for chunk in range(_CHUNKS)], np.int64)
    found = np.empty((_FOUND + count, 3), np.int64)  # what one row finds always fits
    for chunk in range(_CHUNKS):
        if within[chunk] < 0:
            break
        order = np.argsort(chunks[:, chunk], kind="stable")
        keys = chunks[order, chunk]
        words = np.ascontiguousarray(chunks[order]).view(np.uint64)
        starts = np.searchsorted(keys, np.arange((1 << _BITS) + 1))
        masks = _masks(int(within[chunk]))
        row = 0
        while row < count:
            row, filled = _close(words, keys, starts, masks, within, chunk, most_bits, row, found)
            if filled:
                pairs = order[found[:filled, :2]]
                yield np.column_stack([pairs.min(axis=1), pairs.max(axis=1), found[:filled, 2]])


def _laid_out(hashes: UInt8) -> _UInt16:
    """(n, 16) uint16: each hash's chunks.

    A perceptual hash is a square of 16 x 16 frequencies, and the low ones are much alike in all portraits.
    Each chunk takes its bits along a diagonal, so that none is made of those alone and its table has more
    even places.
    """
    across, down = np.meshgrid(np.arange(_BITS), np.arange(_CHUNKS))  # bit and chunk
    places = (across * _CHUNKS + (down - across) % _CHUNKS).ravel()
    chunks = np.empty((len(hashes), _CHUNKS), np.uint16)
    for start in range(0, len(hashes), _SLICE):
        bits = np.unpackbits(hashes[start : start + _SLICE], axis=1)
        packed = np.ascontiguousarray(np.packbits(bits[:, places], axis=1))
        chunks[start : start + _SLICE] = packed.view(np.uint16)
    return chunks


def _masks(within: int) -> _UInt16:
    """What a chunk is combined with to get every value at most so many bits from it; 0 is the first."""
    ones = [combo for bits in range(within + 1) for combo in combinations(range(_BITS), bits)]
    return np.array([sum(1 << bit for bit in combo) for combo in ones], np.uint16)


@_compiled
def _bits_of(word: Any) -> Any:  # pragma: no cover - compiled
    """How many bits of a uint64 are set."""
    word = word - ((word >> np.uint64(1)) & np.uint64(0x5555555555555555))
    word = (word & np.uint64(0x3333333333333333)) + ((word >> np.uint64(2)) & np.uint64(0x3333333333333333))
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((word * np.uint64(0x0101010101010101)) >> np.uint64(56))


@_compiled
def _earlier(one: Any, other: Any, within: Any, chunk: int) -> Any:  # pragma: no cover - compiled
    """Whether two hashes (4,) uint64 are close enough in a chunk before this one: they were found by it."""
    for before in range(chunk):
        shift = np.uint64(16 * (before % 4))
        apart = ((one[before // 4] ^ other[before // 4]) >> shift) & np.uint64(0xFFFF)
        if _bits_of(apart) <= within[before]:
            return True
    return False


@_compiled
def _close(  # noqa: PLR0917 - compiled loops take arrays
    words: _UInt64,
    keys: _UInt16,
    starts: Int64,
    masks: _UInt16,
    within: Int64,
    chunk: int,
    most_bits: int,
    row: int,
    found: Int64,
) -> Any:  # pragma: no cover - compiled
    """Fill `found` (places in the chunk's order, bits) from `row` on; the next row and how many there are.

    words (n, 4), keys (n,): hashes and their chunk, sorted by it; starts: where each value begins.
    """
    count, filled = len(words), 0
    while row < count and filled + count - row <= len(found):
        for mask in masks:
            value = keys[row] ^ mask
            if value < keys[row]:
                continue  # seen from the other side
            first = row + 1 if mask == 0 else starts[value]
            for other in range(first, starts[np.int64(value) + 1]):
                bits = 0
                for word in range(4):
                    bits += _bits_of(words[row, word] ^ words[other, word])
                if bits <= most_bits and not _earlier(words[row], words[other], within, chunk):
                    found[filled, 0], found[filled, 1], found[filled, 2] = row, other, bits
                    filled += 1
        row += 1
    return row, filled
