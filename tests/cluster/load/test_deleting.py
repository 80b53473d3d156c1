"""Records that are deleted before, during and after their load."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from catalogue.types import Deletion
from homeward.errors import NotFound, RecordDeleted
from homeward.ids import photo_sha256
from tests.cluster.fakes import fake_photo
from tests.cluster.load.fast import World, spec_of
from tests.cluster.load.small_loads import TREE, Interfering, enrol, erase, held, id_of, named


def test_a_record_that_is_deleted_while_it_is_loaded_stays_deleted_and_is_named_nowhere(
    world: World, folder: Path
) -> None:
    with world.open() as (driver, catalogue, documents):

        def delete() -> None:
            while True:  # its first part is on its way to be written
                try:
                    catalogue.get(id_of("A"))
                    break
                except NotFound:
                    time.sleep(0.01)
            catalogue.delete(Deletion(id_of("A"), "asked for", "officer 7"))
            erase(world, catalogue, documents)

        meddler = Interfering(world, TREE["A/3.png"], delete)
        driver.start("march", spec_of(folder), world.display)
        assert meddler.done
        erase(world, catalogue, documents)
        assert catalogue.pending_erasures() == []
        with pytest.raises(RecordDeleted):
            catalogue.get(id_of("A"))
    sums = world.sums("march")
    assert sums.codes["RECORD_DELETED"] == 5
    assert not named(world, "A")
    found = held(world)
    assert found["tombstones"] == 1
    assert {row[0] for row in found["templates"].values()} == {id_of("B"), id_of("E")}
    assert ("agency", photo_sha256(TREE["A/4.png"])) not in found["photos"]


def test_a_record_that_was_deleted_before_is_not_loaded_unless_it_is_to_be_reinstated(
    world: World, folder: Path
) -> None:
    enrol(world, "A", fake_photo("mine"))
    enrol(world, "B", fake_photo("mine too"))
    with world.open() as (_, catalogue, documents):
        for reference in "AB":
            catalogue.delete(Deletion(id_of(reference), "asked for", "officer 7"))
        erase(world, catalogue, documents)
    world.start("march", folder)
    assert held(world)["records"].keys() == {"C", "D", "E"}
    assert world.sums("march").codes["RECORD_DELETED"] == 8
    world.start("april", folder, reinstate=True)
    found = held(world)
    assert found["records"].keys() == {"A", "B", "C", "D", "E"}
    assert found["tombstones"] == 0
    assert "RECORD_DELETED" not in world.sums("april").codes


def test_a_deletion_after_a_load_takes_the_name_from_its_outcomes(world: World, folder: Path) -> None:
    world.start("march", folder)
    assert named(world, "B")
    with world.open() as (_, catalogue, documents):
        catalogue.delete(Deletion(id_of("B"), "asked for", "officer 7"))
        erase(world, catalogue, documents)
        assert catalogue.pending_erasures() == []
    assert not named(world, "B")
    assert named(world, "A")
    assert world.sums("march").codes["RECORD_DELETED"] == 3
