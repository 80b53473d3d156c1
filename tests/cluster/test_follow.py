"""An index at the change log: what servers tell is taken, and what they do not is read from the gallery."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from random import Random
from typing import cast

import numpy as np
import pytest

from catalogue.store import Catalogue
from cluster import follow
from cluster.follow import Follower
from cluster.gallery_rows import GalleryRows
from homeward.types import Change, FaceRow
from index.columns import Bool, Columns, concatenate, from_rows, hex_ids
from index.shard import Shard
from index.shard_types import Pushed
from tests.index.random_rows import World

DIMENSION = 8
SOON_S = 0.05
LONG_S = 20.0


class Log:
    """A change log and a gallery in memory, and what was read of the gallery."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.rows_of: dict[str, Columns] = {}
        self.read: list[str] = []
        self.looked = threading.Event()  # the change log was read

    def rev(self) -> int:
        return len(self.changes)

    def changes_since(self, rev: int, limit: int) -> list[Change]:
        found = self.changes[rev : rev + limit]
        if found:
            self.looked.set()
        return found

    def of_slots(self, _wanted: Bool) -> Iterator[Columns]:
        yield from ()

    def current(self, records: Sequence[str]) -> Columns:
        self.read += records
        return concatenate([self.rows_of[one] for one in records if one in self.rows_of], DIMENSION)

    def write(self, row: FaceRow) -> Pushed:
        """Commit a record of one face."""
        columns = from_rows([row], DIMENSION)
        self.changes.append(Change(len(self.changes) + 1, row.record_id, False, datetime.now(UTC)))
        self.rows_of[row.record_id] = columns
        return Pushed(row.record_id, self.rev(), columns, ())

    def delete(self, record: str) -> int:
        self.changes.append(Change(len(self.changes) + 1, record, True, datetime.now(UTC)))
        self.rows_of.pop(record, None)
        return self.rev()


@pytest.fixture
def rows() -> list[FaceRow]:
    """One face of each of some records."""
    made = World(Random(3), dimension=DIMENSION, records=64).distinct_rows(60)
    return list({row.record_id: row for row in made}.values())[:8]


def following(log: Log, told_s: float) -> tuple[Follower, Shard]:
    index = Shard(DIMENSION)
    follower = Follower(cast("Catalogue", log), cast("GalleryRows", log), index, told_s=told_s)
    follower.load()
    return follower, index


def held(index: Shard) -> set[str]:
    return {record for columns in index.pages() for record in hex_ids(columns.record)}


def test_what_a_server_is_about_to_tell_is_waited_for(rows: list[FaceRow]) -> None:
    log = Log()
    follower, index = following(log, LONG_S)
    told = log.write(rows[0])
    poll = threading.Thread(target=follower.catch_up)
    poll.start()  # finds the change in the log before it was told
    assert log.looked.wait(LONG_S)
    assert poll.is_alive()
    assert follower.catch_up([told]) == 1
    poll.join(LONG_S / 2)
    assert not poll.is_alive()
    assert log.read == []
    assert held(index) == {rows[0].record_id}
    assert index.rev == follower.cursor == 1


def test_what_nobody_tells_is_read_from_the_gallery_in_time(rows: list[FaceRow]) -> None:
    log = Log()
    follower, index = following(log, SOON_S)
    log.write(rows[0])
    told = log.write(rows[1])
    started = time.monotonic()
    assert follower.catch_up([told]) == 2
    assert time.monotonic() - started >= SOON_S
    assert log.read == [rows[0].record_id]
    assert held(index) == {rows[0].record_id, rows[1].record_id}


def test_a_deletion_waits_for_nothing(rows: list[FaceRow]) -> None:
    log = Log()
    follower, index = following(log, LONG_S)
    follower.catch_up([log.write(rows[0])])
    assert held(index) == {rows[0].record_id}
    assert follower.catch_up() == 1
    log.delete(rows[0].record_id)
    started = time.monotonic()
    assert follower.catch_up() == 2
    assert time.monotonic() - started < LONG_S / 2
    assert held(index) == set()


def test_a_deletion_is_done_before_another_write_is_waited_for(rows: list[FaceRow]) -> None:
    log = Log()
    follower, index = following(log, LONG_S)
    follower.catch_up([log.write(rows[0])])
    log.looked.clear()
    log.delete(rows[0].record_id)
    told = log.write(rows[1])  # in one look at the log with the deletion
    poll = threading.Thread(target=follower.catch_up)
    poll.start()
    give_up = time.monotonic() + LONG_S / 2
    while held(index) and time.monotonic() < give_up:
        time.sleep(0.001)
    assert held(index) == set()
    assert poll.is_alive()
    follower.tell([told])
    poll.join(LONG_S / 2)
    assert held(index) == {rows[1].record_id}
    assert log.read == []


def test_no_more_is_kept_than_may_be(rows: list[FaceRow], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "_TOLD_MOST", 2)
    log = Log()
    follower, index = following(log, SOON_S)
    follower.tell([log.write(row) for row in rows[:4]])
    assert len(follower._told) == 2
    assert follower.catch_up() == 4
    assert log.read == [row.record_id for row in rows[2:4]]
    assert held(index) == {row.record_id for row in rows[:4]}
    assert follower._told == {}


def test_what_is_told_twice_late_or_of_a_newer_write_changes_nothing(rows: list[FaceRow]) -> None:
    log = Log()
    follower, index = following(log, SOON_S)
    first = log.write(rows[0])
    second = log.write(rows[0])  # the same record again
    log.delete(rows[1].record_id)
    follower.catch_up([first])
    assert log.read == [rows[0].record_id]  # written twice since: read whole
    assert follower.catch_up([first, second]) == 3
    assert follower._told == {}  # nothing is kept that no change will ask for
    assert held(index) == {rows[0].record_id}
    log.delete(rows[0].record_id)
    assert follower.catch_up() == 4
    assert follower.catch_up([second]) == 4
    assert held(index) == set()


def test_an_index_without_tellers_reads_at_once(rows: list[FaceRow]) -> None:
    log = Log()
    follower, index = following(log, 0.0)
    log.write(rows[0])
    assert follower.catch_up() == 1
    assert log.read == [rows[0].record_id]
    assert np.array_equal(index.record_rows(rows[0].record_id).face, log.rows_of[rows[0].record_id].face)
