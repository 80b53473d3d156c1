"""One driver at a time, until its load is done, stopped or cancelled; and from the same sources again."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from catalogue.load_types import LoadState
from catalogue.open import open_catalogue
from cluster.load.drive import Driver, open_driver
from cluster.load.part_done import failed
from cluster.load.patience import Stopped
from homeward.config import LoadSettings
from homeward.errors import (
    Conflict,
    HomewardError,
    InvalidInput,
    Overloaded,
    PhotoReason,
    PhotoRejected,
    StoreUnavailable,
)
from tests.cluster.fakes import fake_photo
from tests.cluster.load.archives import KINDS
from tests.cluster.load.exported import Export
from tests.cluster.load.fast import Silent, World, spec_of
from tests.cluster.load.small_loads import PARTS, TREE, Interfering, held


def test_a_finished_load_is_not_touched_by_a_resume(world: World, folder: Path) -> None:
    world.start("march", folder)
    before = held(world)
    embedded = world.model.photos
    catalogue = open_catalogue(world.settings.catalogue, world.settings.data_dir)
    rev = catalogue.rev()
    ended = world.resume("march")
    assert (ended.progress.photos_done, ended.progress.parts_done) == (len(TREE), PARTS)
    assert (catalogue.rev(), world.model.photos, held(world)) == (rev, embedded, before)
    catalogue.close()


def test_a_load_that_is_given_again_goes_on_if_it_is_the_same_and_is_refused_if_not(
    world: World, folder: Path
) -> None:
    spec = spec_of(folder)
    with world.open() as (driver, _, _):
        first = driver.start_or_resume("march", spec, world.display, print)
        assert not first.before
        assert driver.start_or_resume("march", replace(spec, part_photos=1), world.display, print).before
        others = (
            {"sources": (*spec.sources, "/more")},
            {"manifest": "/table.csv"},
            {"agency": "YY"},
            {"gallery": "found"},
            {"reinstate": True},
        )
        for change in others:
            with pytest.raises(Conflict) as refused:
                driver.start_or_resume("march", replace(spec, **change), world.display, print)
            assert refused.value.code == "LOAD_DIFFERS"


def test_a_second_driver_is_refused_while_the_first_lives(world: World, folder: Path) -> None:
    refused: list[str] = []

    def second() -> None:
        other = Driver(world.settings, catalogue, documents)
        other.stop()  # it need not wait and see whether the first is alive
        with pytest.raises(Conflict) as busy:
            other.resume("march", Silent(), lambda _: None)
        refused.append(busy.value.code)
        with pytest.raises(Conflict) as owned, open_driver(world.settings):
            pass
        refused.append(owned.value.code)

    with world.open() as (driver, catalogue, documents):
        meddler = Interfering(world, TREE["A/0.png"], second)
        driver.start("march", spec_of(folder), world.display)
        assert meddler.done
    assert refused == ["LOAD_BUSY", "DATA_DIR_OWNED"]
    world.sums("march")


def test_a_cancelled_load_ends_its_driver_and_commits_nothing_more(
    world: World, folder: Path, uninterrupted: tuple[Export, list[object], dict[str, int]]
) -> None:
    with world.open() as (driver, catalogue, _):
        revs: list[int] = []

        def cancel() -> None:
            catalogue.loads.cancel("march")
            revs.append(catalogue.rev())

        Interfering(world, TREE["B/0.png"], cancel)
        with pytest.raises(Conflict) as lost:
            driver.start("march", spec_of(folder), world.display)
        assert lost.value.code == "LEASE_LOST"
        assert revs == [catalogue.rev()]
        assert len(catalogue.loads.parts("march")) < PARTS
        assert catalogue.loads.get("march").state is LoadState.CANCELLED
    assert world.resume("march").load.state is LoadState.DONE
    assert held(world) == uninterrupted[0]


def test_a_driver_whose_load_was_cancelled_is_told_though_nothing_is_to_be_committed(
    world: World, folder: Path
) -> None:
    """The heartbeat finds out: nobody need wait for the end of a long part."""
    world.settings = world.settings.model_copy(update={"loads": LoadSettings(lapse_s=2, patience_s=60)})
    told: list[float] = []
    with world.open() as (driver, catalogue, _):

        def cancel() -> None:
            catalogue.loads.cancel("march")
            begun = time.monotonic()
            while not driver._stop.is_set() and time.monotonic() < begun + 10:
                time.sleep(0.02)
            told.append(time.monotonic() - begun)

        Interfering(world, TREE["A/0.png"], cancel)
        with pytest.raises(Conflict) as lost:
            driver.start("march", spec_of(folder), world.display)
        assert lost.value.code == "LEASE_LOST"
    assert told[0] < 5


def test_a_load_that_is_asked_to_stop_ends_in_order_and_is_finished_by_resume(
    world: World, folder: Path, uninterrupted: tuple[Export, list[object], dict[str, int]]
) -> None:
    with world.open() as (driver, catalogue, _):
        Interfering(world, TREE["B/0.png"], driver.stop)
        with pytest.raises(Conflict) as stopped:
            driver.start("march", spec_of(folder), world.display)
        assert stopped.value.code == "LOAD_STOPPED"
        load = catalogue.loads.get("march")
        assert (load.state, load.driven) == (LoadState.STOPPED, False)
        assert len(catalogue.loads.parts("march")) < PARTS
    assert world.resume("march").load.state is LoadState.DONE
    world.sums("march")
    assert held(world) == uninterrupted[0]


def test_a_load_goes_on_only_from_the_sources_that_it_was_planned_from(world: World, tmp_path: Path) -> None:
    source = KINDS["zip"](TREE, tmp_path)
    with world.open() as (driver, _, _):
        Interfering(world, TREE["B/0.png"], driver.stop)
        with pytest.raises(Conflict):
            driver.start("march", spec_of(source), world.display)
    original = source.read_bytes()
    KINDS["zip"]({**TREE, "F/0.png": fake_photo("f0")}, tmp_path)
    with pytest.raises(Conflict) as changed:
        world.resume("march")
    assert changed.value.code == "SOURCE_CHANGED"
    assert world.load("march").state is LoadState.STOPPED
    assert original != source.read_bytes()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (StoreUnavailable("away", store="gallery"), StoreUnavailable),
        (Overloaded("too much", retry_after_s=3.0), HomewardError),
        (PhotoRejected(PhotoReason.CORRUPT, "broken"), InvalidInput),
        (Stopped("asked to"), Conflict),
    ],
)
def test_why_a_part_was_not_loaded_is_raised_where_the_load_is_driven(
    error: HomewardError, kind: type[HomewardError]
) -> None:
    raised = failed(3, error).failure()
    assert raised is not None
    assert (type(raised), raised.code, raised.message) == (kind, error.code, error.message)
