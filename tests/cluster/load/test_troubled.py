"""Loads over real servers that are slow, silent, full or killed: nothing is lost, and the reason is said."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from benchmarks.kills_archive import Archive, draw_archive
from benchmarks.kills_world import Mortal
from benchmarks.served import environment
from benchmarks.stores import Stores
from homeward.config import CatalogueSettings, GallerySettings, PhotoStoreSettings, Settings
from tests.cluster.load.exported import Export, documents_of, export
from tests.cluster.load.troubled import Proxy, proxied
from tests.servers import milvus as milvus_server
from tests.servers.milvus import Milvus
from tests.servers.postgres import Postgres
from tests.servers.seaweed import Seaweed
from workers.open import open_model

pytestmark = [pytest.mark.prove, pytest.mark.timeout(1800)]

PHOTOS = 150
STOPPED = 5  # exit code: a store does not answer
REJECTED = 6  # exit code: done, and some photos were rejected


@dataclass(frozen=True)
class Place:
    """Stores of one load, and the command over them."""

    stores: Stores
    folder: Path
    archive: Archive
    postgres: Postgres

    @property
    def settings(self) -> Settings:
        """For looking at what is there."""
        return Settings(
            data_dir=self.folder,
            catalogue=self.stores.catalogue,
            gallery=self.stores.gallery,
            photos=self.stores.photos,
        )

    def begin(self, verb: str, *more: str, patience_s: float = 300.0) -> subprocess.Popen[str]:
        """`homeward load VERB march`, under way."""
        own = {
            "HOMEWARD_DATA_DIR": str(self.folder),
            "HOMEWARD_LOADS__PART_PHOTOS": "16",
            "HOMEWARD_LOADS__PATIENCE_S": str(patience_s),
            "HOMEWARD_LOADS__LAPSE_S": "3",
        }
        return subprocess.Popen(
            [sys.executable, "-m", "cluster.cli.main", "load", verb, "march", *more],
            env=environment(self.stores, own),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def start(self, patience_s: float = 300.0) -> subprocess.Popen[str]:
        """The load of the archive, under way."""
        named = ("--manifest", str(self.archive.manifest), "--agency", "agency", "--gallery", "missing")
        return self.begin("start", str(self.archive.tar), *named, patience_s=patience_s)

    def parts(self) -> int:
        """How many are committed."""
        name = str(self.stores.catalogue.uri).rpartition("/")[2]
        try:
            with self.postgres.connect(name) as connection:
                found = connection.execute("SELECT count(*) FROM load_parts").fetchone()
        except psycopg.Error:
            return 0
        return 0 if found is None else int(found[0])

    def wait_for_parts(self, least: int) -> None:
        """Until so many are committed."""
        give_up = time.monotonic() + 240
        while self.parts() < least:
            assert time.monotonic() < give_up
            time.sleep(0.1)

    def held(self) -> Export:
        """What the stores hold. A Milvus that was killed answers slowly for a while."""
        model = open_model(self.settings)
        waiting = self.settings.gallery.model_copy(update={"timeout_s": 120.0})
        settings = self.settings.model_copy(update={"gallery": waiting})
        found = export(settings, model.model_id, model.embedder.dimension)
        return {
            **found,
            "waiting": [name for name in documents_of(self.settings, "march") if "/parts/" in name],
        }


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    return draw_archive(tmp_path_factory.mktemp("archive"), PHOTOS, seed=11)


class Places:
    """Makes places on the same servers."""

    def __init__(
        self, archive: Archive, postgres: Postgres, milvus: Milvus, seaweed: Seaweed, folder: Path
    ) -> None:
        self._archive = archive
        self._postgres = postgres
        self._milvus = milvus
        self._seaweed = seaweed
        self._folder = folder
        self._proxy: Proxy | None = None

    def make(self, name: str, s3_port: int | None = None) -> Place:
        """Empty stores; S3 perhaps through a proxy."""
        with self._postgres.connect() as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        seaweed = self._seaweed if s3_port is None else Seaweed(self._seaweed.server, s3_port)
        stores = Stores(
            catalogue=self._postgres.settings(name),
            gallery=self._milvus.settings(name, timeout_s=10.0),
            photos=seaweed.settings("homeward", name),
            postgres=self._postgres,
            milvus=self._milvus,
        )
        folder = self._folder / name
        folder.mkdir()
        return Place(stores, folder, self._archive, self._postgres)


@pytest.fixture(scope="module")
def milvus() -> Iterator[Milvus]:
    """A Milvus of these tests' own: one of them kills it."""
    with milvus_server.milvus() as running:
        yield running


@pytest.fixture(scope="module")
def mortal_milvus(milvus: Milvus) -> Iterator[Mortal]:
    """What kills it and starts it again with its data."""
    mortal = Mortal(milvus.server, milvus.answers)
    yield mortal
    mortal.kill()


@pytest.fixture(scope="module")
def places(
    archive: Archive,
    postgres_server: Postgres,
    milvus: Milvus,
    seaweed_server: Seaweed,
    tmp_path_factory: pytest.TempPathFactory,
) -> Places:
    return Places(archive, postgres_server, milvus, seaweed_server, tmp_path_factory.mktemp("places"))


@pytest.fixture(scope="module")
def undisturbed(places: Places) -> Export:
    """What the archive comes to when nothing is wrong."""
    place = places.make("undisturbed")
    ends(place.start(), code=REJECTED)
    held = place.held()
    assert held["waiting"] == []
    assert held["templates"]
    return held


def ends(driver: subprocess.Popen[str], *said: str, code: int) -> None:
    """The driver must end with this code, and what it said must hold these."""
    output, _ = driver.communicate(timeout=600)
    for text in said:
        assert text in output, output[-3000:]
    assert "Traceback" not in output, output[-3000:]
    assert driver.returncode == code, output[-3000:]


def test_a_photo_store_that_is_slow_and_answers_503_costs_time_alone(
    places: Places, seaweed_server: Seaweed, undisturbed: Export
) -> None:
    with proxied(seaweed_server.port) as proxy:
        place = places.make("slow", proxy.port)
        proxy.busy, proxy.delay_s = 0.3, 0.1
        ends(place.start(), code=REJECTED)
        assert proxy.refused > 10
        proxy.busy, proxy.delay_s = 0.0, 0.0
        assert place.held() == undisturbed


def test_a_photo_store_that_is_gone_stops_the_load_with_the_reason_and_resume_goes_on(
    places: Places, seaweed_server: Seaweed, undisturbed: Export
) -> None:
    with proxied(seaweed_server.port) as proxy:
        place = places.make("gone", proxy.port)
        driver = place.start(patience_s=4.0)
        place.wait_for_parts(2)
        proxy.gone = True
        ends(driver, "photo bucket", "resume", code=STOPPED)
        ends(place.begin("status"), "stopped", code=0)
        proxy.gone = False
        ends(place.begin("resume"), code=REJECTED)
        assert place.held() == undisturbed


def test_a_gallery_that_refuses_stops_the_load_with_the_reason_and_resume_goes_on(
    places: Places, mortal_milvus: Mortal, undisturbed: Export
) -> None:
    place = places.make("refusing")
    driver = place.start(patience_s=4.0)
    place.wait_for_parts(2)
    mortal_milvus.kill()
    ends(driver, "Milvus", "resume", code=STOPPED)
    mortal_milvus.start()
    mortal_milvus.wait()
    ends(place.begin("resume"), code=REJECTED)
    assert place.held() == undisturbed


def test_what_is_deleted_while_a_load_lies_killed_stays_deleted_and_undo_leaves_nothing(
    places: Places, undisturbed: Export
) -> None:
    place = places.make("deleted")
    driver = place.start()
    place.wait_for_parts(2)
    driver.kill()
    driver.communicate()
    gone = sorted(place.held()["records"])[:3]
    before = place.parts()
    assert gone
    delete(place, gone)
    ends(place.begin("resume"), code=REJECTED)
    assert place.parts() > before
    held = place.held()
    assert held["records"] == {
        reference: record for reference, record in undisturbed["records"].items() if reference not in gone
    }
    assert held["tombstones"] == len(gone)
    ends(place.begin("undo", "--yes"), code=0)
    held = place.held()
    assert (held["records"], held["templates"], held["photos"]) == ({}, {}, {})


def test_a_full_disk_stops_the_load_with_the_reason_and_resume_goes_on(
    archive: Archive, tmp_path: Path, postgres_server: Postgres
) -> None:
    """The embedded stores, on a file system of their own that is too small and is enlarged then."""
    whole = embedded(tmp_path / "whole", archive, postgres_server)
    ends(whole.start(), code=REJECTED)
    used = sum(file.stat().st_size for file in whole.folder.rglob("*") if file.is_file())
    with small_disk(tmp_path / "small", used // 2) as (folder, enlarge):
        place = embedded(folder, archive, postgres_server)
        ends(place.start(patience_s=2.0), "full", "resume", code=STOPPED)
        enlarge(4 * used)
        ends(place.begin("resume"), code=REJECTED)
        assert place.held() == whole.held()


def embedded(folder: Path, archive: Archive, postgres: Postgres) -> Place:
    """The stores of an installation without servers."""
    folder.mkdir(exist_ok=True)
    stores = Stores(
        catalogue=CatalogueSettings(),
        gallery=GallerySettings(),
        photos=PhotoStoreSettings(),
        postgres=None,  # type: ignore[arg-type]
        milvus=None,  # type: ignore[arg-type]
    )
    return Place(stores, folder, archive, postgres)


def delete(place: Place, references: list[str]) -> None:
    """Delete these records and erase what can be erased, as a server does."""
    from catalogue.open import open_catalogue
    from catalogue.types import Deletion
    from homeward.ids import record_id
    from homeward.types import RecordKey

    catalogue = open_catalogue(place.settings.catalogue, place.folder)
    try:
        for reference in references:
            key = RecordKey("agency", "missing", reference)
            catalogue.delete(Deletion(record_id(key), "asked for", "officer 7"))
    finally:
        catalogue.close()


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[tuple[Path, Callable[[int], None]]]:
    """A file system of so many bytes, and what enlarges it. Skips the test where none can be mounted."""
    folder.mkdir()
    mount = shutil.which("mount")
    if os.geteuid() != 0 or mount is None:
        pytest.skip("a small file system takes the right to mount one")
    if subprocess.run(
        [mount, "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=False
    ).returncode:
        pytest.skip("no file system can be mounted here")

    def enlarge(bytes_: int) -> None:
        subprocess.run([mount, "-o", f"remount,size={bytes_}", str(folder)], check=True)

    try:
        yield folder, enlarge
    finally:
        subprocess.run(["umount", str(folder)], check=True)
