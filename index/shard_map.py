"""The shard map: the document that says which shard holds which slot. One controller writes it, gRPC
servers and shards read it; the epoch rises with every change and a reader never goes back.

JSON of one line, shards by their index number in `shards`:

    {"format": 1, "epoch": 7, "model_id": "...", "replicas": 2,
     "shards": [{"name": "a", "node": "n1", "weight": 80.0, "address": "10.0.0.1:7443",
                 "incarnation": "5f2c...", "draining": false}, ...],   sorted by name
     "wanted": [[0, 1], [1, 0], ...],    per slot, best first
     "ready": [3, 1, ...],               per slot: bit i says that wanted[i] holds it
     "also": [[17, 2], ...]}             slot, then shards that hold it though not wanted (any more)
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, Field, ValidationError

from homeward.errors import Corrupt
from index.columns import Bool
from index.placement import SLOTS, ShardInfo, SlotLists

_Text = Annotated[str, Field(min_length=1)]
_Number = Annotated[int, Field(ge=0)]
_PerSlot = Field(min_length=SLOTS, max_length=SLOTS)


@dataclass(frozen=True, slots=True)
class PlacedShard:
    """One shard. Without an incarnation it has no living process, and is ready for nothing."""

    name: _Text
    node: _Text
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    address: str = ""  # host:port, "" when unknown
    incarnation: str = ""  # a fresh random id each time the process starts, "" when there is none now
    draining: bool = False  # it is to leave once others hold what it is ready for

    @property
    def info(self) -> ShardInfo:
        """What placement has to know of it."""
        return ShardInfo(self.name, self.node, self.weight)


@dataclass(frozen=True, slots=True)
class Redundancy:
    """How far the index is from what is wanted, in (slot, replica) pairs."""

    asked: int  # slots times replicas
    wanted: int  # of these, what the present nodes can hold
    ready: int  # of the wanted
    uncovered: int  # slots without any ready replica

    @property
    def missing(self) -> int:
        """Wanted and not ready: what is yet to be loaded."""
        return self.wanted - self.ready


@dataclass(frozen=True, slots=True)
class ShardMap:
    """The whole document."""

    epoch: int
    model_id: str
    replicas: int
    shards: tuple[PlacedShard, ...]  # by name
    wanted: SlotLists  # per slot, best first
    ready: SlotLists  # per slot who holds it whole and follows: as in wanted, then others by name

    @classmethod
    def empty(cls, model_id: str, replicas: int) -> ShardMap:
        """The document of epoch 0, before any shard has joined."""
        return cls(0, model_id, replicas, (), ((),) * SLOTS, ((),) * SLOTS)

    def shard(self, name: str) -> PlacedShard | None:
        """The shard of that name, if it is a member."""
        return next((shard for shard in self.shards if shard.name == name), None)

    def wanted_of(self, name: str) -> Bool:
        """(SLOTS,) the slots that the shard is to hold."""
        return _mask_of(self.wanted, name)

    def ready_of(self, name: str) -> Bool:
        """(SLOTS,) the slots that the shard may be asked for. It must keep them while this says so,
        wanted or not."""
        return _mask_of(self.ready, name)

    def redundancy(self) -> Redundancy:
        """What of the wanted is ready."""
        pairs = list(zip(self.wanted, self.ready, strict=True))
        return Redundancy(
            asked=SLOTS * self.replicas,
            wanted=sum(len(wanted) for wanted, _ in pairs),
            ready=sum(len(set(wanted) & set(ready)) for wanted, ready in pairs),
            uncovered=sum(not ready for _, ready in pairs),
        )

    def to_json(self) -> str:
        """The document as one line of ASCII."""
        number = {shard.name: index for index, shard in enumerate(self.shards)}
        also = [
            [slot, *sorted(number[name] for name in ready if name not in wanted)]
            for slot, (wanted, ready) in enumerate(zip(self.wanted, self.ready, strict=True))
        ]
        document = {
            "format": 1,
            "epoch": self.epoch,
            "model_id": self.model_id,
            "replicas": self.replicas,
            "shards": [asdict(shard) for shard in self.shards],
            "wanted": [[number[name] for name in names] for names in self.wanted],
            "ready": [
                sum(1 << place for place, name in enumerate(wanted) if name in ready)
                for wanted, ready in zip(self.wanted, self.ready, strict=True)
            ],
            "also": [entry for entry in also if len(entry) > 1],
        }
        return json.dumps(document, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> ShardMap:
        """Parse a document. Raises `Corrupt` that says what is wrong in it."""
        try:
            wire = _Wire.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise _corrupt(f"{where} {first['msg']}".strip()) from error
        _check_shards(wire.shards)
        _check_wanted(wire)
        ready = [_chosen(row, bits) for row, bits in zip(wire.wanted, wire.ready, strict=True)]
        for slot, others in _checked_also(wire):
            ready[slot] = (*ready[slot], *others)
        _check_answering(wire, ready)
        return cls(
            epoch=wire.epoch,
            model_id=wire.model_id,
            replicas=wire.replicas,
            shards=wire.shards,
            wanted=_named(wire, wire.wanted),
            ready=_named(wire, ready),
        )


def assign(shard_map: ShardMap, usable: Collection[str]) -> tuple[dict[str, Bool], Bool]:
    """Which shard to ask for which slots, so that each slot is asked once.

    A slot goes to the first of its ready replicas that is one of `usable` (names). Returns the slots
    (SLOTS,) of each shard that gets any, and the slots (SLOTS,) that no usable replica holds. It looks
    at every slot: callers keep the answer for as long as the map and the usable shards stay.
    """
    number = {shard.name: index for index, shard in enumerate(shard_map.shards) if shard.name in usable}
    first = np.fromiter(
        (next((number[name] for name in ready if name in number), -1) for ready in shard_map.ready),
        dtype=np.int64,
        count=SLOTS,
    )
    asked = set(first.tolist())
    return {name: first == index for name, index in number.items() if index in asked}, first < 0


def may_serve(shard_map: ShardMap, name: str, incarnation: str) -> bool:
    """Whether this process of the shard may answer, `shard_map` being the newest document it has seen.

    One that is not listed was given up (cut off, replaced or removed) or is not admitted yet. It must
    not answer: nobody counts on its following deletions any more.
    """
    shard = shard_map.shard(name)
    return shard is not None and incarnation != "" and shard.incarnation == incarnation


class _Wire(BaseModel, frozen=True, strict=True, extra="forbid"):
    """Shapes and types of the JSON; the `_check` functions see to the rest."""

    format: Literal[1]
    epoch: _Number
    model_id: _Text
    replicas: Annotated[int, Field(ge=1)]
    shards: tuple[PlacedShard, ...]
    wanted: Annotated[tuple[tuple[_Number, ...], ...], _PerSlot]
    ready: Annotated[tuple[_Number, ...], _PerSlot]
    also: tuple[Annotated[tuple[_Number, ...], Field(min_length=2)], ...]


def _check_shards(shards: Sequence[PlacedShard]) -> None:
    for before, after in pairwise(shards):
        if before.name == after.name:
            raise _corrupt(f"shards lists {after.name} twice")
        if before.name > after.name:
            raise _corrupt(f"shards are not sorted: {after.name} stands after {before.name}")


def _check_wanted(wire: _Wire) -> None:
    for slot, (row, bits) in enumerate(zip(wire.wanted, wire.ready, strict=True)):
        _check_numbers(wire, "wanted", slot, row)
        if len(row) > wire.replicas:
            raise _corrupt(f"wanted of slot {slot} names {len(row)} shards for {wire.replicas} replicas")
        if bits >> len(row):
            raise _corrupt(f"ready of slot {slot} is {bits}, of {len(row)} wanted")


def _checked_also(wire: _Wire) -> Iterator[tuple[int, Sequence[int]]]:
    last = -1
    for slot, *others in wire.also:
        if not last < slot < SLOTS:
            raise _corrupt(f"also has slot {slot} after {last} of {SLOTS}")
        last = slot
        _check_numbers(wire, "also", slot, others)
        if others != sorted(others):
            raise _corrupt(f"also of slot {slot} is not sorted")
        if set(others) & set(wire.wanted[slot]):
            raise _corrupt(f"also of slot {slot} names a wanted shard")
        yield slot, others


def _check_numbers(wire: _Wire, field: str, slot: int, numbers: Sequence[int]) -> None:
    if len(set(numbers)) < len(numbers):
        raise _corrupt(f"{field} of slot {slot} names a shard twice")
    if numbers and max(numbers) >= len(wire.shards):
        raise _corrupt(f"{field} of slot {slot} names shard {max(numbers)} of {len(wire.shards)}")


def _check_answering(wire: _Wire, ready: Sequence[Sequence[int]]) -> None:
    silent = {number for number, shard in enumerate(wire.shards) if not (shard.incarnation and shard.address)}
    for slot, numbers in enumerate(ready):
        if not silent.isdisjoint(numbers):
            name = next(wire.shards[number].name for number in numbers if number in silent)
            raise _corrupt(f"{name} is ready for slot {slot} without an incarnation and an address")


def _chosen(row: tuple[int, ...], bits: int) -> tuple[int, ...]:
    if bits == (1 << len(row)) - 1:
        return row
    return tuple(number for place, number in enumerate(row) if bits >> place & 1)


def _named(wire: _Wire, rows: Sequence[Sequence[int]]) -> SlotLists:
    names = [shard.name for shard in wire.shards]
    return tuple([tuple([names[number] for number in row]) for row in rows])


def _mask_of(lists: SlotLists, name: str) -> Bool:
    return np.array([name in names for names in lists], dtype=np.bool_)


def _corrupt(what: str) -> Corrupt:
    return Corrupt(f"this is no shard map: {what}", code="SHARD_MAP_INVALID")
