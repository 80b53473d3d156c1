"""A driver that was taken for dead, an input that changes meanwhile, names that come twice: nothing is lost,
nothing is another child's, and nothing stays behind."""

from __future__ import annotations

import io
import tarfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from catalogue.load_types import Lease, LoadState
from catalogue.store import Catalogue
from catalogue.types import Deletion
from cluster.load.drive import Driver
from cluster.load.folder_source import FolderSource
from cluster.load.load_documents import LoadDocuments
from cluster.load.members import Member
from cluster.load.outcome_types import Became
from cluster.load.plan import Plan
from cluster.load.planning import Planned, Planner
from cluster.load.runner import Runners
from cluster.load.spec import LoadSpec, write_spec
from cluster.load.undo import undo
from homeward.errors import Conflict, InvalidInput, StoreUnavailable
from homeward.types import FaceRow
from tests.cluster.fakes import fake_photo
from tests.cluster.load.archives import KINDS
from tests.cluster.load.fast import Faults, Killed, World, spec_of
from tests.cluster.load.small_loads import became, enrol, erase, held, id_of

SIX = {f"A{number}/1.png": fake_photo(f"p{number}") for number in range(6)}


def tar_of(path: Path, *members: tuple[str, bytes]) -> Path:
    """A tar with these members, names as often as they come."""
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def test_photos_of_one_name_are_all_loaded(world: World, tmp_path: Path) -> None:
    twice = tar_of(tmp_path / "twice.tar", ("A/1.png", fake_photo("one")), ("A/1.png", fake_photo("two")))
    again = tar_of(tmp_path / "again.tar", ("A/1.png", fake_photo("three")))
    with world.open() as (driver, _, _):
        spec = LoadSpec("agency", "missing", (str(twice), str(again)))
        assert driver.start("march", spec, world.display).progress.photos == 3
    assert len(held(world)["records"]["A"]["photos"]) == 3
    assert world.sums("march").photos == 3


def takes_over(catalogue: Catalogue, planner: Planner, spec: LoadSpec) -> Planned:
    """Another driver takes the load, plans it and is stopped."""
    catalogue.loads.cancel("march")
    lease = catalogue.loads.take("march", "another host", 20.0)
    made = planner.lay_ready(spec, lease)
    catalogue.loads.planned(lease, parts=made.parts, photos=made.photos, spec=write_spec(made.spec))
    catalogue.loads.release(lease, LoadState.STOPPED)
    return made


def test_a_planner_that_lost_its_load_changes_no_part_of_it(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = KINDS["folder"](SIX, tmp_path)
    real = LoadDocuments.put_part
    taken: list[Planned] = []
    with world.open() as (driver, catalogue, documents):

        def put(own: LoadDocuments, load: str, fence: int, part: Any) -> None:
            if not taken:  # the first driver is slow, and the input is another when it goes on
                monkeypatch.setattr(LoadDocuments, "put_part", real)
                (source / "0first").mkdir()
                (source / "0first" / "1.png").write_bytes(fake_photo("new"))
                planner = Planner(catalogue.loads, documents, driver._open_source)
                taken.append(takes_over(catalogue, planner, spec_of(source, part_photos=1)))
            real(own, load, fence, part)

        monkeypatch.setattr(LoadDocuments, "put_part", put)
        with pytest.raises(Conflict) as lost:
            driver.start("march", spec_of(source, part_photos=1), world.display)
        assert lost.value.code == "LEASE_LOST"
    assert world.resume("march").load.photos == 7
    assert world.sums("march").photos == 7
    assert held(world)["records"].keys() == {"0first", *(f"A{number}" for number in range(6))}


def test_a_planner_that_fails_late_removes_nothing_of_the_one_that_took_over(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = KINDS["folder"](SIX, tmp_path)
    real = Planner.lay_ready
    with world.open() as (driver, catalogue, _):

        def fails(planner: Planner, spec: LoadSpec, lease: Lease) -> Planned:
            monkeypatch.setattr(Planner, "lay_ready", real)
            real(planner, spec, lease)
            takes_over(catalogue, planner, spec)
            raise InvalidInput("the source was gone for a moment", code="SOURCE_UNREADABLE", field="source")

        monkeypatch.setattr(Planner, "lay_ready", fails)
        with pytest.raises((InvalidInput, Conflict)):
            driver.start("march", spec_of(source), world.display)
    assert world.resume("march").load.state is LoadState.DONE
    assert world.sums("march").photos == 6


def test_nothing_is_left_of_a_load_that_was_undone_while_it_was_planned(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = KINDS["folder"](SIX, tmp_path)
    real = LoadDocuments.put_part
    with world.open() as (driver, catalogue, documents):

        def put(own: LoadDocuments, load: str, fence: int, part: Any) -> None:
            if part.number == 2:
                catalogue.loads.cancel("march")
                other = Driver(world.settings, catalogue, documents)
                undo("march", world.settings, other, catalogue, documents, tell=lambda _: None)
            real(own, load, fence, part)

        monkeypatch.setattr(LoadDocuments, "put_part", put)
        with pytest.raises(Conflict):
            driver.start("march", spec_of(source, part_photos=1), world.display)
        assert catalogue.loads.get("march").state is LoadState.UNDONE
        assert documents._documents.list_documents("loads/") == []


def test_a_fence_is_not_used_again_with_a_name(world: World, tmp_path: Path) -> None:
    with world.open() as (driver, catalogue, _):
        lease = catalogue.loads.create("march", "{}", "one")
        catalogue.loads.discard(lease)
        time.sleep(0.002)
        assert catalogue.loads.create("march", "{}", "two").fence > lease.fence
        with pytest.raises(Conflict):
            catalogue.loads.renew(lease)
        del driver


def test_an_archive_that_is_exchanged_gives_no_child_the_photo_of_another(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = ("A/1.png", fake_photo("aaa")), ("B/1.png", fake_photo("bbb"))
    archive = tar_of(tmp_path / "archive.tar", one, two)
    other = tar_of(tmp_path / "other.tar", two, one)
    real = Driver._plan

    def plan(driver: Driver, lease: Lease, spec: LoadSpec, runners: Runners) -> LoadSpec:
        made = real(driver, lease, spec, runners)
        other.replace(archive)
        return made

    monkeypatch.setattr(Driver, "_plan", plan)
    with pytest.raises(Conflict) as refused:
        world.start("march", archive)
    assert refused.value.code == "SOURCE_CHANGED"
    assert held(world)["records"] == {}


def test_an_archive_that_is_written_over_while_a_part_is_read_is_noticed_before_the_part_is_written(
    world: World, tmp_path: Path
) -> None:
    one, two = ("A/1.png", fake_photo("aaa")), ("B/1.png", fake_photo("bbb"))
    archive = tar_of(tmp_path / "archive.tar", one, two)

    def overwrite(_: list[bytes]) -> None:
        tar_of(archive, two, one, two)

    world.model.before = overwrite
    with pytest.raises(Conflict) as refused:
        world.start("march", archive)
    assert refused.value.code == "SOURCE_CHANGED"
    assert held(world)["records"] == {}


@pytest.mark.parametrize("reinstate", [False, True])
def test_who_is_deleted_during_a_load_stays_deleted(world: World, tmp_path: Path, reinstate: bool) -> None:
    source = KINDS["folder"]({"A/1.png": fake_photo("a"), "B/1.png": fake_photo("b")}, tmp_path)
    enrol(world, "A", fake_photo("mine"))
    enrol(world, "B", fake_photo("mine too"))
    with world.open() as (driver, catalogue, documents):
        catalogue.delete(Deletion(id_of("B"), "asked for", "officer 7"))
        erase(world, catalogue, documents)

        def delete(_: list[bytes]) -> None:
            world.model.before = lambda _: None
            catalogue.delete(Deletion(id_of("A"), "asked for", "officer 7"))

        world.model.before = delete
        driver.start("march", spec_of(source, reinstate=reinstate), world.display)
        erase(world, catalogue, documents)
    found = held(world)
    assert found["records"].keys() == ({"B"} if reinstate else set())
    assert "A/1.png" not in became(world, "march")


def test_a_photo_that_is_gone_when_its_part_is_done_again_is_told_as_it_was_written(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = KINDS["folder"]({"A/1.png": fake_photo("a"), "B/1.png": fake_photo("b")}, tmp_path)
    faults = Faults(monkeypatch)
    faults.kill_at("put_outcome", 1, "before")
    with pytest.raises(Killed):
        world.start("march", source)
    faults.heal()
    monkeypatch.setattr("cluster.load.drive.is_dead", lambda _: True)
    (source / "A" / "1.png").unlink()
    world.resume("march")
    assert became(world, "march")["A/1.png"] == (Became.ENROLLED, "")
    assert world.sums("march").faces == len(held(world)["templates"]) == 2


def test_a_deletion_finds_what_a_killed_planner_has_laid_ready(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = KINDS["folder"]({"A/1.png": fake_photo("a")}, tmp_path)
    enrol(world, "A", fake_photo("mine"))
    faults = Faults(monkeypatch)
    faults.kill_at("put_part", 1, "after")
    with pytest.raises(Killed):
        world.start("march", source)
    faults.heal()
    with world.open() as (_, catalogue, documents):
        catalogue.delete(Deletion(id_of("A"), "asked for", "officer 7"))
        erase(world, catalogue, documents)
        store = documents._documents
        names = store.list_documents("loads/march/parts/")
        assert names
        assert not any(b"A/1.png" in store.get_document(name) for name in names)


def test_a_deletion_between_noting_a_part_and_writing_it_is_seen(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = KINDS["folder"]({"A/1.png": fake_photo("a")}, tmp_path)
    enrol(world, "A", fake_photo("mine"))
    real = LoadDocuments.put_part
    with world.open() as (driver, catalogue, documents):

        def put(own: LoadDocuments, load: str, fence: int, part: Any) -> None:
            catalogue.delete(Deletion(id_of("A"), "asked for", "officer 7"))
            erase(world, catalogue, documents)
            real(own, load, fence, part)
            driver.stop()

        monkeypatch.setattr(LoadDocuments, "put_part", put)
        with pytest.raises(Conflict):
            driver.start("march", spec_of(source), world.display)
        erase(world, catalogue, documents)
        store = documents._documents
        assert not any(b"A/1.png" in store.get_document(name) for name in store.list_documents("loads/"))


def test_a_stop_while_the_sources_are_listed_is_obeyed_at_once(
    world: World, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = FolderSource.members
    listed = []

    def slow(source: FolderSource) -> Iterator[Member]:
        for member in real(source):
            listed.append(member)
            time.sleep(0.2)
            yield member

    monkeypatch.setattr(FolderSource, "members", slow)
    with world.open() as (driver, catalogue, _):
        threading.Timer(0.3, driver.stop).start()
        with pytest.raises(Conflict) as stopped:
            driver.start("march", spec_of(folder), world.display)
        assert stopped.value.code == "LOAD_STOPPED"
        assert len(listed) < 6
        assert catalogue.loads.get("march").state is LoadState.PLANNING
    monkeypatch.setattr(FolderSource, "members", real)
    assert world.resume("march").load.state is LoadState.DONE


def test_an_undo_that_is_stopped_goes_on_with_the_next(world: World, tmp_path: Path) -> None:
    many = {f"A{number}/1.png": fake_photo(f"p{number}") for number in range(80)}
    world.start("march", KINDS["folder"](many, tmp_path))
    with world.open() as (driver, catalogue, documents):
        driver.stop()
        with pytest.raises(Conflict):
            undo("march", world.settings, driver, catalogue, documents, tell=lambda _: None)
        assert catalogue.loads.get("march").state is LoadState.UNDOING
    assert world.undo("march").load.state is LoadState.UNDONE
    assert held(world)["records"] == {}


def test_other_loads_of_the_same_records_are_named_before_an_undo(world: World, folder: Path) -> None:
    world.start("march", folder)
    world.start("april", folder)
    with world.open() as (_, catalogue, _):
        assert catalogue.loads.overlapping("march") == ["april"]
        assert catalogue.loads.overlapping("may") == []
    world.undo("april")
    with world.open() as (_, catalogue, _):
        assert catalogue.loads.overlapping("march") == []


def test_a_record_of_many_parts_is_not_written_anew_with_each(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = {f"A/{number}.png": fake_photo(f"p{number}") for number in range(40)}
    written: list[int] = []
    real = world.gallery.upsert

    def upsert(rows: Sequence[FaceRow]) -> None:
        written.append(len(rows))
        real(rows)

    monkeypatch.setattr(world.gallery, "upsert", upsert)
    world.start("march", KINDS["folder"](one, tmp_path), part_photos=4)
    assert len(world.gallery.rows) == 40
    assert sum(written) <= 60  # parts that met at the same record are done again


def test_a_temporary_folder_without_room_is_told_with_what_to_do(
    world: World, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sqlite3

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(Plan, "make", full)
        with pytest.raises(StoreUnavailable, match="TMPDIR"):
            world.start("march", folder)
    assert world.resume("march").load.state is LoadState.DONE
