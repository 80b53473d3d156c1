"""A load that is taken back leaves what was there before, and what came since."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from catalogue.load_types import LoadState
from cluster.load.outcome_types import Became
from homeward.errors import Conflict, StoreUnavailable
from homeward.ids import photo_sha256
from tests.cluster.fakes import fake_photo
from tests.cluster.load.exported import documents_of, outcomes
from tests.cluster.load.fast import Faults, Killed, MemoryGallery, World
from tests.cluster.load.small_loads import PARTS, TREE, enrol, held


def _cut_off(monkeypatch: pytest.MonkeyPatch, data: Path, folder: Path, call: str, nth: int) -> World:
    """A load whose driver died right after the nth such call, and is known to be dead."""
    world, faults = World(monkeypatch, data), Faults(monkeypatch)
    faults.kill_at(call, nth, "after")
    with pytest.raises(Killed):
        world.start("march", folder)
    faults.heal()
    monkeypatch.setattr("cluster.load.drive.is_dead", lambda _: True)
    return world


def test_undo_restores_what_was_there_before(world: World, folder: Path) -> None:
    enrol(world, "A", TREE["A/1.png"], fake_photo("mine"))
    enrol(world, "elsewhere", TREE["B/0.png"])
    before = held(world)
    world.start("march", folder)
    assert held(world) != before
    taken = world.undo("march")
    assert (taken.load.state, taken.records) == (LoadState.UNDONE, 5)
    assert held(world) == before
    assert world.undo("march").records == 0
    assert len(outcomes(world.settings, "march")) == PARTS
    world.sums("march")
    with pytest.raises(Conflict) as undone:
        world.resume("march")
    assert undone.value.code == "LOAD_UNDONE"
    world.start("april", folder)
    assert world.undo("april").records == 5
    assert held(world) == before


def test_undo_leaves_what_was_enrolled_into_the_loads_records_since(world: World, folder: Path) -> None:
    world.start("march", folder)
    enrol(world, "A", fake_photo("mine"))
    enrol(world, "B", TREE["B/0.png"])  # the same photo: now it was enrolled too
    world.undo("march")
    found = held(world)
    assert found["records"].keys() == {"A", "B"}
    assert [photo[0] for photo in found["records"]["A"]["photos"]] == [photo_sha256(fake_photo("mine"))]
    assert [photo[0] for photo in found["records"]["B"]["photos"]] == [photo_sha256(TREE["B/0.png"])]
    assert {record["load"] for record in found["records"].values()} == {""}
    assert found["photos"].keys() == {
        ("agency", photo_sha256(photo)) for photo in (fake_photo("mine"), TREE["B/0.png"])
    }
    assert len(found["templates"]) == 2


def test_an_undo_that_a_store_stops_is_finished_by_the_next(
    monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path
) -> None:
    world = World(monkeypatch, tmp_path / "data")
    world.start("march", folder)

    def away(_: MemoryGallery, _faces: Sequence[str]) -> None:
        raise StoreUnavailable("the gallery is away")

    with monkeypatch.context() as broken:
        broken.setattr(MemoryGallery, "delete", away)
        with pytest.raises(StoreUnavailable, match="gallery"):
            world.undo("march")
    load = world.load("march")
    assert (load.state, load.driven) == (LoadState.UNDOING, False)
    with pytest.raises(Conflict):
        world.resume("march")
    assert world.undo("march").load.state is LoadState.UNDONE
    assert held(world) == {"records": {}, "tombstones": 0, "templates": {}, "photos": {}}


def test_a_load_that_was_cut_off_can_be_undone(
    monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path
) -> None:
    world = _cut_off(monkeypatch, tmp_path / "data", folder, "put_outcome", 3)
    world.undo("march")
    found = held(world)
    assert (found["records"], found["templates"], found["photos"]) == ({}, {}, {})
    with world.open() as (_, catalogue, _):
        counted = sorted(part.document for part in catalogue.loads.parts("march"))
    assert documents_of(world.settings, "march") == counted


def test_what_a_killed_loader_had_announced_does_not_keep_an_undo_from_its_end(
    monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path
) -> None:
    world = _cut_off(monkeypatch, tmp_path / "data", folder, "upsert", 2)
    world.resume("march")
    world.undo("march")
    assert held(world) == {"records": {}, "tombstones": 0, "templates": {}, "photos": {}}


def test_the_same_archive_under_another_name_brings_nothing_and_takes_nothing_back(
    world: World, folder: Path
) -> None:
    world.start("march", folder)
    before = held(world)
    world.start("april", folder)
    sums = world.sums("april")
    assert (sums.became[Became.ENROLLED], sums.became[Became.ALREADY_THERE], sums.created) == (0, 8, 0)
    assert held(world) == before
    assert world.undo("april").records == 0
    assert held(world) == before
    world.undo("march")
    assert held(world)["records"] == {}
