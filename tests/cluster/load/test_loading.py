"""Whole loads: every photo once, beside what others brought, and the same bits each time."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import skimage.data
from PIL import Image

from catalogue.load_types import LoadState
from catalogue.open import open_catalogue
from catalogue.tables import load_parts
from catalogue.types import RecordUpdate
from cluster.load.drive import open_driver
from cluster.load.open_source import open_source
from cluster.load.outcome_types import Became
from cluster.load.planning import Planner
from cluster.load.spec import read_spec, write_spec
from cluster.load.undo import undo
from homeward.config import Settings
from homeward.errors import Conflict, PhotoReason
from homeward.ids import photo_sha256
from homeward.types import Attributes, FaceRow
from tests.cluster.fakes import fake_photo
from tests.cluster.load import fast
from tests.cluster.load.archives import KINDS
from tests.cluster.load.exported import documents_of, export, outcomes
from tests.cluster.load.fast import Faults, Killed, MemoryGallery, Silent, World, spec_of
from tests.cluster.load.small_loads import BORN, PARTS, TREE, Interfering, became, enrol, held, id_of

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


def test_a_photo_that_went_missing_or_changed_costs_itself_alone(world: World, folder: Path) -> None:
    def meddle() -> None:
        driver.stop()
        (folder / "E/0.png").unlink()
        (folder / "D/0.png").write_bytes(b"other bytes")

    with world.open() as (driver, _, _):
        Interfering(world, TREE["A/0.png"], meddle)
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


def test_what_was_corrected_by_hand_stays_when_another_part_of_the_record_is_loaded(
    world: World, folder: Path
) -> None:
    with world.open() as (driver, catalogue, _):
        Interfering(world, TREE["B/0.png"], driver.stop)
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
