"""Slots, and which shards hold them: weighted rendezvous hashing.

The gallery is cut into `SLOTS` slots by record id, so that a child's faces share one, and every slot
is placed on up to R shards of different nodes. A shard's score for a slot depends on nothing but the
two and the shard's weight; the best scores win. So a shard that joins takes slots from others and
moves none between them, and one that leaves gives up its own alone.

Sources: D. Thaler, C. Ravishankar, "Using name-based mappings to increase hit rates", IEEE/ACM
Transactions on Networking 6(1), 1998 (highest random weight); C. Schindelhauer, G. Schomaker,
"Weighted distributed hash tables", SPAA 2005 (the logarithmic method, which makes a shard's chance
of the first place proportional to its weight); in the form -weight / ln(u): J. Resch, "New hashing
algorithms for data storage", SNIA Storage Developer Conference 2015.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from homeward.errors import InvalidInput
from homeward.ids import check_id
from homeward.types import Float64
from index.columns import Bool, UInt64

SLOT_BITS = 12
SLOTS = 1 << SLOT_BITS

SlotLists = tuple[tuple[str, ...], ...]  # SLOTS lists of shard names, best first
UInt16 = npt.NDArray[np.uint16]

_DOMAIN = b"homeward/slot\0"


@dataclass(frozen=True, slots=True)
class ShardInfo:
    """A shard as placement sees it. Raises `InvalidInput` on an empty name or node, or a weight that
    is not positive and finite."""

    name: str
    node: str  # two replicas of a slot never share one
    weight: float = 1.0  # in proportion to device memory

    def __post_init__(self) -> None:
        if not self.name or not self.node:
            raise InvalidInput("a shard needs a name and a node", code="SHARD_INVALID")
        if any("\ud800" <= one <= "\udfff" for one in self.name + self.node):
            raise InvalidInput("a shard's name and node must be valid text", code="SHARD_INVALID")
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise InvalidInput(
                f"shard {self.name} has the weight {self.weight}; it must be positive and finite",
                code="SHARD_INVALID",
            )


def slot_of(record_id: str) -> int:
    """The slot of a record: the first 12 bits of its id, which is a hash. Raises `InvalidInput`."""
    return int(check_id(record_id, "record_id")[: SLOT_BITS // 4], 16)


def slots_of(record_words: UInt64) -> UInt16:
    """(n,) the slots of n records, from the (n, 2) words of their ids (`index.columns.id_words`)."""
    return (record_words[:, 0] >> np.uint64(64 - SLOT_BITS)).astype(np.uint16)


def place(shards: Sequence[ShardInfo], replicas: int) -> SlotLists:
    """For each slot the shards to hold it, best first: `replicas`, or as many as there are nodes.

    The order of `shards` does not matter. Raises `InvalidInput` when two have one name, or when
    `replicas` is below 1.
    """
    if replicas < 1:
        raise InvalidInput(f"replicas must be at least 1, not {replicas}", field="replicas")
    ordered = sorted(shards, key=lambda shard: shard.name)
    names = [shard.name for shard in ordered]
    if len(set(names)) < len(names):
        raise InvalidInput("two shards have one name", code="SHARD_INVALID", field="shards")
    if not ordered:
        return ((),) * SLOTS
    nodes = sorted({shard.node for shard in ordered})
    node = np.array([nodes.index(shard.node) for shard in ordered])  # (n,)
    score = np.stack([_scores(shard) for shard in ordered])  # (n, SLOTS)
    chosen = []
    for _ in range(min(replicas, len(nodes))):
        best = score.argmax(axis=0)  # (SLOTS,) of equal scores the first by name
        chosen.append([names[shard] for shard in best.tolist()])
        score[node[:, None] == node[best]] = -np.inf
    return tuple(zip(*chosen, strict=True))


def _scores(shard: ShardInfo) -> Float64:
    """(SLOTS,) the shard's score for each slot.

    The hash of (slot, name) is the slot-th 64-bit word of SHAKE-128 over the name: the same on
    every machine, and one call for all slots. Logarithms of two machines may differ in the last
    bit, which decides one placement in 10**9: one controller places, all others read what it wrote.
    """
    stream = hashlib.shake_128(_DOMAIN + shard.name.encode("utf-8")).digest(8 * SLOTS)
    words = np.frombuffer(stream, dtype=">u8").astype(np.uint64)
    # 52 bits and a half: exact in float64, and never 0 or 1, of which the logarithm is no divisor.
    uniform = ((words >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
    with np.errstate(over="ignore", under="ignore"):
        scores: Float64 = -shard.weight / np.log(uniform)
    return scores


def slots_by_shard(lists: SlotLists) -> dict[str, Bool]:
    """For each shard that stands in a list: (SLOTS,) in which slots' lists it stands.

    `mask.sum() / SLOTS` is the share of the gallery that the shard holds.
    """
    masks: dict[str, Bool] = {}
    for slot, names in enumerate(lists):
        for name in names:
            if name not in masks:
                masks[name] = np.zeros(SLOTS, dtype=np.bool_)
            masks[name][slot] = True
    return masks


def moved(before: SlotLists, after: SlotLists) -> int:
    """How many (slot, shard) pairs of `after` are not in `before`: the slot copies to be made."""
    return sum(len(set(now) - set(then)) for then, now in zip(before, after, strict=True))
