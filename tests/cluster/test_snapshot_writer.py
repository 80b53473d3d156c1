"""What is written when, and that a start from snapshots is the index as it would be without them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from cluster.snapshot_format import GROUP_SLOTS, GROUPS, encode, group_slots
from homeward.errors import StoreUnavailable
from index.columns import hex_ids
from index.placement import SLOTS, slot_of
from index.shard import Shard
from tests.cluster.snapshot_world import (
    ALL,
    DIMENSION,
    ManualClock,
    SnapshotWorld,
    answers,
    group_of,
    open_world,
)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[SnapshotWorld]:
    made = open_world(tmp_path)
    yield made
    made.index.close()
    made.catalogue.close()


def groups_written(world: SnapshotWorld) -> list[int]:
    """Notes the group of each document that is written from now on."""
    written: list[int] = []
    world.documents.before = lambda name: written.append(int(name.split("/")[2]))
    return written


def test_every_group_is_written_once_and_again_when_it_is_due(world: SnapshotWorld) -> None:
    clock = ManualClock()
    writer = world.writer(clock=clock, snapshot_changes=3, snapshot_age_s=300.0)
    assert writer.step() == 0  # an index that followed nothing yet
    for number in range(30):
        world.enrol(f"child{number}")
    written = groups_written(world)
    steps = 0
    while count := writer.step():
        assert count == 4
        steps += 1
    assert steps == 16
    assert written == list(range(GROUPS))
    assert (world.snapshots().revs() == 30).all()

    clock.at += 10_000.0
    assert writer.step() == 0  # nothing changed


def test_changes_and_age_make_a_group_due(world: SnapshotWorld) -> None:
    clock = ManualClock()
    world.enrol("first")
    writer = world.writer(clock=clock, snapshot_changes=3, snapshot_age_s=300.0)
    while writer.step():
        pass
    written = groups_written(world)
    world.enrol_in(9)
    for _ in range(2):
        world.enrol_in(7)
    assert writer.step() == 0
    assert writer.step() == 0  # what was counted is not counted again
    world.enrol_in(7)
    assert writer.step() == 1
    clock.at += 299.0
    assert writer.step() == 0
    clock.at += 1.0
    assert writer.step() == 1
    assert written == [7, 9]
    clock.at += 10_000.0
    assert writer.step() == 0


def test_what_a_pack_contains_is_not_counted_as_its_change(world: SnapshotWorld) -> None:
    world.enrol("first")
    writer = world.writer(snapshot_changes=1)
    names = world.documents.list_documents

    def enrolling(prefix: str = "") -> Sequence[str]:
        if world.index.rev == 1:  # what changed up to here is known, nothing is written yet
            world.enrol_in(0)
        return names(prefix)

    world.documents.list_documents = enrolling  # type: ignore[method-assign]
    written = groups_written(world)
    while writer.step():
        pass
    assert written == list(range(GROUPS))
    assert [pack.rev for pack in world.snapshots().read(0)] == [2]


def test_the_oldest_are_written_first(world: SnapshotWorld) -> None:
    clock = ManualClock()
    world.enrol("first")
    writer = world.writer(clock=clock)
    while writer.step():
        clock.at += 1.0
    for group in (50, 3, 20, 60, 10):
        world.enrol_in(group)
    written = groups_written(world)
    clock.at += 1000.0
    assert [writer.step(2), writer.step(2), writer.step(2), writer.step(2)] == [2, 2, 1, 0]
    assert written == [3, 10, 20, 50, 60]


def test_a_deletion_is_obeyed_at_once(world: SnapshotWorld) -> None:
    record, kept = world.enrol_in(7), world.enrol_in(7)
    writer = world.writer()
    while writer.step():
        pass
    template = world.delete(record)
    assert writer.step() == 1
    assert world.files_with(template) == set()
    assert len(world.files_with(world.rows[kept][0].template)) == 1
    assert writer.step() == 0


def test_a_deletion_that_the_index_has_not_followed_yet(world: SnapshotWorld) -> None:
    record = world.enrol_in(7)
    writer = world.writer()
    template = world.bury(record)
    while writer.step():
        pass
    assert world.files_with(template) == set()
    world.index.delete_record(record, rev=world.catalogue.rev())
    while writer.step():
        pass
    assert world.files_with(template) == set()


def test_a_writer_that_starts_cleans_what_one_that_died_left(world: SnapshotWorld) -> None:
    record = world.enrol_in(7)
    templates = []

    def die(name: str) -> None:
        if "/07/" in name:
            templates.append(world.delete(record))
            raise KeyboardInterrupt

    writer = world.writer("dead")
    world.documents.after = die
    with pytest.raises(KeyboardInterrupt):
        writer.step(GROUPS)
    world.documents.after = lambda name: None
    assert len(world.files_with(templates[0])) == 1
    world.writer("server").step()
    assert world.files_with(templates[0]) == set()


def test_a_store_that_fails_is_tried_again(world: SnapshotWorld) -> None:
    record = world.enrol_in(0)

    def fail(name: str) -> None:
        raise StoreUnavailable("the store is full", store="photos")

    writer = world.writer()
    world.documents.before = fail
    with pytest.raises(StoreUnavailable):
        writer.step()
    world.documents.before = lambda name: None
    while writer.step():
        pass
    template = world.delete(record)
    world.documents.before = fail
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            writer.step()
    world.documents.before = lambda name: None
    assert writer.step() == 1
    assert world.files_with(template) == set()


def test_a_restart_goes_on_from_what_is_there(world: SnapshotWorld) -> None:
    world.enrol("first")
    writer = world.writer()
    while writer.step():
        pass
    snapshots = world.snapshots()
    world.documents.delete_document(snapshots.name(9, "server"))
    written = groups_written(world)
    assert writer.step() == 1  # somebody removed it
    world.documents.delete_document(snapshots.name(12, "server"))
    world.documents.put_document(snapshots.name(13, "server"), b"damaged")
    later = encode(world.pack(14)).replace(b'"rev": 1', b'"rev": 9')
    world.documents.put_document(snapshots.name(14, "server"), later)
    world.enrol_in(20)
    written.clear()
    fresh = world.writer(snapshot_changes=1)
    while fresh.step():
        pass
    assert written == [12, 13, 14, 20]


def test_only_slots_that_are_held_and_shared_are_written(world: SnapshotWorld) -> None:
    records = [world.enrol_in(3) for _ in range(30)]
    held, share = np.zeros(SLOTS, np.bool_), np.zeros(SLOTS, np.bool_)
    held[group_slots(3)] = held[group_slots(4)] = True
    share[::2] = True
    writer = world.writer("shard-1", held=lambda: held, share=lambda: share)
    assert writer.step() == 2
    assert writer.step() == 0
    revs = world.snapshots().revs()
    assert np.array_equal(revs >= 0, held & share)
    mine = {row.face_id for record in records for row in world.rows[record] if slot_of(record) % 2 == 0}
    (pack,) = world.snapshots().read(3)
    assert set(hex_ids(pack.columns.face)) == mine

    share = held.copy()
    assert writer.step() == 2  # slots that its packs lack
    assert np.array_equal(world.snapshots().revs() >= 0, held)
    none = world.writer("shard-2", held=lambda: ~ALL)
    assert none.step() == 0


def test_slots_that_are_dropped_while_they_are_read_are_not_written(world: SnapshotWorld) -> None:
    record = world.enrol_in(3)
    held = ALL
    pages = world.index.pages

    def dropping(wanted: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> object:
        nonlocal held
        world.index.drop_slots(wanted)
        yield from pages(wanted)
        world.index.replace_record(record, world.rows[record])
        held = ALL.copy()  # loaded again by now

    writer = world.writer(held=lambda: held)
    world.index.pages = dropping  # type: ignore[method-assign, assignment]
    assert writer.step() == 0
    assert world.documents.list_documents() == []
    world.index.pages = pages  # type: ignore[method-assign]
    while writer.step():
        pass
    assert len(world.files_with(world.rows[record][0].template)) == 1


def test_what_comes_while_rows_are_read_is_of_a_later_rev(world: SnapshotWorld) -> None:
    world.enrol_in(3)
    before = world.index.rev
    pages = world.index.pages

    def enrolling(wanted: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> object:
        yield from pages(wanted)
        if world.index.rev == before:
            world.enrol_in(3)

    world.index.pages = enrolling  # type: ignore[method-assign, assignment]
    world.writer().step()
    assert [pack.rev for pack in world.snapshots().read(3)] == [before]
    fresh = Shard(DIMENSION, block_rows=256)
    follower, _ = world.follower(fresh, world.snapshots())
    try:
        assert follower.load() == world.index.rows == 4
    finally:
        fresh.close()


def test_a_start_from_snapshots_is_the_same_index(world: SnapshotWorld) -> None:
    for number in range(120):
        world.enrol(f"child{number}", 1 + number % 3)
    writer = world.writer()
    while writer.step():
        pass
    # What happens between the snapshot and the start: new, changed, deleted, deleted and back.
    new = world.enrol("later")
    changed = world.enrol("child1", 3)
    deleted = [record for record in list(world.rows)[10:14] if record not in {new, changed}]
    for record in deleted:
        world.delete(record)
    gone = world.enrol("child90")
    world.delete(gone)
    back = world.enrol("child90", reinstate=True)

    fresh = Shard(DIMENSION, block_rows=256)
    follower, gallery = world.follower(fresh, world.snapshots())
    try:
        assert follower.load() == world.index.rows
        assert not gallery.asked.any()
        assert gallery.records == {new, changed, back, *deleted}
        assert fresh.rev == world.index.rev == world.catalogue.rev()
        assert fresh.face_ids() == world.index.face_ids()
        assert answers(fresh) == answers(world.index)
        assert not set(deleted) & set(fresh.face_ids().values())
        for record in (new, changed, back):
            columns = fresh.record_rows(record)
            assert columns.template.tobytes() == world.index.record_rows(record).template.tobytes()
    finally:
        fresh.close()


def test_slots_without_a_snapshot_come_from_the_gallery(world: SnapshotWorld) -> None:
    for number in range(60):
        world.enrol(f"child{number}")
    writer = world.writer()
    for _ in range(4):
        writer.step()
    group = group_of(next(iter(world.rows)))
    snapshots = world.snapshots()
    if group < 16:
        world.documents.put_document(snapshots.name(group, "server"), b"damaged")
    fresh = Shard(DIMENSION, block_rows=256)
    follower, gallery = world.follower(fresh, snapshots)
    try:
        assert follower.load() == world.index.rows
        covered = np.zeros(SLOTS, np.bool_)
        covered[: 16 * GROUP_SLOTS] = True
        if group < 16:
            covered[group_slots(group)] = False
        assert np.array_equal(gallery.asked, ~covered)
        assert answers(fresh) == answers(world.index)
    finally:
        fresh.close()
