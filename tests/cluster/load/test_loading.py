"""Whole loads: every photo once, whatever dies, stops or is deleted meanwhile; and back again."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path

import pytest
import skimage.data
from PIL import Image

from catalogue.load_types import LoadState
from catalogue.open import open_catalogue
from catalogue.store import Catalogue
from catalogue.tables import load_parts
from catalogue.types import Deletion, FaceWrite, PhotoWrite, RecordUpdate, RecordWrite
from cluster.erasing import Eraser
from cluster.load.drive import Driver, open_driver
from cluster.load.open_source import open_source
from cluster.load.outcome_types import Became
from cluster.load.part_done import failed
from cluster.load.patience import Stopped
from cluster.load.planning import Planner
from cluster.load.spec import read_spec, write_spec
from cluster.load.undo import undo
from cluster.open_snapshots import open_snapshots
from cluster.prepare import face_writes
from homeward.clock import SystemClock
from homeward.config import LoadSettings, Settings
from homeward.errors import (
    Conflict,
    HomewardError,
    InvalidInput,
    NotFound,
    Overloaded,
    PhotoReason,
    PhotoRejected,
    RecordDeleted,
    StoreUnavailable,
)
from homeward.ids import photo_sha256, record_id
from homeward.types import Attributes, DateRange, FaceRow, RecordKey, Sex
from photos.folder import FolderPhotoStore
from tests.cluster.fakes import DIMENSION, MODEL_ID, fake_face, fake_photo
from tests.cluster.load import fast
from tests.cluster.load.archives import KINDS, Tree
from tests.cluster.load.exported import Export, documents_of, export, outcomes
from tests.cluster.load.fast import Faults, Killed, MemoryGallery, Silent, World, spec_of

CUT = b"CUT a photo that ends early"
TREE: Tree = {
    "A/0.png": fake_photo("a0"),
    "A/1.png": fake_photo("a1"),
    "A/2.png": fake_photo("a0"),  # again, in the same part
    "A/3.png": fake_photo("a0"),  # again, in the next part
    "A/4.png": fake_photo("a4"),
    "B/0.png": fake_photo("b0"),
    "B/1.txt": b"not a photo",
    "B/2.png": CUT,
    "C/0.png": fake_photo("c0", 2),
    "D/0.png": fake_photo("d0", 0),
    "E/0.png": fake_photo("a0"),  # of another record
    "stray.png": fake_photo("stray"),
}
PARTS = 5
BORN = Attributes(born=DateRange(date(2008, 1, 1), date(2008, 12, 31)), sex=Sex.FEMALE)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> World:
    return World(monkeypatch, tmp_path / "data")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return KINDS["folder"](TREE, tmp_path)


def id_of(reference: str) -> str:
    return record_id(RecordKey("agency", "missing", reference))


def held(world: World) -> Export:
    return export(world.settings, MODEL_ID, DIMENSION)


def enrol(world: World, reference: str, *contents: bytes, attributes: Attributes = BORN) -> None:
    """A live enrolment of photos with one face each."""
    catalogue = open_catalogue(world.settings.catalogue, world.settings.data_dir)
    _enrol(world, catalogue, reference, *contents, attributes=attributes)
    catalogue.close()


def _enrol(
    world: World, catalogue: Catalogue, reference: str, *contents: bytes, attributes: Attributes
) -> None:
    key = RecordKey("agency", "missing", reference)
    photos = FolderPhotoStore(world.settings.data_dir / "photos")
    writes = []
    for content in contents:
        sha256 = photos.put("agency", content)
        face = fake_face(content, 0)
        (own,) = face_writes(record_id(key), sha256, MODEL_ID, [face])
        world.gallery.rows[own.face_id] = _row(record_id(key), sha256, own, content)
        writes.append(PhotoWrite(sha256, "image/png", 100, 120, len(content), faces_seen=1, faces=(own,)))
    (result,) = catalogue.apply([RecordWrite(key, attributes, tuple(writes), MODEL_ID)])
    assert not isinstance(result, Exception)


def _row(record: str, sha256: str, face: FaceWrite, content: bytes) -> FaceRow:
    zeros = dict.fromkeys(
        ["agency", "gallery", "load", "sex", "born_from", "born_to", "event_from", "event_to"], 0
    )
    return FaceRow(
        face_id=face.face_id,
        record_id=record,
        photo_sha256=sha256,
        ordinal=0,
        taken_from=0,
        taken_to=0,
        place=0,
        template=fake_face(content, 0).template,
        **zeros,
    )


def became(world: World, name: str) -> dict[str, tuple[str, str]]:
    """What became of each photo by its name."""
    return {
        photo.photo: (photo.became, photo.code)
        for part in outcomes(world.settings, name)
        for photo in part.photos
    }


ENROLLED = (Became.ENROLLED, "")


@pytest.mark.parametrize("kind", KINDS)
def test_every_photo_of_an_archive_is_accounted_for_once(kind: str, world: World, tmp_path: Path) -> None:
    ended = world.start("march", KINDS[kind](TREE, tmp_path))
    assert (ended.load.state, ended.load.parts) == (LoadState.DONE, PARTS)
    assert (ended.progress.photos, ended.progress.photos_done) == (len(TREE), len(TREE))
    sums = world.sums("march")
    assert sums.became == {
        Became.ENROLLED: 5,
        Became.DUPLICATE: 2,
        Became.ALREADY_THERE: 0,
        Became.REJECTED: 5,
    }
    assert (sums.records, sums.created, sums.searchable, sums.faces) == (5, 5, 3, 5)
    assert became(world, "march") == {
        "A/0.png": ENROLLED,
        "A/1.png": ENROLLED,
        "A/2.png": (Became.DUPLICATE, ""),
        "A/3.png": ENROLLED,  # the part alone cannot say more; the report does
        "A/4.png": ENROLLED,
        "B/0.png": ENROLLED,
        "B/1.txt": (Became.REJECTED, PhotoReason.FORMAT_UNKNOWN),
        "B/2.png": (Became.REJECTED, PhotoReason.TRUNCATED),
        "C/0.png": (Became.REJECTED, PhotoReason.FACE_CHOICE_REQUIRED),
        "D/0.png": (Became.REJECTED, PhotoReason.NO_FACE),
        "E/0.png": ENROLLED,
        "stray.png": (Became.REJECTED, "NO_RECORD"),
    }
    found = held(world)
    kept = [name for name in TREE if name not in ("B/1.txt", "stray.png")]
    assert found["photos"] == {("agency", photo_sha256(TREE[name])): True for name in kept}
    assert len(found["templates"]) == 5
    assert [photo[0] for photo in found["records"]["A"]["photos"]] == [
        photo_sha256(TREE[f"A/{at}.png"]) for at in (0, 1, 4)
    ]
    assert len(documents_of(world.settings, "march")) == PARTS
    catalogue = open_catalogue(world.settings.catalogue, world.settings.data_dir)
    assert (catalogue.pending_erasures(), catalogue.counts().intents) == ([], 0)
    catalogue.close()


def test_of_a_manifest_with_bad_rows_every_row_and_every_photo_is_accounted_for(
    world: World, tmp_path: Path
) -> None:
    tree = {f"{at:02}.png": fake_photo(f"photo {at}") for at in range(30)}
    bad = {3: ",R1,", 7: "07.png,R2,someday", 11: "gone.png,R3,", 19: "18.png,R6,2001"}
    rows = [bad.get(at, f"{at:02}.png,R{at // 3},") for at in range(30)]
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("photo,record,born\n" + "\n".join(rows) + "\n")
    source = KINDS["tar"](tree, tmp_path)
    ended = world.start("march", source, manifest=str(manifest), part_photos=2)
    sums = world.sums("march")
    assert ended.load.photos == 33  # 30 rows, and three photos which no row names
    assert sums.became[Became.ENROLLED] == 26
    assert sums.codes == {
        "MANIFEST_ROW_INVALID": 2,
        "MEMBER_MISSING": 1,
        "MANIFEST_ROWS_DIFFER": 1,
        "NOT_IN_MANIFEST": 3,
    }


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Export, list[object], dict[str, int]]:
    """What a load that nothing disturbs leaves behind, and how often each step is called."""
    folder = tmp_path_factory.mktemp("loads")
    with pytest.MonkeyPatch.context() as monkeypatch:
        world = World(monkeypatch, folder / "data")
        faults = Faults(monkeypatch)
        world.start("march", KINDS["tar"](TREE, folder))
        calls = dict(faults.calls)
        return held(world), [*outcomes(world.settings, "march")], calls


KILLS = [
    ("add_parts", 1),
    ("put_part", 3),
    ("planned", 1),
    ("settle_model", 1),
    ("put", 5),
    ("upsert", 3),
    ("apply", 2),
    ("apply", 4),
    ("put_outcome", 4),
    ("commit_part", 3),
    ("commit_part", 5),
    ("drop_part", 2),
    ("sweep_outcomes", 1),
    ("release", 1),
]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("step", "call"), KILLS)
def test_a_load_that_is_killed_anywhere_comes_to_the_same_when_it_is_resumed(
    step: str,
    call: int,
    when: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    uninterrupted: tuple[Export, list[object], dict[str, int]],
) -> None:
    world, faults = World(monkeypatch, tmp_path / "data"), Faults(monkeypatch)
    expected, said, calls = uninterrupted
    assert calls[step] >= call
    faults.kill_at(step, call, when)
    with pytest.raises(Killed):
        world.start("march", KINDS["tar"](TREE, tmp_path))
    faults.heal()
    monkeypatch.setattr("cluster.load.drive.is_dead", lambda _: True)
    ended = world.resume("march")
    assert (ended.load.state, ended.progress.photos_done) == (LoadState.DONE, len(TREE))
    world.sums("march")
    assert outcomes(world.settings, "march") == said
    assert held(world) == expected
    assert len(documents_of(world.settings, "march")) == PARTS


FAILS = ["put", "upsert", "apply", "put_outcome", "commit_part"]


@pytest.mark.parametrize("step", FAILS)
def test_a_store_that_does_not_answer_for_a_while_is_waited_for(
    step: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    uninterrupted: tuple[Export, list[object], dict[str, int]],
) -> None:
    monkeypatch.setattr("cluster.load.patience.FIRST_WAIT_S", 0.05)
    world, faults = World(monkeypatch, tmp_path / "data"), Faults(monkeypatch)
    faults.error = lambda: StoreUnavailable(f"{step} is away")
    faults.fails = lambda now, call, when: now == step and call in (2, 3) and when == "before"
    world.start("march", KINDS["tar"](TREE, tmp_path))
    assert outcomes(world.settings, "march") == uninterrupted[1]
    assert held(world) == uninterrupted[0]


def test_what_is_waited_for_is_said(monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path) -> None:
    monkeypatch.setattr("cluster.load.drive._SHOW_S", 0.01)
    world, faults = World(monkeypatch, tmp_path / "data"), Faults(monkeypatch)
    faults.error = lambda: StoreUnavailable("the photo store is away")
    faults.fails = lambda step, call, when: step == "put" and call == 1 and when == "before"
    world.start("march", folder)
    assert world.display.held == {"", "the photo store is away"}


def test_when_patience_is_over_the_load_stops_and_says_why_and_goes_on_later(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    uninterrupted: tuple[Export, list[object], dict[str, int]],
) -> None:
    world, faults = World(monkeypatch, tmp_path / "data"), Faults(monkeypatch)
    world.settings = world.settings.model_copy(update={"loads": LoadSettings(patience_s=0.1, lapse_s=20)})
    faults.error = lambda: StoreUnavailable("the gallery is away")
    faults.fails = lambda step, call, _when: step == "upsert" and call > 1
    with pytest.raises(StoreUnavailable, match="gallery is away"):
        world.start("march", KINDS["tar"](TREE, tmp_path))
    load = world.load("march")
    assert (load.state, load.message, load.driven) == (LoadState.STOPPED, "the gallery is away", False)
    faults.heal()
    assert world.resume("march").load.state is LoadState.DONE
    assert world.load("march").message == ""
    assert outcomes(world.settings, "march") == uninterrupted[1]
    assert held(world) == uninterrupted[0]


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


class _Interfering:
    """Does something once, while a batch that begins with this photo is in the model."""

    def __init__(self, world: World, first: bytes, act: Callable[[], object]) -> None:
        self._first = first
        self._act = act
        self._lock = threading.Lock()
        self.done = False
        world.model.before = self

    def __call__(self, batch: list[bytes]) -> None:
        with self._lock:
            mine = not self.done and batch[0] == self._first
            self.done = self.done or mine
        if mine:
            self._act()


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
        meddler = _Interfering(world, TREE["A/0.png"], second)
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

        _Interfering(world, TREE["B/0.png"], cancel)
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

        _Interfering(world, TREE["A/0.png"], cancel)
        with pytest.raises(Conflict) as lost:
            driver.start("march", spec_of(folder), world.display)
        assert lost.value.code == "LEASE_LOST"
    assert told[0] < 5


def test_a_load_that_is_asked_to_stop_ends_in_order_and_is_finished_by_resume(
    world: World, folder: Path, uninterrupted: tuple[Export, list[object], dict[str, int]]
) -> None:
    with world.open() as (driver, catalogue, _):
        _Interfering(world, TREE["B/0.png"], driver.stop)
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
        _Interfering(world, TREE["B/0.png"], driver.stop)
        with pytest.raises(Conflict):
            driver.start("march", spec_of(source), world.display)
    original = source.read_bytes()
    KINDS["zip"]({**TREE, "F/0.png": fake_photo("f0")}, tmp_path)
    with pytest.raises(Conflict) as changed:
        world.resume("march")
    assert changed.value.code == "SOURCE_CHANGED"
    assert world.load("march").state is LoadState.STOPPED
    assert original != source.read_bytes()


def test_a_photo_that_went_missing_or_changed_costs_itself_alone(world: World, folder: Path) -> None:
    def meddle() -> None:
        driver.stop()
        (folder / "E/0.png").unlink()
        (folder / "D/0.png").write_bytes(b"other bytes")

    with world.open() as (driver, _, _):
        _Interfering(world, TREE["A/0.png"], meddle)
        with pytest.raises(Conflict):
            driver.start("march", spec_of(folder), world.display)
    world.resume("march")
    sums = world.sums("march")
    assert sums.codes["MEMBER_MISSING"] == 1
    assert sums.codes["MEMBER_CHANGED"] == 1


def test_what_others_brought_is_left_as_it_is(world: World, folder: Path) -> None:
    enrol(world, "A", TREE["A/1.png"], fake_photo("mine"))
    enrol(world, "B", TREE["B/0.png"])
    before = held(world)
    world.start("march", folder)
    sums = world.sums("march")
    assert (sums.became[Became.ALREADY_THERE], sums.created, sums.attributes_kept) == (2, 3, 2)
    after = held(world)
    assert after["records"]["A"]["attributes"] == after["records"]["B"]["attributes"] == BORN
    assert after["records"]["A"]["photos"][:2] == before["records"]["A"]["photos"]
    assert [photo[0] for photo in after["records"]["A"]["photos"]][2:] == [
        photo_sha256(TREE["A/0.png"]),
        photo_sha256(TREE["A/4.png"]),
    ]
    assert before["templates"].items() <= after["templates"].items()


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
    world, faults = World(monkeypatch, tmp_path / "data"), Faults(monkeypatch)
    faults.kill_at("put_outcome", 3, "after")
    with pytest.raises(Killed):
        world.start("march", folder)
    faults.heal()
    monkeypatch.setattr("cluster.load.drive.is_dead", lambda _: True)
    world.undo("march")
    found = held(world)
    assert (found["records"], found["templates"], found["photos"]) == ({}, {}, {})
    with world.open() as (_, catalogue, _):
        counted = sorted(part.document for part in catalogue.loads.parts("march"))
    assert documents_of(world.settings, "march") == counted


def test_what_a_killed_loader_had_announced_does_not_keep_an_undo_from_its_end(
    monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path
) -> None:
    world, faults = World(monkeypatch, tmp_path / "data"), Faults(monkeypatch)
    faults.kill_at("upsert", 2, "after")
    with pytest.raises(Killed):
        world.start("march", folder)
    faults.heal()
    monkeypatch.setattr("cluster.load.drive.is_dead", lambda _: True)
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


def test_what_was_corrected_by_hand_stays_when_another_part_of_the_record_is_loaded(
    world: World, folder: Path
) -> None:
    with world.open() as (driver, catalogue, _):
        _Interfering(world, TREE["B/0.png"], driver.stop)
        with pytest.raises(Conflict):
            driver.start("march", spec_of(folder, part_photos=1), world.display)
        assert catalogue.get(id_of("A")).attributes == Attributes()
        catalogue.update(RecordUpdate(id_of("A"), BORN))
        before = {part.part for part in catalogue.loads.parts("march")}
        with catalogue._database.writing() as connection:  # as if the last parts had yet to be committed
            connection.execute(load_parts.delete().where(load_parts.c.part > min(before) + 1))
    # Their documents were dropped with the commit: planned again they are the same.
    with world.open() as (_, catalogue, documents):
        lease = catalogue.loads.take("march", "test", 20.0)
        spec = read_spec(catalogue.loads.get("march").spec)
        planned = Planner(catalogue.loads, documents, open_source).lay_ready(spec, lease)
        spec_ = write_spec(planned.spec)
        catalogue.loads.planned(lease, parts=planned.parts, photos=planned.photos, spec=spec_)
        catalogue.loads.release(lease, LoadState.STOPPED)
    world.resume("march")
    assert held(world)["records"]["A"]["attributes"] == BORN


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

        meddler = _Interfering(world, TREE["A/3.png"], delete)
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


def erase(world: World, catalogue: Catalogue, documents: object) -> None:
    """What a server's sweeper does."""
    Eraser(
        catalogue,
        FolderPhotoStore(world.settings.data_dir / "photos"),
        world.gallery,  # type: ignore[arg-type]
        SystemClock(),
        open_snapshots(world.settings, catalogue, MODEL_ID, DIMENSION),
        loads=documents,  # type: ignore[arg-type]
    ).sweep()


def named(world: World, reference: str) -> bool:
    """Whether an outcome speaks of the record."""
    for part in outcomes(world.settings, "march"):
        said = [*((one.reference, one.record_id) for one in part.photos)]
        said += [(one.reference, one.record_id) for one in part.records]
        if any(reference == of or id_of(reference) == record for of, record in said):
            return True
    return False


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


def test_a_copy_that_is_written_later_does_not_replace_the_template_of_the_first(
    world: World, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both parts of the record have seen that it is not there, and write at the same time."""
    real = MemoryGallery.upsert
    first = threading.Event()

    def upsert(gallery: MemoryGallery, rows: Sequence[FaceRow]) -> None:
        shas = [row.photo_sha256 for row in rows]
        of_a = bool(rows) and rows[0].record_id == id_of("A")
        if of_a and photo_sha256(TREE["A/4.png"]) in shas:
            first.wait(1.0)  # the other part's rows are written before these
        real(gallery, rows)
        if of_a and photo_sha256(TREE["A/1.png"]) in shas:
            first.set()
            time.sleep(0.2)

    monkeypatch.setattr(MemoryGallery, "upsert", upsert)
    world.start("march", folder)
    after = held(world)["templates"]
    monkeypatch.setattr(MemoryGallery, "upsert", real)
    with pytest.MonkeyPatch.context() as again:
        other = World(again, world.settings.data_dir.parent / "other")
        other.start("march", folder)
        assert held(other)["templates"] == after


def test_with_the_stores_and_the_model_of_a_default_installation_a_repetition_gives_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    astronaut = Image.fromarray(skimage.data.astronaut())  # type: ignore[no-untyped-call]
    photos = []
    for side in (300, 330, 360):
        out = io.BytesIO()
        astronaut.crop((60, 0, 400, 340)).resize((side, side)).save(out, "JPEG", quality=90)
        photos.append(out.getvalue())
    tree = {"A/0.jpg": photos[0], "A/1.jpg": photos[1], "B/0.jpg": photos[2], "C/0.jpg": photos[0]}
    source = KINDS["zip"](tree, tmp_path)
    exports, said = [], []
    model = ("", 0)
    for name, faulty in (("one", False), ("two", True)):
        settings = Settings(data_dir=tmp_path / name, loads=fast.SETTINGS)
        with monkeypatch.context() as patched:
            faults = Faults(patched)
            if faulty:
                faults.kill_at("commit_part", 1, "before")
                with pytest.raises(Killed), open_driver(settings) as (driver, _, _):
                    driver.start("march", spec_of(source, part_photos=2), Silent())
                faults.heal()
                patched.setattr("cluster.load.drive.is_dead", lambda _: True)
                with open_driver(settings) as (driver, _, _):
                    load = driver.resume("march", Silent(), lambda _: None).load
            else:
                with open_driver(settings) as (driver, _, _):
                    load = driver.start("march", spec_of(source, part_photos=2), Silent()).load
        model = (load.model_id, load.dimension)
        exports.append(export(settings, *model))
        said.append(outcomes(settings, "march"))
    assert len(exports[0]["templates"]) == 4
    with open_driver(settings) as (driver, catalogue, documents):
        undo("march", settings, driver, catalogue, documents, tell=lambda _: None)
    assert export(settings, *model) == {"records": {}, "tombstones": 0, "templates": {}, "photos": {}}
    assert exports[0] == exports[1]
    assert said[0] == said[1]


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
