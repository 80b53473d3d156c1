"""Decides which snapshots are due, and writes them from the index that this process holds."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from catalogue.store import Catalogue
from cluster.snapshot_format import GROUP_SLOTS, GROUPS, Pack, group_slots
from cluster.snapshots import Snapshots
from homeward.clock import Clock
from homeward.config import IndexSettings
from homeward.memory import give_back
from index.columns import Bool, Columns, concatenate
from index.placement import SLOTS, slot_of, slots_of
from index.shard import Shard

_PAGE = 4096  # changes read at a time


@dataclass(slots=True)
class _Written:
    """This writer's document of a group."""

    slots: Bool  # (SLOTS,)
    rev: int
    at: float  # monotonic seconds at which it was written, or first seen
    changes: int = 0  # of its slots, after its rev


class SnapshotWriter:
    """Writes the packs of one process. Blocking; one step at a time.

    `held` gives the slots (SLOTS,) whose rows `index` has whole up to `index.rev`, another array whenever
    they change (`Follower.held`). Of these `share` says which this process is to write, all by default: where
    several processes hold a slot, one is enough. No two processes write under one name.
    """

    def __init__(
        self,
        snapshots: Snapshots,
        index: Shard,
        catalogue: Catalogue,
        held: Callable[[], Bool],
        writer: str,
        *,
        model_id: str,
        settings: IndexSettings,
        clock: Clock,
        share: Callable[[], Bool] | None = None,
    ) -> None:
        self._snapshots = snapshots
        self._index = index
        self._catalogue = catalogue
        self._held = held
        self._writer = writer
        self._model_id = model_id
        self._settings = settings
        self._clock = clock
        self._share = share
        self._stepping = threading.Lock()
        self._written: dict[int, _Written] = {}  # by group
        self._cursor: int | None = None  # the rev up to which changes were counted
        self._gone: set[str] = set()  # deleted records that documents may yet hold

    def step(self, max_packs: int = 4) -> int:
        """Write up to `max_packs` groups that are due, the oldest first, and take deleted records out of the
        other documents of this process's groups; how many documents were changed. 0: nothing is left to do.

        Raises `StoreUnavailable`; the next step goes on where this one stopped."""
        with self._stepping:
            wanted = self._wanted(self._held())
            if not wanted.any() or not self._index.rev:
                return 0
            self._look(wanted)
            written = self._write(self._due(wanted)[:max_packs])
            changed = self._snapshots.forget(self._gone)
            self._gone.clear()
            return written + changed

    def _wanted(self, held: Bool) -> Bool:
        if self._share is None:
            return held
        wanted: Bool = held & self._share()
        return wanted

    def _look(self, wanted: Bool) -> None:
        """Learn what there is, and what changed up to the index's rev."""
        upto = self._index.rev
        if self._cursor is None:
            self._cursor = self._find(upto)
        names = set(self._snapshots.names())
        for group in list(self._written):
            if self._snapshots.name(group, self._writer) not in names:
                del self._written[group]
        concerned = np.array(wanted.reshape(GROUPS, GROUP_SLOTS).any(axis=1))
        concerned[list(self._written)] = True
        while self._cursor < upto:
            changes = [one for one in self._catalogue.changes_since(self._cursor, _PAGE) if one.rev <= upto]
            for change in changes:
                slot = slot_of(change.record_id)
                group = slot // GROUP_SLOTS
                if change.deleted and concerned[group]:
                    self._gone.add(change.record_id)
                mine = self._written.get(group)
                if mine is not None and mine.slots[slot] and change.rev > mine.rev:
                    mine.changes += 1
            self._cursor = changes[-1].rev if changes else upto

    def _find(self, upto: int) -> int:
        """Find this writer's documents; the rev from which deletions must be looked at, for those of other
        writers too, who may have died before they did."""
        stored = self._snapshots.stored()
        newest = self._catalogue.rev()  # a later one is from before the catalogue was restored
        useful = [one for one in stored if one.head.rev <= newest]
        for one in useful:
            if one.writer == self._writer:
                head = one.head
                self._written[head.group] = _Written(head.slots, head.rev, self._clock.monotonic())
        return min((one.head.rev for one in useful), default=upto)

    def _due(self, wanted: Bool) -> list[int]:
        now = self._clock.monotonic()
        due: list[tuple[float, int]] = []
        for group in range(GROUPS):
            slots = wanted[group_slots(group)]
            mine = self._written.get(group)
            if not slots.any():
                continue
            if mine is None or (slots & ~mine.slots[group_slots(group)]).any():
                due.append((-np.inf, group))
            elif mine.changes >= self._settings.snapshot_changes or (
                mine.changes and now - mine.at >= self._settings.snapshot_age_s
            ):
                due.append((mine.at, group))
        return [group for _, group in sorted(due)]

    def _write(self, groups: Sequence[int]) -> int:
        """Write these groups from one state of the index; how many were."""
        if not groups:
            return 0
        held = self._held()
        wanted = self._wanted(held)
        mask = np.zeros(SLOTS, np.bool_)
        for group in groups:
            mask[group_slots(group)] = wanted[group_slots(group)]
        rev = self._index.rev  # before the rows: they may be of a later state, never of an earlier one
        parts = self._rows(mask)
        if self._held() is not held:
            return 0  # a slot may have been dropped before its rows were read; the next step tries again
        for group in groups:
            slots = np.zeros(SLOTS, np.bool_)
            slots[group_slots(group)] = mask[group_slots(group)]
            if not slots.any():
                continue  # it was given up since it was found to be due
            columns = concatenate(parts.pop(group, ()), self._index.dimension)
            pack = Pack(group, slots, rev, columns, self._model_id, self._index.dimension)
            self._snapshots.write(pack, self._writer)
            self._written[group] = _Written(slots, rev, self._clock.monotonic())
        give_back()
        return len(groups)

    def _rows(self, mask: Bool) -> dict[int, list[Columns]]:
        """The rows of these slots by group."""
        parts: defaultdict[int, list[Columns]] = defaultdict(list)
        for page in self._index.pages(mask):
            groups = slots_of(page.record) // GROUP_SLOTS
            for group in np.unique(groups).tolist():
                parts[group].append(page.take(groups == group))
        return parts
