"""The shard map survives its JSON, and nothing that contradicts itself is read as one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from homeward.errors import Corrupt
from index.placement import SLOTS, SlotLists, place
from index.shard_map import PlacedShard, Redundancy, ShardMap, assign, may_serve


def placed(number: int, *, alive: bool = True) -> PlacedShard:
    return PlacedShard(
        f"shard-{number:03d}",
        f"node-{number:03d}",
        80.0,
        address=f"10.20.30.{number}:17443" if alive else "",
        incarnation=f"{number:032x}" if alive else "",
    )


def full_map(count: int, replicas: int = 2) -> ShardMap:
    """All alive, all wanted slots ready."""
    shards = tuple(placed(number) for number in range(count))
    wanted = place([shard.info for shard in shards], replicas)
    return ShardMap(5, "model", replicas, shards, wanted, wanted)


def uniform(*names: str) -> SlotLists:
    return (names,) * SLOTS


@st.composite
def shard_maps(draw: st.DrawFn) -> ShardMap:
    """Any map that a controller could write: some shards lost, slots half ready or in change."""
    names = sorted(draw(st.sets(st.text(min_size=1, max_size=5), max_size=6)))
    shards = tuple(
        PlacedShard(
            name,
            draw(st.text(min_size=1, max_size=3)),
            draw(st.floats(1e-9, 1e9)),
            address="host:1" if alive else draw(st.sampled_from(["", "host:1"])),
            incarnation=f"{position:032x}" if alive else "",
            draining=draw(st.booleans()),
        )
        for position, name in enumerate(names)
        for alive in [draw(st.booleans())]
    )
    replicas = draw(st.integers(1, 4))
    chance = Random(draw(st.integers(0, 2**32)))
    alive = [shard.name for shard in shards if shard.incarnation]
    wanted, ready = [], []
    for _ in range(SLOTS):
        row = tuple(chance.sample(names, chance.randint(0, min(replicas, len(names)))))
        holds = chance.sample(alive, chance.randint(0, len(alive)))
        wanted.append(row)
        ready.append(
            (
                *(name for name in row if name in holds),
                *(name for name in names if name in holds and name not in row),
            )
        )
    return ShardMap(
        draw(st.integers(0, 2**53)),
        draw(st.text(min_size=1)),
        replicas,
        shards,
        tuple(wanted),
        tuple(ready),
    )


@settings(max_examples=15, deadline=None)
@given(shard_maps())
def test_a_map_comes_back_from_its_json(shard_map: ShardMap) -> None:
    text = shard_map.to_json()
    assert text.isascii()
    assert "\n" not in text
    assert ShardMap.from_json(text) == shard_map
    assert ShardMap.from_json(text.encode()) == shard_map
    assert ShardMap.from_json(text).to_json() == text


def test_the_empty_map_comes_back_from_its_json() -> None:
    empty = ShardMap.empty("model", 2)
    assert ShardMap.from_json(empty.to_json()) == empty


@pytest.mark.parametrize("count", [2, 16, 64])
def test_the_json_of_two_replicas_is_below_64_kib(count: int) -> None:
    whole = full_map(count)
    assert len(whole.to_json()) < 1 << 16
    joining = tuple(placed(number) for number in range(count + 1))
    wanted = place([shard.info for shard in joining], 2)
    ready = tuple(
        (*(name for name in new if name in old), *sorted(set(old) - set(new)))
        for old, new in zip(whole.ready, wanted, strict=True)
    )
    growing = ShardMap(6, "model", 2, joining, wanted, ready)
    assert ShardMap.from_json(growing.to_json()) == growing
    if count >= 16:  # of few shards a joining one takes so many slots that the change is the document
        assert len(growing.to_json()) < 1 << 16


def change(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    """Set what stands at the dotted path."""

    def apply(document: dict[str, Any]) -> None:
        *steps, last = [int(step) if step.isdigit() else step for step in path.split(".")]
        at: Any = document
        for step in steps:
            at = at[step]
        at[last] = value

    return apply


CORRUPTIONS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "another format": (change("format", 2), "format"),
    "no epoch": (lambda document: document.pop("epoch"), "epoch"),
    "negative epoch": (change("epoch", -1), "epoch"),
    "epoch that is no integer": (change("epoch", True), "epoch"),
    "epoch as text": (change("epoch", "5"), "epoch"),
    "no model": (change("model_id", ""), "model_id"),
    "no replicas": (change("replicas", 0), "replicas"),
    "unknown field": (change("rumour", 1), "rumour"),
    "unknown field of a shard": (change("shards.1.rumour", 1), "shards.1.rumour"),
    "shard without a name": (change("shards.0.name", ""), "shards.0.name"),
    "shard without a node": (change("shards.0.node", ""), "shards.0.node"),
    "weight zero": (change("shards.0.weight", 0), "shards.0.weight"),
    "infinite weight": (change("shards.0.weight", float("inf")), "shards.0.weight"),
    "weight that is no number": (change("shards.0.weight", float("nan")), "shards.0.weight"),
    "draining as a number": (change("shards.0.draining", 0), "shards.0.draining"),
    "shards unsorted": (lambda document: document["shards"].reverse(), "not sorted"),
    "one name twice": (change("shards.1.name", "shard-000"), "shard-000 twice"),
    "a slot too few": (lambda document: document["wanted"].pop(), "wanted"),
    "a slot too many": (lambda document: document["wanted"].append([]), "wanted"),
    "ready of a slot too few": (lambda document: document["ready"].pop(), "ready"),
    "ready of a slot too many": (lambda document: document["ready"].append(0), "ready"),
    "wanted of an unknown shard": (change("wanted.7", [3]), "wanted of slot 7 names shard 3 of 3"),
    "wanted of a negative shard": (change("wanted.7", [-1]), "wanted.7.0"),
    "wanted of a name": (change("wanted.7", ["shard-000"]), "wanted.7.0"),
    "wanted of one shard twice": (change("wanted.7", [1, 1]), "wanted of slot 7 names a shard twice"),
    "more wanted than replicas": (change("wanted.7", [0, 1, 2]), "3 shards for 2 replicas"),
    "ready beyond the wanted": (change("ready.7", 4), "ready of slot 7"),
    "ready negative": (change("ready.7", -1), "ready.7"),
    "ready without an incarnation": (change("shards.1.incarnation", ""), "shard-001 is ready for slot"),
    "ready without an address": (change("shards.1.address", ""), "shard-001 is ready for slot"),
    "also of an unknown slot": (change("also", [[SLOTS, 2]]), "also has slot 4096"),
    "also of nobody": (change("also", [[3]]), "also.0"),
    "also of a slot twice": (change("also", [[3, 2], [3, 2]]), "also has slot 3 after 3"),
    "also unsorted by slot": (change("also", [[4, 2], [3, 2]]), "also has slot 3 after 4"),
    "also of an unknown shard": (change("also", [[0, 3]]), "also of slot 0 names shard 3 of 3"),
    "also of a shard twice": (change("also", [[0, 2, 2]]), "also of slot 0 names a shard twice"),
}


@pytest.mark.parametrize(("spoil", "said"), CORRUPTIONS.values(), ids=CORRUPTIONS)
def test_a_document_that_contradicts_itself_is_corrupt_and_says_where(
    spoil: Callable[[dict[str, Any]], Any], said: str
) -> None:
    shards = tuple(placed(number) for number in range(3))
    wanted = uniform("shard-000", "shard-001")
    document = json.loads(ShardMap(5, "model", 2, shards, wanted, wanted).to_json())
    spoil(document)
    with pytest.raises(Corrupt) as caught:
        ShardMap.from_json(json.dumps(document))
    assert caught.value.code == "SHARD_MAP_INVALID"
    assert said in caught.value.message


def test_others_that_hold_a_slot_are_sorted_not_wanted_and_alive() -> None:
    shards = (*(placed(number) for number in range(3)), placed(3, alive=False))
    wanted = uniform("shard-000")
    document = json.loads(ShardMap(5, "model", 1, shards, wanted, wanted).to_json())
    for also, said in [
        ([[9, 2, 1]], "not sorted"),
        ([[9, 0, 1]], "a wanted shard"),
        ([[9, 3]], "shard-003 is ready for slot 9"),
    ]:
        with pytest.raises(Corrupt, match=said):
            ShardMap.from_json(json.dumps(document | {"also": also}))


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", "7", "{", "\x00", '"shard map"'])
def test_what_is_no_document_is_corrupt(text: str) -> None:
    with pytest.raises(Corrupt):
        ShardMap.from_json(text)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_damaged_document_is_corrupt_or_another_valid_one(data: st.DataObject) -> None:
    text = full_map(3).to_json()
    at = data.draw(st.integers(0, len(text) - 1))
    damaged = text[:at] + data.draw(st.sampled_from(["", "0", "9", "[", "]", ",", "x"])) + text[at + 1 :]
    try:
        read = ShardMap.from_json(damaged)
    except Corrupt:
        return
    assert ShardMap.from_json(read.to_json()) == read


@settings(max_examples=15, deadline=None)
@given(shard_maps(), st.data())
def test_each_slot_is_asked_of_its_first_usable_replica_or_of_none(
    shard_map: ShardMap, data: st.DataObject
) -> None:
    names = [shard.name for shard in shard_map.shards]
    usable = data.draw(st.sets(st.sampled_from(names))) if names else set()
    asked, missing = assign(shard_map, usable | {"a stranger's name"})
    assert all(mask.any() for mask in asked.values())
    for slot, ready in enumerate(shard_map.ready):
        first = [name for name in ready if name in usable][:1]
        assert [name for name, mask in asked.items() if mask[slot]] == first
        assert missing[slot] == (not first)


def test_what_a_lost_replica_was_asked_is_asked_of_many_others() -> None:
    shard_map = full_map(8)
    names = [shard.name for shard in shard_map.shards]
    whole, _ = assign(shard_map, names)
    without, missing = assign(shard_map, names[1:])
    assert not missing.any()
    taken = {name: (without[name] & ~whole[name]).sum() for name in names[1:]}
    assert sum(taken.values()) == whole[names[0]].sum()
    assert max(taken.values()) < 2 * whole[names[0]].sum() / 7


def test_masks_say_what_is_wanted_of_a_shard_and_what_it_is_ready_for() -> None:
    wanted = (("shard-000", "shard-001"), *uniform("shard-001")[1:])
    ready = (("shard-001",), *uniform("shard-000")[1:])
    shard_map = ShardMap(1, "model", 2, (placed(0), placed(1)), wanted, ready)
    assert np.flatnonzero(shard_map.wanted_of("shard-000")).tolist() == [0]
    assert shard_map.wanted_of("shard-001").all()
    assert not shard_map.ready_of("shard-000")[0]
    assert shard_map.ready_of("shard-000")[1:].all()
    assert not shard_map.ready_of("nobody").any()


def test_redundancy_counts_the_replicas_that_are_wanted_and_not_ready() -> None:
    wanted = uniform("shard-000", "shard-001")
    ready = ((), ("shard-001",), ("shard-000", "shard-002"), *wanted[3:])
    shards = (placed(0), placed(1), placed(2))
    redundancy = ShardMap(1, "model", 3, shards, wanted, ready).redundancy()
    assert redundancy == Redundancy(asked=3 * SLOTS, wanted=2 * SLOTS, ready=2 * SLOTS - 4, uncovered=1)
    assert redundancy.missing == 4


def test_only_the_listed_incarnation_may_serve() -> None:
    shard_map = ShardMap(1, "model", 1, (placed(0), placed(1, alive=False)), uniform(), uniform())
    listed = placed(0).incarnation
    assert may_serve(shard_map, "shard-000", listed)
    assert not may_serve(shard_map, "shard-000", "an older one")
    assert not may_serve(shard_map, "shard-002", listed)
    assert not may_serve(shard_map, "shard-001", "")
    assert not may_serve(replace(shard_map, shards=()), "shard-000", listed)
