"""Keeps an index at the catalogue's change log: at start, after every write, and by polling.

An index holds some slots or all. A slot that is being loaded is not followed; once its rows are in, what
changed meanwhile is read again, and from then on it is. So a slot that is held lacks nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from catalogue.store import Catalogue
from cluster.gallery_rows import GalleryRows, all_slots, in_slots
from homeward.errors import Unavailable
from homeward.memory import give_back
from homeward.types import Change
from index.columns import Bool, Columns, concatenate, hex_ids
from index.placement import SLOTS, slot_of
from index.shard import Shard
from index.shard_types import Pushed

_PAGE = 4096  # changes read at a time
_DEAD_MOST = 0.125  # of a block: beyond that its live rows move; a scan takes as long for the dead
_TOLD_MOST = 4096  # records
_DEAD_AFTER_LOAD = 0.02  # when nobody waits for anything else yet

_logger = logging.getLogger(__name__)


class Source(Protocol):
    """Where rows of slots can be read sooner than from the gallery."""

    def load(self, wanted: Bool) -> Iterator[tuple[Bool, int, Columns]]:
        """Slots, the rev their rows are of, and all of their rows; slots that it lacks come not at all."""
        ...


class Follower:
    """The one writer of an index. Blocking; every method is thread-safe.

    Where every server tells what it commits (`told_s` > 0), what another one has committed is waited for so
    many seconds before it is read from the gallery, which takes longer.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        rows: GalleryRows,
        index: Shard,
        source: Source | None = None,
        *,
        told_s: float = 0.0,
    ) -> None:
        self._catalogue = catalogue
        self._rows = rows
        self._index = index
        self._source = source
        self._told_s = told_s
        self._told: dict[tuple[str, int], Pushed] = {}  # by record and rev; later than the cursor
        self._telling = threading.Condition()
        self._lock = threading.Lock()
        self._loading = threading.Lock()
        self._held: Bool = np.zeros(SLOTS, np.bool_)  # replaced, never changed
        self._cursor = 0
        self._confirmed_at = -float("inf")

    @property
    def held(self) -> Bool:
        """(SLOTS,) slots whose rows are all there and followed."""
        return self._held

    @property
    def cursor(self) -> int:
        """The rev up to which changes are contained."""
        return self._cursor

    @property
    def confirmed_at(self) -> float:
        """Monotonic seconds of the last moment whose committed changes are all in the index."""
        return self._confirmed_at

    @property
    def loaded(self) -> bool:
        """Whether the index holds all that the catalogue has."""
        return bool(self._held.all())

    def check_loaded(self) -> None:
        """Raise `Unavailable` (INDEX_LOADING) until the index is loaded."""
        if not self.loaded:
            raise Unavailable("the index is being loaded; try again in a moment", code="INDEX_LOADING")

    def load(self) -> int:
        """Hold every slot; returns the rows. Of slots that are held already every row is compared with
        catalogue and gallery, and set right."""
        with self._loading:
            if self._held.any():
                self._set_right()
            self._load(all_slots() & ~self._held)
        return self._index.rows

    def load_slots(self, wanted: Bool) -> None:
        """Hold these slots too. Searches and following go on meanwhile."""
        with self._loading:
            self._load(wanted & ~self._held)

    def drop_slots(self, gone: Bool) -> None:
        """Hold these slots no more."""
        with self._loading:
            with self._lock:
                gone = gone & self._held
                self._held = self._held & ~gone
            if gone.any():
                self._index.drop_slots(gone)

    def catch_up(self, own: Sequence[Pushed] = ()) -> int:
        """Apply all committed changes; returns the rev reached. Deletes never wait for the gallery.

        Raises `StoreUnavailable` when the catalogue, or the gallery for other servers' writes, does
        not answer; the next call goes on where this one stopped.
        """
        self.tell(own)
        with self._lock:
            begun = time.monotonic()
            self._catch_up()
            self._confirmed_at = max(self._confirmed_at, begun)
            return self._cursor

    def tell(self, pushed: Sequence[Pushed]) -> None:
        """Keep what a server committed for `catch_up`, which may be waiting for it. Never waits. Of more than
        can be kept the rest is read from the gallery."""
        with self._telling:
            for one in pushed:
                if one.rev > self._cursor and len(self._told) < _TOLD_MOST:
                    self._told[one.record_id, one.rev] = one
            self._telling.notify_all()

    def poll(self) -> None:
        """Catch up; then, when nobody waits, move the rows of a block together that is dead in large part."""
        self.catch_up()
        self._index.compact(_DEAD_MOST, 1)

    def _load(self, wanted: Bool) -> None:
        if not wanted.any():
            return
        try:
            self._fill(wanted)
        except BaseException:
            # Rows that came in are followed by nobody: kept, they could outlive their child's deletion.
            self._index.drop_slots(wanted)
            raise
        finally:
            give_back()

    def _fill(self, wanted: Bool) -> None:
        since = self._catalogue.rev()
        with self._lock:
            if not self._held.any():
                self._cursor = since  # nothing is held yet that earlier changes could concern
        left = wanted
        if self._source is not None:
            for slots, rev, columns in self._source.load(wanted):
                self._index.apply(upserts=columns)
                left = left & ~slots
                since = min(since, rev)
        if left.any():
            for columns in self._rows.of_slots(left):
                self._index.apply(upserts=columns)
            # A record's rows came one by one, and were moved together. Block by block: others are followed.
            while self._index.compact(_DEAD_AFTER_LOAD, 1):
                pass
        since = self._apply_since(since, wanted)
        with self._lock:
            begun = time.monotonic()
            self._apply_since(since, wanted)
            self._held = self._held | wanted
            self._catch_up()
            self._index.advance(self._cursor)
            self._confirmed_at = max(self._confirmed_at, begun)

    def _apply_since(self, rev: int, slots: Bool) -> int:
        """Read anew what changed after `rev` in slots that nobody else writes; the rev reached."""
        while changes := self._catalogue.changes_since(rev, _PAGE):
            records = in_slots({change.record_id for change in changes}, slots)
            if records:
                self._index.apply(delete_records=records, upserts=self._rows.current(records))
            rev = changes[-1].rev
        return rev

    def _set_right(self) -> None:
        """Replace rows that are not what catalogue and gallery say; those of others stay searchable."""
        with self._lock:
            held = self._held
            there = self._index.face_ids()
            wanted: set[str] = set()
            for columns in self._rows.of_slots(held):
                self._index.apply(upserts=columns)
                wanted.update(hex_ids(columns.face))
            self._index.apply(delete_faces=[(there[face], face) for face in there.keys() - wanted])
            self._catch_up()

    def _catch_up(self) -> None:
        give_up = time.monotonic() + self._told_s
        while changes := self._catalogue.changes_since(self._cursor, _PAGE):
            self._apply(changes, give_up - time.monotonic() if len(changes) < _PAGE else 0.0)
            with self._telling:
                self._cursor = changes[-1].rev
                self._told = {key: one for key, one in self._told.items() if one.rev > self._cursor}
        self._index.tidy()

    def _told_of(self, wanted: set[tuple[str, int]], wait_s: float) -> dict[tuple[str, int], Pushed]:
        """What was told of these records at these revs, or is soon."""
        with self._telling:
            self._telling.wait_for(lambda: wanted <= self._told.keys(), wait_s)
            return {key: self._told[key] for key in wanted & self._told.keys()}

    def _apply(self, changes: Sequence[Change], wait_s: float) -> None:
        concerned = [change for change in changes if self._held[slot_of(change.record_id)]]
        times = Counter(change.record_id for change in concerned)
        last = {change.record_id: change for change in concerned}
        gone = [record for record, change in last.items() if change.deleted]
        if gone:  # before anything is waited for
            self._index.apply(delete_records=gone)
        written = {record: change.rev for record, change in last.items() if not change.deleted}
        told = self._told_of({(record, rev) for record, rev in written.items() if times[record] == 1}, wait_s)
        known = list(told.values())
        others = [record for record, rev in written.items() if (record, rev) not in told]
        rev = changes[-1].rev
        self._index.apply(
            delete_faces=[(one.record_id, face) for one in known for face in one.removed_faces],
            upserts=concatenate([one.rows for one in known], self._index.dimension),
            rev=None if others else rev,
        )
        if others:
            self._index.apply(delete_records=others, upserts=self._rows.current(others), rev=rev)
