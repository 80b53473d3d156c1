"""A backup and its restore: all comes back as it was, between all kinds of stores, but nobody deleted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from catalogue.load_types import LoadState
from catalogue.open import open_catalogue
from catalogue.restoring import RESTORING
from catalogue.snapshot import KEPT, LEFT_OUT
from catalogue.tables import metadata
from catalogue.types import Store
from cluster.backup.create import create
from cluster.backup.place import open_place
from cluster.backup.restore import restore
from cluster.backup.stores import Stores, open_stores
from cluster.backup.verify import Backup
from homeward.config import Settings
from homeward.errors import Conflict, HomewardError
from photos.documents import DocumentStore
from tests.cluster.backup.whole import Made, back_up, bring_back, check_same
from tests.cluster.backup.world import (
    AGENCY,
    CHILDREN,
    KEY,
    MODEL,
    add_load,
    contents,
    delete,
    embedded,
    enrol,
    erase_rows,
    fill,
    large_photo,
    opened,
)
from tests.cluster.fakes import MODEL_ID


def test_every_table_is_kept_or_left_out_on_purpose() -> None:
    assert {*KEPT, *LEFT_OUT} == set(metadata.tables.values())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Made]:
    """A backup of everything there can be."""
    folder = tmp_path_factory.mktemp("whole")
    return folder / "backup", back_up(embedded(folder / "old"), str(folder / "backup"))


def test_what_is_restored_is_what_was_there(whole: tuple[Path, Made], tmp_path: Path) -> None:
    place, (manifest, before) = whole
    assert len(manifest.pieces) > len(KEPT) + 2
    assert not any((manifest.missing.photos, manifest.missing.templates, manifest.missing.documents))
    done, after = bring_back(embedded(tmp_path / "new"), str(place))
    check_same(before, after)
    assert (done.records, done.deleted_again, done.rev) == (CHILDREN - 2, 0, before["rev"])
    assert len(before["gallery"]) > done.records
    open_catalogue(embedded(tmp_path / "new").catalogue, tmp_path / "new").close()  # nobody is kept out


def test_a_backup_of_nobody_is_one(tmp_path: Path) -> None:
    manifest, before = back_up(embedded(tmp_path / "old"), str(tmp_path / "backup"), lambda _: None)
    assert (manifest.rev, manifest.models, manifest.pieces) == (0, [], [])
    _, after = bring_back(embedded(tmp_path / "new"), str(tmp_path / "backup"))
    check_same(before, after)


def test_nothing_of_a_child_can_be_read_in_a_backup(whole: tuple[Path, Made]) -> None:
    files = [path.read_bytes() for path in whole[0].rglob("*") if path.is_file()]
    for secret in (large_photo("3")[100:200], b"child 3", AGENCY.encode(), b"PAR1", MODEL_ID.encode()):
        assert not any(secret in data for data in files)


class TestMeanwhile:
    """Others write while a backup is made, and after it."""

    @pytest.fixture
    def settings(self, tmp_path: Path) -> Settings:
        return embedded(tmp_path / "old")

    def test_it_is_the_state_at_one_rev_less_what_was_deleted_until_its_end(
        self, settings: Settings, tmp_path: Path
    ) -> None:
        place = open_place(str(tmp_path / "backup"), settings, there=False)
        with open_stores(settings) as stores:
            alive = fill(stores)
            before = contents(stores)

            def act(kind: str, _done: int, _of: int) -> None:
                if kind == "catalogue/codes":  # within the snapshot
                    delete(stores, alive[0])
                    enrol(stores, "later", [large_photo("later")])
                elif kind == "catalogue/load_records" or kind.startswith("templates"):
                    delete(stores, alive[1])
                    delete(stores, alive[2])
                    enrol(stores, "child 2", [large_photo("another")], reinstate=True)
                elif kind == "photos":
                    delete(stores, alive[3])

            manifest = create(stores, place, KEY, act)
            stones = stores.catalogue.tombstones(alive)
        gone = alive[:4]
        assert manifest.rev == before["rev"]
        assert not any((manifest.missing.photos, manifest.missing.templates))
        with opened(embedded(tmp_path / "new")) as stores:
            done = restore(Backup(place, KEY), stores, MODEL_ID)
            after = contents(stores)
            assert set(stores.catalogue.tombstones(gone)) == set(stones) == set(gone) - {alive[2]}
        assert done.deleted_again == 4
        left = [row for row in before["records"] if row["record_id"] not in gone]
        assert after["records"] == left
        assert {row["record_id"] for row in after["gallery"].values()} <= {row["record_id"] for row in left}
        assert {row["sha256"] for row in after["photos"]} == {sha256 for _, sha256 in after["photo bytes"]}
        kept = {row["sha256"] for row in before["record_photos"] if row["record_id"] not in gone}
        assert kept == {sha256 for _, sha256 in after["photo bytes"]}

    def test_a_deletion_after_the_backup_holds_where_the_target_knows_of_it(
        self, settings: Settings, tmp_path: Path
    ) -> None:
        with open_stores(settings) as stores:
            gone = enrol(stores, "gone", [large_photo("gone")])
            back = enrol(stores, "back", [large_photo("back")])
            delete(stores, back)
            target = embedded(tmp_path / "new")
            with opened(target) as empty:  # it has had these children, and knows their deletions alone
                enrol(empty, "back", [large_photo("back")])
                delete(empty, back)
                enrol(stores, "back", [large_photo("back")], reinstate=True)
                enrol(empty, "gone", [large_photo("gone")])
                delete(empty, gone)
                enrol(empty, "unknown", [large_photo("unknown")])
                unknown = next(iter(empty.catalogue.list_records().records)).record_id
                delete(empty, unknown)
            place = open_place(str(tmp_path / "backup"), settings, there=False)
            create(stores, place, KEY)
        with opened(target) as stores:
            done = restore(Backup(place, KEY), stores, MODEL_ID)
            assert [row["record_id"] for row in contents(stores)["records"]] == [back]
            assert stores.catalogue.deleted([gone, back, unknown]) == {gone, unknown}
            log = stores.catalogue.changes_since(0, 1000)
            assert stores.catalogue.rev() == max(change.rev for change in log)
            assert {change.record_id for change in log if change.deleted} >= {gone, unknown}
        assert done.deleted_again == 1

    def test_a_load_under_way_is_planned_anew_and_one_that_ended_is_as_it_was(
        self, settings: Settings, tmp_path: Path
    ) -> None:
        def prepare(stores: Stores) -> None:
            add_load(stores, "done", LoadState.DONE)
            add_load(stores, "stopped", LoadState.STOPPED)

        _, before = back_up(settings, str(tmp_path / "backup"), prepare)
        _, after = bring_back(embedded(tmp_path / "new"), str(tmp_path / "backup"))
        done, stopped = after["loads"]
        assert done == before["loads"][0]
        assert (stopped["state"], stopped["parts"], stopped["holder"]) == (LoadState.PLANNING, None, "")
        assert [row["load"] for row in after["load_parts"]] == ["done"]
        assert list(after["documents"].values()) == [b"what became of done"]

    def test_what_was_replaced_meanwhile_is_counted_as_missing(
        self, settings: Settings, tmp_path: Path
    ) -> None:
        place = open_place(str(tmp_path / "backup"), settings, there=False)
        with open_stores(settings) as stores:
            enrol(stores, "a", [large_photo("a", 2)])
            enrol(stores, "b", [large_photo("b")])

            def replace(kind: str, _done: int, _of: int) -> None:
                if kind == "catalogue/changes":
                    enrol(stores, "a", [large_photo("a", 2)], faces_most=1)
                    assert stores.catalogue.erase(Store.GALLERY, partial(erase_rows, stores)) == 1

            manifest = create(stores, place, KEY, replace)
        assert manifest.missing.templates == 1

    def test_what_a_store_has_lost_is_counted_and_the_rest_is_kept(
        self, settings: Settings, tmp_path: Path
    ) -> None:
        def prepare(stores: Stores) -> None:
            for name in ("a", "b", "c"):
                enrol(stores, name, [large_photo(name)])
            lost = stores.photos.list(AGENCY)[0]
            stores.photos.delete(AGENCY, lost)
            with stores.gallery(MODEL) as gallery:
                gallery.delete([next(stores.catalogue.all_faces()).face_id])

        manifest, before = back_up(settings, str(tmp_path / "backup"), prepare)
        assert (manifest.missing.photos, manifest.missing.templates) == (1, 1)
        _, after = bring_back(embedded(tmp_path / "new"), str(tmp_path / "backup"))
        check_same(before, after)


class TestRefusals:
    """A backup that is refused changes nothing."""

    @pytest.fixture(scope="class")
    @classmethod
    def made(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        folder = tmp_path_factory.mktemp("made")
        back_up(embedded(folder / "old"), str(folder / "backup"), lambda stores: fill(stores, 3))
        return folder / "backup"

    @pytest.fixture
    def target(self, tmp_path: Path) -> Iterator[Stores]:
        with opened(embedded(tmp_path / "new")) as stores:
            yield stores

    def refuse(self, stores: Stores, work: Callable[[], object], code: str) -> None:
        before = contents(stores)
        with pytest.raises(HomewardError) as refused:
            work()
        assert refused.value.code == code
        check_same(before, contents(stores))
        assert stores.catalogue.get_meta(RESTORING) is None

    def backup(self, made: Path) -> Backup:
        return Backup(open_place(str(made), embedded(made), there=True), KEY)

    def test_a_system_that_is_not_empty(self, made: Path, target: Stores) -> None:
        enrol(target, "somebody", [large_photo("somebody")])
        found = self.backup(made)
        self.refuse(target, lambda: restore(found, target, MODEL_ID), "RESTORE_NOT_EMPTY")

    def test_another_model(self, made: Path, target: Stores) -> None:
        found = self.backup(made)
        self.refuse(target, lambda: restore(found, target, "another"), "BACKUP_MODEL")

    def test_tables_of_another_version(
        self, made: Path, target: Stores, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = self.backup(made)
        monkeypatch.setattr("catalogue.snapshot.revision", lambda _: "9999")
        self.refuse(target, lambda: restore(found, target, MODEL_ID), "BACKUP_SCHEMA")

    def test_a_damaged_piece(self, made: Path, target: Stores) -> None:
        found = self.backup(made)
        path = made / f"{found.manifest.pieces[-1].name}="
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        try:
            self.refuse(target, lambda: restore(found, target, MODEL_ID), "BACKUP_DAMAGED")
        finally:
            path.write_bytes(data)

    def test_while_the_restore_of_another_one_has_not_ended(self, made: Path, target: Stores) -> None:
        target.catalogue.set_meta(RESTORING, '{"backup": "another", "done": 1}')
        with pytest.raises(Conflict) as refused:
            restore(self.backup(made), target, MODEL_ID)
        assert refused.value.code == "RESTORE_UNFINISHED"

    def test_a_place_that_has_a_backup_or_something_else(
        self, made: Path, target: Stores, tmp_path: Path
    ) -> None:
        self.refuse(target, lambda: create(target, _place(made), KEY), "BACKUP_EXISTS")
        self.backup(made).verify()
        _place(tmp_path / "other").put_document("a/letter", b"text")
        self.refuse(target, lambda: create(target, _place(tmp_path / "other"), KEY), "BACKUP_EXISTS")


def _place(path: Path) -> DocumentStore:
    return open_place(str(path), embedded(path), there=False)
