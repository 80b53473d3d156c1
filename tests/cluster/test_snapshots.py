"""Snapshots give back what was in the index, and keep nothing of a deleted child."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from minio.commonconfig import ENABLED
from minio.versioningconfig import VersioningConfig

from cluster.snapshot_format import GROUP_SLOTS, encode, group_slots
from cluster.snapshot_loading import AHEAD
from cluster.snapshots import Snapshots
from homeward.errors import InvalidInput, StoreUnavailable
from homeward.telemetry import Operation, sinks
from index.columns import Bool, Columns, hex_ids
from index.placement import SLOTS, slot_of
from photos.open import open_document_store
from tests.catalogue.builders import MODEL
from tests.cluster.snapshot_world import (
    ALL,
    DIMENSION,
    SnapshotWorld,
    group_of,
    open_world,
    slots_found,
)
from tests.photos.test_s3 import client, new_bucket
from tests.servers.seaweed import Seaweed


@pytest.fixture
def world(tmp_path: Path) -> Iterator[SnapshotWorld]:
    made = open_world(tmp_path)
    yield made
    made.index.close()
    made.catalogue.close()


@pytest.fixture
def snapshots(world: SnapshotWorld) -> Snapshots:
    return world.snapshots()


def faces_of(columns: Columns) -> list[str]:
    return sorted(hex_ids(columns.face))


def loaded(snapshots: Snapshots, wanted: Bool = ALL) -> tuple[list[str], dict[int, int]]:
    """All faces that come, and the rev of each slot that does."""
    faces: list[str] = []
    revs: dict[int, int] = {}
    for slots, rev, columns in snapshots.load(wanted):
        assert slots_found(columns) <= set(np.flatnonzero(slots).tolist())
        for slot in np.flatnonzero(slots).tolist():
            assert slot not in revs, "a slot came twice"
            assert wanted[slot]
            revs[slot] = rev
        faces += faces_of(columns)
    return sorted(faces), revs


def part(group: int, share: slice) -> Bool:
    """Some slots of a group, by their place in it."""
    mask = np.zeros(SLOTS, np.bool_)
    mask[np.arange(SLOTS)[group_slots(group)][share]] = True
    return mask


def test_what_was_written_is_loaded(world: SnapshotWorld, snapshots: Snapshots) -> None:
    for number in range(40):
        world.enrol(f"child{number}")
    groups = {group_of(record) for record in world.rows}
    for group in groups:
        snapshots.write(world.pack(group), "server")
    every = sorted(row.face_id for rows in world.rows.values() for row in rows)
    faces, revs = loaded(snapshots)
    assert faces == every
    assert len(revs) == len(groups) * GROUP_SLOTS
    assert set(revs.values()) == {world.index.rev}
    assert np.array_equal(snapshots.revs() >= 0, np.isin(np.arange(SLOTS), list(revs)))

    record = next(iter(world.rows))
    wanted = np.zeros(SLOTS, np.bool_)
    wanted[slot_of(record)] = True
    there = [row for rows in world.rows.values() for row in rows if slot_of(row.record_id) == slot_of(record)]
    assert loaded(snapshots, wanted) == (
        sorted(row.face_id for row in there),
        {slot_of(record): world.index.rev},
    )
    (pack,) = snapshots.read(group_of(record))
    assert pack.rev == world.index.rev
    assert loaded(snapshots, ~ALL) == ([], {})


def test_each_slot_comes_from_the_pack_of_the_highest_rev(world: SnapshotWorld, snapshots: Snapshots) -> None:
    record = world.enrol_in(3)
    snapshots.write(world.pack(3), "old")
    old = world.index.rev
    world.enrol_in(3)
    snapshots.write(world.pack(3, part(3, slice(0, 20))), "middle")
    middle = world.index.rev
    world.enrol_in(3)
    snapshots.write(world.pack(3, part(3, slice(10, 40))), "new")
    new = world.index.rev
    _, revs = loaded(snapshots)
    expected = [middle] * 10 + [new] * 30 + [old] * 24
    assert [revs[slot] for slot in range(3 * GROUP_SLOTS, 4 * GROUP_SLOTS)] == expected
    assert snapshots.revs()[group_slots(3)].tolist() == expected
    assert {pack.rev for pack in snapshots.read(3)} == {old, middle, new}
    assert record in world.rows


def test_a_damaged_pack_is_reported_and_another_taken(
    world: SnapshotWorld, snapshots: Snapshots, caplog: pytest.LogCaptureFixture
) -> None:
    world.enrol_in(3)
    snapshots.write(world.pack(3), "a")
    world.enrol_in(3)
    snapshots.write(world.pack(3), "b")
    world.enrol_in(4)
    snapshots.write(world.pack(4), "a")
    name = snapshots.name(3, "b")
    data = bytearray(world.documents.get_document(name))
    data[-1] ^= 1
    world.documents.put_document(name, bytes(data))
    world.documents.put_document(snapshots.name(4, "c"), b"something else")
    world.documents.put_document(snapshots.name(5, "a"), world.documents.get_document(snapshots.name(4, "a")))
    events: list[Operation] = []
    with sinks(events.append), caplog.at_level(logging.ERROR):
        _, revs = loaded(snapshots)
    assert {revs[slot] for slot in range(3 * GROUP_SLOTS, 4 * GROUP_SLOTS)} == {1}
    assert {revs[slot] for slot in range(4 * GROUP_SLOTS, 5 * GROUP_SLOTS)} == {3}
    assert 5 * GROUP_SLOTS not in revs
    assert f"{name}: a snapshot cannot be read: its columns do not have their checksum" in caplog.text
    assert "it is of group 4" in caplog.text
    assert [event.reason for event in events if event.outcome == "DATA_LOSS"] == ["SNAPSHOT_CORRUPT"] * 3
    assert [pack.rev for pack in snapshots.read(3)] == [1]


def test_other_models_and_other_times_are_left_out(world: SnapshotWorld, snapshots: Snapshots) -> None:
    world.enrol_in(3)
    other = world.snapshots("another model")
    other.write(world.pack(3, model_id="another model"), "server")
    assert loaded(snapshots) == ([], {})
    with pytest.raises(InvalidInput, match="another model"):
        snapshots.write(world.pack(3, model_id="another model"), "server")
    astray = encode(world.pack(3, model_id="another model"))
    world.documents.put_document(snapshots.name(3, "astray"), astray)
    assert loaded(snapshots) == ([], {})

    # The catalogue was restored to a time before this pack.
    later = encode(replace(world.pack(3), rev=world.catalogue.rev() + 1))
    world.documents.put_document(snapshots.name(3, "later"), later)
    assert loaded(snapshots) == ([], {})
    snapshots.write(world.pack(3), "server")
    _, revs = loaded(snapshots)
    assert set(revs.values()) == {world.catalogue.rev()}
    assert other.stored()[0].writer == "server"


@pytest.mark.parametrize("writer", ["", "a/b", "A", ".."])
def test_a_writer_needs_a_name(world: SnapshotWorld, snapshots: Snapshots, writer: str) -> None:
    with pytest.raises(InvalidInput):
        snapshots.write(world.pack(0), writer)


def test_few_packs_are_read_ahead(world: SnapshotWorld, snapshots: Snapshots) -> None:
    for group in range(10):
        snapshots.write(world.pack(group), "server")
    coming = snapshots.load(ALL)
    for used in range(1, 5):
        next(coming)
        time.sleep(0.05)
        assert len(world.documents.read) <= used + AHEAD
    coming.close()  # type: ignore[attr-defined]
    assert len(world.documents.read) < 10


def test_a_store_that_fails_ends_the_loading(
    world: SnapshotWorld, snapshots: Snapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    for group in range(10):
        snapshots.write(world.pack(group), "server")
    get = world.documents.get_document

    def failing(name: str, limit: int | None = None) -> bytes:
        if limit is None and "/06/" in name:
            raise StoreUnavailable("the store is gone", store="photos")
        return get(name, limit)

    monkeypatch.setattr(world.documents, "get_document", failing)
    _, revs = loaded(snapshots)
    assert set(revs) == set(range(6 * GROUP_SLOTS))
    monkeypatch.setattr(world.documents, "list_documents", lambda prefix: failing("/06/"))
    assert loaded(snapshots) == ([], {})


def test_a_pack_that_was_rewritten_or_went_meanwhile(world: SnapshotWorld, snapshots: Snapshots) -> None:
    for group in range(3):
        world.enrol_in(group)
        snapshots.write(world.pack(group), "a")
        world.enrol_in(group)
        snapshots.write(world.pack(group), "b")
    original = world.documents.get_document

    def get(name: str, limit: int | None = None) -> bytes:
        if limit is None and name == snapshots.name(1, "b"):
            world.documents.inner.delete_document(name)
        if limit is None and name == snapshots.name(2, "b"):
            fewer = encode(world.pack(2, part(2, slice(0, 10))))
            world.documents.inner.put_document(name, fewer)
        return original(name, limit)

    world.documents.get_document = get  # type: ignore[method-assign]
    _, revs = loaded(snapshots)
    assert len(revs) == 3 * GROUP_SLOTS
    assert {revs[slot] for slot in range(GROUP_SLOTS, 2 * GROUP_SLOTS)} == {3}
    assert [revs[slot] for slot in range(2 * GROUP_SLOTS, 3 * GROUP_SLOTS)] == [6] * 10 + [5] * 54


def test_forgetting_leaves_no_byte_in_any_document(world: SnapshotWorld, snapshots: Snapshots) -> None:
    gone = [world.enrol_in(3), world.enrol_in(3), world.enrol_in(7)]
    kept = [world.enrol_in(3), world.enrol_in(7), world.enrol_in(8)]
    other = world.snapshots("another model")
    for group in (3, 7, 8):
        for writer in ("server", "shard-1"):
            snapshots.write(world.pack(group), writer)
        other.write(world.pack(group, model_id="another model"), "server")
    before = {record: world.rows[record][0].template for record in gone}
    for template in before.values():
        assert len(world.files_with(template)) == 3
    assert snapshots.forget(gone) == 0  # nobody is deleted: what is asked for by mistake is not done
    templates = [world.delete(record) for record in gone]
    assert snapshots.forget(gone) == 6
    for template in templates:
        assert world.files_with(template) == set()
    for record in kept:
        for row in world.rows[record]:
            assert len(world.files_with(row.template)) == 3
    faces, revs = loaded(snapshots)
    assert faces == sorted(row.face_id for record in kept for row in world.rows[record])
    assert len(revs) == 3 * GROUP_SLOTS
    assert snapshots.forget(gone) == 0
    assert snapshots.forget([]) == 0
    with pytest.raises(InvalidInput):
        snapshots.forget(["Maria"])


def test_what_cannot_be_read_does_not_stay_when_a_child_of_its_group_goes(
    world: SnapshotWorld, snapshots: Snapshots
) -> None:
    record = world.enrol_in(3)
    names = [snapshots.name(3, writer) for writer in ("cut", "foreign", "body")]
    data = encode(world.pack(3))
    for name, bad in zip(names, (data[:-1], b"?" + data, data[:-1] + b"x"), strict=True):
        world.documents.put_document(name, bad)
    world.documents.put_document(snapshots.name(4, "cut"), data[:-1])
    template = world.delete(record)
    assert snapshots.forget([record]) == 3
    assert world.documents.list_documents() == [snapshots.name(4, "cut")]
    assert snapshots.sweep() == 1
    assert world.files_with(template) == set()


def test_a_child_that_was_reinstated_keeps_what_came_after(
    world: SnapshotWorld, snapshots: Snapshots
) -> None:
    record = world.enrol("back")
    group = group_of(record)
    snapshots.write(world.pack(group), "early")
    first = world.delete(record)
    world.enrol("back", reinstate=True)
    snapshots.write(world.pack(group), "late")
    assert snapshots.forget([record]) == 1
    assert world.files_with(first) == set()
    assert len(world.files_with(world.rows[record][0].template)) == 1
    faces, _ = loaded(snapshots)
    assert faces == sorted(row.face_id for row in world.rows[record])


def test_a_deleted_record_is_never_written(world: SnapshotWorld, snapshots: Snapshots) -> None:
    record = world.enrol("gone")
    pack = world.pack(group_of(record))
    template = world.bury(record)
    seen: list[bool] = []
    world.documents.after = lambda name: seen.append(bool(world.files_with(template)))
    snapshots.write(pack, "server")
    assert seen == [False]
    assert len(snapshots.read(pack.group)[0].columns) == 0


def test_a_deletion_while_a_pack_is_written_reaches_it(world: SnapshotWorld, snapshots: Snapshots) -> None:
    records = [world.enrol_in(3) for _ in range(4)]
    pack = world.pack(3)
    templates = []

    def during(name: str) -> None:
        if len(records) > 1:
            templates.append(world.bury(records.pop()))

    world.documents.before = during
    snapshots.write(pack, "server")
    assert len(templates) == 3
    for template in templates:
        assert world.files_with(template) == set()
    assert faces_of(snapshots.read(3)[0].columns) == sorted(row.face_id for row in world.rows[records[0]])


def test_forgetting_waits_for_what_is_being_written(world: SnapshotWorld, snapshots: Snapshots) -> None:
    record = world.enrol_in(3)
    pack = world.pack(3)
    forgetting: list[Future[int]] = []
    templates = []

    def during(name: str) -> None:
        if not forgetting:  # the log was read, and the bytes are on their way
            templates.append(world.bury(record))
            forgetting.append(pool.submit(snapshots.forget, [record]))
            time.sleep(0.2)
            assert not forgetting[0].done()

    world.documents.before = during
    with ThreadPoolExecutor(1) as pool:
        snapshots.write(pack, "server")
        forgetting[0].result()
    assert world.files_with(templates[0]) == set()


def test_what_a_writer_left_that_died_is_found(world: SnapshotWorld, snapshots: Snapshots) -> None:
    record, kept = world.enrol_in(3), world.enrol_in(3)
    templates: list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]] = []

    def die(name: str) -> None:
        templates.append(world.delete(record))
        raise KeyboardInterrupt

    pack = world.pack(3)
    world.documents.after = die
    with pytest.raises(KeyboardInterrupt):
        snapshots.write(pack, "dead")
    world.documents.after = lambda name: None
    assert len(world.files_with(templates[0])) == 1
    assert world.snapshots().sweep() == 1
    assert world.files_with(templates[0]) == set()
    assert len(world.files_with(world.rows[kept][0].template)) == 1
    assert snapshots.sweep() == 0


def test_sweeping_removes_what_is_of_no_use(world: SnapshotWorld, snapshots: Snapshots) -> None:
    other = world.snapshots("other")
    world.enrol_in(3)
    snapshots.write(world.pack(3, part(3, slice(0, 10))), "old")
    snapshots.write(world.pack(5), "old")
    other.write(world.pack(3, model_id="other"), "old")
    world.enrol_in(3)
    snapshots.write(world.pack(3), "new")
    other.write(world.pack(4, model_id="other"), "new")
    later = encode(replace(world.pack(5), rev=world.catalogue.rev() + 1))
    world.documents.put_document(snapshots.name(5, "later"), later)
    half = world.folder / "photos" / ".incoming" / "half"
    half.write_bytes(b"ha")
    assert snapshots.sweep() == 1  # from another time
    world.clock.at += 24 * 3600.0
    world.enrol_in(3)
    assert snapshots.sweep() == 0  # writers that live may yet come to these
    world.clock.at += 1.0
    world.enrol_in(3)
    assert snapshots.sweep() == 2
    assert list(snapshots.names()) == [snapshots.name(3, "new"), snapshots.name(5, "old")]
    assert list(other.names()) == [other.name(4, "new")]
    assert half.exists()  # it may be being written


def test_after_forgetting_nothing_is_there_whatever_is_written_meanwhile(
    world: SnapshotWorld, snapshots: Snapshots
) -> None:
    """The index follows, packs are written of states that are old by then, others delete: when `forget`
    returned, the bytes are gone, at once and for good."""
    records = [world.enrol_in(group) for group in (3, 4) for _ in range(8)]
    follower, _ = world.follower(world.index, snapshots)
    follower.load()
    done = threading.Event()

    def follow() -> None:
        while not done.wait(0.02):
            follower.catch_up()

    def write() -> int:
        written = 0
        while not done.is_set():
            for pack in (world.pack(3), world.pack(4)):
                time.sleep(0.01)
                snapshots.write(pack, "server")
                written += 1
        return written

    def delete(record: str) -> None:
        template = world.bury(record)
        snapshots.forget([record])
        for _ in range(3):
            assert world.files_with(template) == set()
            time.sleep(0.01)

    with ThreadPoolExecutor(5) as pool:
        following, writing = pool.submit(follow), pool.submit(write)
        try:
            list(pool.map(delete, records[::2]))
        finally:
            done.set()
        following.result()
        assert writing.result()
    for record in records[1::2]:
        assert len(world.files_with(world.rows[record][0].template)) == 1


def test_nothing_stays_in_the_versions_of_a_bucket(world: SnapshotWorld, seaweed_server: Seaweed) -> None:
    bucket = new_bucket()
    admin = client(seaweed_server)
    admin.make_bucket(bucket)
    admin.set_bucket_versioning(bucket, VersioningConfig(ENABLED))
    world.documents.inner = open_document_store(seaweed_server.settings(bucket), world.folder)
    snapshots = Snapshots(world.documents, world.catalogue, MODEL, DIMENSION)
    record, kept = world.enrol_in(3), world.enrol_in(3)
    snapshots.write(world.pack(3), "server")
    snapshots.write(world.pack(3), "server")
    template = world.delete(record)
    assert snapshots.forget([record]) == 1
    assert loaded(snapshots)[0] == sorted(row.face_id for row in world.rows[kept])
    held = list(admin.list_objects(bucket, recursive=True, include_version=True))
    assert len(held) == 1
    data = admin.get_object(bucket, str(held[0].object_name), version_id=held[0].version_id).read()
    assert template.tobytes() not in data
    assert world.rows[kept][0].template.tobytes() in data
