"""What a `Router` is told and what it tells."""

from __future__ import annotations

from dataclasses import dataclass

from index.shard_types import ShardStatus

EXACT = "exact"  # every slot by a shard
MIXED = "exact+milvus"  # some slots by Milvus, for want of a live replica
MILVUS = "milvus"  # every slot by Milvus


@dataclass(frozen=True, slots=True)
class RouterSettings:
    """Limits of a router."""

    refresh_s: float = 0.25  # between looks at the shard map
    shard_timeout_s: float = 5.0  # one shard's answer
    hedge_s: float = 0.25  # after which other replicas are asked as well
    hedges_max: int = 8  # shards of which others are asked as well, at a time
    in_flight_max: int = 64  # searches that one shard is asked at a time
    fallbacks_max: int = 8  # searches that Milvus is asked at a time
    back_off_s: float = 1.0  # how long a shard that did not answer is left alone


@dataclass(frozen=True, slots=True)
class PushOutcome:
    """Which shards know of a commit. Those in `missed` may not, until they refuse to answer for want of
    the change log or have read it."""

    rev: int
    reached: dict[str, int]  # by shard name: the rev it has reached, `rev` at least
    missed: dict[str, str]  # by shard name: why not, a reason code


@dataclass(frozen=True, slots=True)
class ShardHealth:
    """One shard of the map as this server sees it."""

    name: str
    node: str
    address: str
    up: bool  # not left alone after a failure
    ready_slots: int  # by the map
    status: ShardStatus | None  # what it says of itself; None when it does not answer
    error: str = ""  # why not, a reason code


@dataclass(frozen=True, slots=True)
class RouterStatus:
    """How the shards are."""

    epoch: int
    shards: tuple[ShardHealth, ...]
    uncovered: int  # slots that no shard would be asked for: Milvus answers for them
    under_replicated: int  # (slot, replica) pairs wanted and not ready
