"""What the controller knows of the shards, and the next shard map: events in, documents out, no I/O.

    joined ---> loading its wanted slots, ready slot by slot as it reports them
      ^  |
      |  +--lost------> a member without a process; for `grace_s` its slots wait for it, then others
      |  |              are wanted for them too
      +--|-- joined     (Ray restarted it; its slots come back to it)
         |
         +--draining--> nothing is wanted of it; it stays ready until others are -> drained -> removed

A slot changes hands in two documents: one wants it of its new holders while the old ones stay ready,
and the next, once every new holder has reported it, takes the old ones off. So no decision of the
keeper's own ever takes the last ready replica of a slot.

A report counts for a slot from the epoch that first wanted the slot of this very process: one that was
made earlier may speak of rows that the shard has dropped since.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import inf

import numpy as np
import numpy.typing as npt

from homeward.errors import InvalidInput, NotFound
from index.columns import Bool
from index.placement import SLOTS, ShardInfo, SlotLists, place, slots_by_shard
from index.shard_map import PlacedShard, ShardMap

GRACE_S = 10.0

_NOT_WANTED = 0  # documents that want anything have epochs from 1
_NOWHERE = np.zeros(SLOTS, np.bool_)
_NOWHERE.setflags(write=False)


@dataclass(slots=True)
class _Member:
    """One shard as last heard of."""

    info: ShardInfo
    address: str = ""
    incarnation: str = ""  # "" while it is lost
    lost_at: float = -inf  # means something while it is lost
    draining: bool = False
    reported: int = 0  # the epoch of this incarnation's newest report
    last: str = ""  # the incarnation that it has or, while it is lost, had
    replaced: set[str] = field(default_factory=set)  # incarnations that another one followed
    ready: Bool = field(default_factory=lambda: _NOWHERE)  # (SLOTS,) replaced whole, never written into
    # (SLOTS,) the epoch since which every document wants the slot of this incarnation
    since: npt.NDArray[np.int64] = field(default_factory=lambda: np.full(SLOTS, _NOT_WANTED, np.int64))

    def starts(self, incarnation: str, address: str) -> None:
        """Nothing that was reported before this moment counts any more."""
        self.incarnation = incarnation
        self.address = address
        self.reported = 0
        self.ready = _NOWHERE
        self.since = np.full(SLOTS, _NOT_WANTED, np.int64)

    def placed(self) -> PlacedShard:
        return PlacedShard(
            self.info.name,
            self.info.node,
            self.info.weight,
            self.address,
            self.incarnation,
            self.draining,
        )


class ShardKeeper:
    """The controller's state machine. Not thread-safe. `now` is monotonic seconds of one clock."""

    def __init__(
        self, start: ShardMap, *, now: float, replicas: int | None = None, grace_s: float = GRACE_S
    ) -> None:
        """Go on from the last document written (`ShardMap.empty` if there is none). Its shards are
        taken to be alive as it says, until `lost`. `replicas`, if given, replaces the document's.
        """
        self._map = start
        self._replicas = start.replicas if replicas is None else replicas
        self._grace_s = grace_s
        self._members: dict[str, _Member] = {}
        self._placed_for: tuple[ShardInfo, ...] | None = None
        self._wanted: SlotLists = start.wanted
        self._wanted_masks: dict[str, Bool] = {}
        self._newest = start.epoch  # that any shard has seen
        self._changed = True  # something that the next document may depend on
        self._owed = False  # a document is needed even if it says the same
        wanted, ready = slots_by_shard(start.wanted), slots_by_shard(start.ready)
        for shard in start.shards:
            member = _Member(shard.info, shard.address, shard.incarnation, draining=shard.draining)
            member.last = shard.incarnation
            self._members[shard.name] = member
            if shard.name in wanted:
                # Of a lost shard nothing is wanted once its grace is over.
                member.lost_at = now
                member.since[wanted[shard.name]] = max(start.epoch, 1)
            if shard.name in ready:
                member.ready = ready[shard.name]

    @property
    def map(self) -> ShardMap:
        """The last document that `decide` gave, or the one started from."""
        return self._map

    def joined(self, info: ShardInfo, address: str, incarnation: str) -> None:
        """A process of the shard listens at `address` (host:port). It may be new, restarted or back
        after having been lost; a repeated event changes nothing. An incarnation that another one has
        replaced is ignored. Raises `InvalidInput` without an address or an incarnation.
        """
        if not address or not incarnation:
            raise InvalidInput(f"shard {info.name} joined without an address or an incarnation")
        member = self._members.setdefault(info.name, _Member(info))
        if incarnation in member.replaced:
            return
        if incarnation != member.incarnation:
            if member.last not in {"", incarnation}:
                member.replaced.add(member.last)
            member.last = incarnation
            member.starts(incarnation, address)
            # Its reports count from the next document on, so that there must be one.
            self._changed = self._owed = True
        if (member.info, member.address) != (info, address):
            member.info = info
            member.address = address
            self._changed = True

    def reported(self, name: str, incarnation: str, epoch: int, held: Bool) -> None:
        """The shard says that, having read the document `epoch`, it holds the slots `held` (SLOTS,)
        whole and follows their changes. Reports of other processes than the present one are ignored,
        and so is one that a report of a newer epoch has overtaken. Raises `InvalidInput` when `held`
        is no mask over all slots.
        """
        if held.shape != (SLOTS,) or held.dtype != np.bool_:
            raise InvalidInput(f"held must be {SLOTS} booleans, not {held.dtype} {held.shape}", field="held")
        member = self._members.get(name)
        if member is None or not incarnation or member.incarnation != incarnation or epoch < member.reported:
            return
        member.reported = epoch
        counts = member.ready
        if epoch <= self._map.epoch:
            counts = counts | ((member.since != _NOT_WANTED) & (member.since <= epoch))
        else:
            # The shard read a document that this keeper has never seen: the one it started from is
            # not the last that was written. What that one wanted is unknown, so nothing new counts.
            self._newest = max(self._newest, epoch)
            self._changed = self._owed = True
        ready = held & counts
        if not np.array_equal(ready, member.ready):
            member.ready = ready
            self._changed = True

    def lost(self, name: str, *, now: float, incarnation: str | None = None) -> None:
        """The shard does not answer any more, or its process died: it is ready for nothing from now
        on, but stays a member. With `incarnation`, only if that is its present one.
        """
        member = self._members.get(name)
        if member is None or not member.incarnation or incarnation not in {None, member.incarnation}:
            return
        member.starts("", "")
        member.lost_at = now
        self._changed = True

    def removed(self, name: str) -> None:
        """The shard is gone for good, scaled in or with its node."""
        if self._members.pop(name, None) is not None:
            self._changed = True

    def draining(self, name: str) -> None:
        """The shard is to leave. Raises `NotFound` when it is no member."""
        self._drain(name, draining=True)

    def staying(self, name: str) -> None:
        """The shard is not to leave after all. Raises `NotFound` when it is no member."""
        self._drain(name, draining=False)

    def is_drained(self, name: str) -> bool:
        """Whether a draining shard can be removed without a slot losing a ready replica: the last
        document lists it nowhere as ready. False for one that is not draining or no member."""
        member = self._members.get(name)
        if member is None or not member.draining:
            return False
        return not member.ready.any() and not any(name in ready for ready in self._map.ready)

    def decide(self, *, now: float) -> ShardMap | None:
        """The next document, if there is anything that a reader does not know yet. It must be stored
        before anybody is shown it: a keeper that goes on from an older one could give its epoch to
        another document.
        """
        self._place(now)
        if not self._changed:
            return None
        self._changed = False
        unseen = self._newest > self._map.epoch
        if unseen:
            self._forget_unseen()
        self._release()
        decided = ShardMap(
            epoch=max(self._newest, self._map.epoch) + 1,
            model_id=self._map.model_id,
            replicas=self._replicas,
            shards=tuple(self._members[name].placed() for name in sorted(self._members)),
            wanted=self._wanted,
            ready=self._ready_lists(),
        )
        if not self._owed and replace(decided, epoch=self._map.epoch) == self._map:
            return None
        self._owed = False
        for name, member in self._members.items():
            wanted = self._wanted_masks.get(name, _NOWHERE)
            first = (member.since == _NOT_WANTED) | unseen
            member.since = np.where(wanted, np.where(first, decided.epoch, member.since), _NOT_WANTED)
        self._map = decided
        return decided

    def _drain(self, name: str, *, draining: bool) -> None:
        member = self._members.get(name)
        if member is None:
            raise NotFound(f"there is no shard {name}")
        if member.draining != draining:
            member.draining = draining
            self._changed = True

    def _place(self, now: float) -> None:
        """Work out anew what is wanted, if other shards than before can be wanted."""
        eligible = tuple(
            member.info
            for _, member in sorted(self._members.items())
            if not member.draining and (member.incarnation or now - member.lost_at < self._grace_s)
        )
        if eligible != self._placed_for:
            self._wanted = place(eligible, self._replicas)
            self._wanted_masks = slots_by_shard(self._wanted)
            self._placed_for = eligible
            self._changed = True

    def _forget_unseen(self) -> None:
        """Documents that this keeper has never seen may have released what it believes to be ready."""
        for member in self._members.values():
            if member.reported < self._newest:
                member.ready = _NOWHERE

    def _release(self) -> None:
        """Take replicas that are not wanted off the slots of which all wanted ones are ready."""
        settled = np.array([bool(names) for names in self._wanted])
        for name, wanted in self._wanted_masks.items():
            settled &= ~wanted | self._members[name].ready
        for name, member in self._members.items():
            unwanted = ~self._wanted_masks.get(name, _NOWHERE)
            member.ready = member.ready & ~(settled & unwanted)

    def _ready_lists(self) -> SlotLists:
        """Per slot the ready shards: as in wanted, then others by name."""
        ready = {name: member.ready.tolist() for name, member in self._members.items()}
        lists = [[name for name in names if ready[name][slot]] for slot, names in enumerate(self._wanted)]
        for name, member in sorted(self._members.items()):
            others = member.ready & ~self._wanted_masks.get(name, _NOWHERE)
            for slot in np.flatnonzero(others).tolist():
                lists[slot].append(name)
        return tuple(tuple(names) for names in lists)
