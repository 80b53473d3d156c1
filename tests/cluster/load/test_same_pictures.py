"""Every close pair is found, none twice, as comparing all with all finds them."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cluster.load.same_pictures as module
from cluster.load.same_pictures import MOST_BITS, links
from homeward.types import UInt8
from tests.cluster.load.outcomes import flipped

Link = tuple[int, int, int]


def found(hashes: UInt8, most_bits: int) -> list[Link]:
    rows = [tuple(row) for batch in links(hashes, most_bits) for row in batch.tolist()]
    assert len(set(rows)) == len(rows)
    return sorted(rows)


def compared(hashes: UInt8, most_bits: int) -> list[Link]:
    """All with all."""
    ints = [int.from_bytes(row.tobytes()) for row in hashes]
    pairs = ((a, b, (ints[a] ^ ints[b]).bit_count()) for a, b in combinations(range(len(ints)), 2))
    return [pair for pair in pairs if pair[2] <= most_bits]


def crowd(seed: int, count: int, most: int) -> UInt8:
    """Random hashes, and near each some others."""
    random = np.random.default_rng(seed)
    rows: list[bytes] = []
    while len(rows) < count:
        if rows and random.random() < 0.7:
            near = rows[random.integers(len(rows))]
            rows.append(flipped(near, int(random.integers(most + 1)), int(random.integers(1 << 30))))
        else:
            rows.append(random.bytes(32))
    return np.frombuffer(b"".join(rows), np.uint8).reshape(-1, 32)


@given(st.integers(0, 2**30), st.integers(0, 60), st.integers(0, MOST_BITS))
@settings(max_examples=120, deadline=None)
def test_all_close_pairs_are_found_once(seed: int, count: int, most_bits: int) -> None:
    hashes = crowd(seed, count, most_bits + 8) if count else np.empty((0, 32), np.uint8)
    assert found(hashes, most_bits) == compared(hashes, most_bits)


@given(st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=6), st.data())
@settings(max_examples=150, deadline=None)
def test_a_pair_at_the_very_limit_is_found_wherever_its_bits_lie(
    rows: list[bytes], data: st.DataObject
) -> None:
    most_bits = data.draw(st.integers(0, MOST_BITS))
    bits = data.draw(st.lists(st.integers(0, 255), min_size=most_bits, max_size=most_bits, unique=True))
    other = int.from_bytes(rows[0]) ^ sum(1 << bit for bit in bits)
    hashes = np.frombuffer(b"".join([*rows, other.to_bytes(32)]), np.uint8).reshape(-1, 32)
    assert (0, len(rows), most_bits) in found(hashes, most_bits)
    assert found(hashes, most_bits) == compared(hashes, most_bits)


@pytest.mark.parametrize("most_bits", [0, 15, 16, 20, 31, 32, 40, 63])
def test_bits_that_avoid_as_many_chunks_as_they_can_are_found(most_bits: int) -> None:
    """The worst pairs: their bits are spread evenly over the chunks, in the order that serves least."""
    for turn in range(16):
        chunks = [(chunk + turn) % 16 for chunk in range(16)]
        spread = [0] * 16
        for number in range(most_bits):
            spread[chunks[number % 16]] += 1
        # Bit j of chunk c: the diagonal's c-th place of row j.
        bits = np.zeros(256, np.uint8)
        for chunk, ones in enumerate(spread):
            for place in range(ones):
                bits[place * 16 + (chunk - place) % 16] = 1
        assert bits.sum() == most_bits
        hashes = np.stack([np.zeros(32, np.uint8), np.packbits(bits)])
        assert found(hashes, most_bits) == [(0, 1, most_bits)]
        assert most_bits == 0 or found(hashes, most_bits - 1) == []


def test_many_pairs_come_in_several_arrays_and_none_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FOUND", 50)
    equal = np.zeros((300, 32), np.uint8)
    batches = list(links(equal, 20))
    assert len(batches) > 10
    assert sum(map(len, batches)) == 300 * 299 // 2
    assert found(equal, 0) == compared(equal, 0)


def test_the_answer_is_always_the_same() -> None:
    hashes = crowd(5, 500, 30)
    once, again = list(links(hashes, 24)), list(links(hashes.copy(), 24))
    assert all(np.array_equal(one, other) for one, other in zip(once, again, strict=True))
    assert found(hashes, 24) == compared(hashes, 24)


def test_thousands_of_hashes_laid_out_in_slices_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SLICE", 100)
    hashes = crowd(6, 1500, 40)
    assert found(hashes, 32) == compared(hashes, 32)


@pytest.mark.parametrize(
    ("hashes", "most_bits"),
    [
        (np.zeros((3, 31), np.uint8), 5),
        (np.zeros(32, np.uint8), 5),
        (np.zeros((3, 32), np.int8), 5),
        (np.zeros((3, 32), np.uint8), -1),
        (np.zeros((3, 32), np.uint8), MOST_BITS + 1),
    ],
)
def test_other_shapes_are_refused(hashes: UInt8, most_bits: int) -> None:
    with pytest.raises(ValueError, match=r"hashes are|from 0 to"):
        links(hashes, most_bits)
