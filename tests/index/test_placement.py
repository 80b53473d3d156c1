"""Slots are spread by weight, apart by node, and move as little as they can."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from homeward.errors import InvalidInput
from index.columns import id_words
from index.placement import SLOTS, ShardInfo, moved, place, slot_of, slots_by_shard, slots_of

NAMES = [f"shard-{number}" for number in range(12)]


@st.composite
def shard_sets(draw: st.DrawFn, *, least: int = 0) -> list[ShardInfo]:
    names = draw(st.lists(st.sampled_from(NAMES), min_size=least, unique=True))
    return [ShardInfo(name, f"node-{draw(st.integers(0, 4))}", draw(st.floats(0.01, 1000))) for name in names]


def equal_shards(count: int) -> list[ShardInfo]:
    return [ShardInfo(f"shard-{number}", f"node-{number}") for number in range(count)]


def test_the_slot_is_the_first_three_digits_of_the_record_id() -> None:
    assert slot_of("0" * 32) == 0
    assert slot_of("abc" + "0" * 29) == 0xABC
    assert slot_of("f" * 32) == SLOTS - 1


@pytest.mark.parametrize("record", ["", "abc", "A" * 32, "g" * 32, "0" * 33])
def test_what_is_no_record_id_has_no_slot(record: str) -> None:
    with pytest.raises(InvalidInput):
        slot_of(record)


def test_slots_of_words_are_the_slots_of_the_ids() -> None:
    chance = Random(1)
    records = [f"{chance.getrandbits(128):032x}" for _ in range(500)]
    slots = slots_of(id_words(records))
    assert slots.dtype == np.uint16
    assert slots.tolist() == [slot_of(record) for record in records]
    assert slots_of(id_words([])).shape == (0,)


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_a_weight_is_positive_and_finite(weight: float) -> None:
    with pytest.raises(InvalidInput):
        ShardInfo("a", "n", weight)


def test_a_shard_has_a_name_and_a_node() -> None:
    with pytest.raises(InvalidInput):
        ShardInfo("", "n")
    with pytest.raises(InvalidInput):
        ShardInfo("a", "")
    with pytest.raises(InvalidInput, match="valid text"):
        ShardInfo("a\udc80", "n")


def test_two_shards_of_one_name_are_refused() -> None:
    with pytest.raises(InvalidInput):
        place([ShardInfo("a", "n1"), ShardInfo("a", "n2")], 1)


def test_fewer_than_one_replica_is_refused() -> None:
    with pytest.raises(InvalidInput):
        place([ShardInfo("a", "n1")], 0)


def test_without_shards_no_slot_is_placed() -> None:
    assert place([], 2) == ((),) * SLOTS


@settings(max_examples=40, deadline=None)
@given(shard_sets(), st.integers(1, 4))
def test_no_two_replicas_share_a_node_and_no_possible_replica_is_left_out(
    shards: list[ShardInfo], replicas: int
) -> None:
    node = {shard.name: shard.node for shard in shards}
    count = min(replicas, len(set(node.values())))
    for names in place(shards, replicas):
        assert len({node[name] for name in names}) == len(names) == count


@settings(max_examples=30, deadline=None)
@given(shard_sets(), st.integers(1, 3), st.randoms())
def test_the_order_of_the_shards_does_not_matter(
    shards: list[ShardInfo], replicas: int, chance: Random
) -> None:
    shuffled = list(shards)
    chance.shuffle(shuffled)
    assert place(shuffled, replicas) == place(shards, replicas)


@settings(max_examples=40, deadline=None)
@given(shard_sets(least=1), st.integers(1, 3))
def test_a_shard_that_joins_is_all_that_enters_a_list_and_the_rest_keep_their_order(
    shards: list[ShardInfo], replicas: int
) -> None:
    joining = shards[-1]
    before, after = place(shards[:-1], replicas), place(shards, replicas)
    for old, new in zip(before, after, strict=True):
        if joining.name not in new:
            assert new == old
        stayed = [name for name in new if name != joining.name]
        assert stayed == [name for name in old if name in stayed]
    assert moved(before, after) == slots_by_shard(after).get(joining.name, np.zeros(SLOTS)).sum()


@settings(max_examples=40, deadline=None)
@given(shard_sets(least=1), st.integers(1, 3))
def test_a_shard_that_leaves_changes_only_the_slots_that_had_it(
    shards: list[ShardInfo], replicas: int
) -> None:
    leaving = shards[0].name
    for old, new in zip(place(shards, replicas), place(shards[1:], replicas), strict=True):
        if leaving in old:
            assert [name for name in old if name != leaving and name in new] == [
                name for name in new if name in old
            ]
        else:
            assert new == old


def test_a_joining_shard_takes_no_more_than_its_share() -> None:
    before, after = place(equal_shards(9), 2), place(equal_shards(10), 2)
    assert moved(before, after) == pytest.approx(SLOTS * 2 / 10, rel=0.15)


def test_slots_are_given_in_proportion_to_weight() -> None:
    weights = [1.0, 1.0, 2.0, 4.0, 8.0]
    shards = [ShardInfo(f"shard-{n}", f"node-{n}", weight) for n, weight in enumerate(weights)]
    masks = slots_by_shard(place(shards, 1))
    expected = SLOTS * np.array(weights) / sum(weights)
    given_out = np.array([masks[shard.name].sum() for shard in shards])
    chi_square = ((given_out - expected) ** 2 / expected).sum()
    assert chi_square < 18.5  # four degrees of freedom: exceeded once in a thousand


def test_equal_shards_get_equal_shares_of_every_place_in_the_lists() -> None:
    shards = equal_shards(8)
    lists = place(shards, 3)
    for rank in range(3):
        masks = slots_by_shard(tuple((names[rank],) for names in lists))
        given_out = np.array([masks[shard.name].sum() for shard in shards])
        chi_square = ((given_out - SLOTS / 8) ** 2 / (SLOTS / 8)).sum()
        assert chi_square < 24.3  # seven degrees of freedom: exceeded once in a thousand


@pytest.mark.filterwarnings("error")
def test_only_the_ratio_of_weights_matters_even_at_the_ends_of_floating_point() -> None:
    def placed(scale: float) -> tuple[tuple[str, ...], ...]:
        return place([ShardInfo("a", "n1", scale), ShardInfo("b", "n2", 4 * scale)], 2)

    assert placed(2.0**-900) == placed(1.0) == placed(2.0**900)
    place([ShardInfo("a", "n1", 5e-324), ShardInfo("b", "n2", 1.7e308)], 2)


def fingerprint() -> str:
    lists = place([ShardInfo(f"shard-{n}", f"node-{n % 5}", 1 + n % 3) for n in range(11)], 2)
    return hashlib.sha256("\n".join(" ".join(names) for names in lists).encode()).hexdigest()


def test_the_placement_is_that_of_every_process_and_release() -> None:
    # Another value would move most of every deployed index on an upgrade.
    expected = "1eef070aaebf1ca75b8823cae7ab9864b296a1e6f55e7889375ecde99a238242"
    assert fingerprint() == expected
    code = "from tests.index.test_placement import fingerprint; print(fingerprint())"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONHASHSEED": "7"}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == expected


def test_slots_by_shard_and_moved_count_pairs() -> None:
    before = (("a", "b"),) + (("a",),) * (SLOTS - 1)
    after = (("b", "c"),) + (("a",),) * (SLOTS - 1)
    masks = slots_by_shard(before)
    assert {name: int(mask.sum()) for name, mask in masks.items()} == {"a": SLOTS, "b": 1}
    assert masks["b"][0]
    assert moved(before, after) == 1
    assert moved(before, before) == 0
