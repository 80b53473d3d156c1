"""An empty catalogue on each database; every test that takes `catalogue` runs on both."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from catalogue.open import FILE, open_catalogue
from catalogue.store import Catalogue
from homeward.config import CatalogueSettings
from tests.servers.postgres import Postgres


@dataclass
class SteppingClock:
    """Wall time that moves a second at each look, or as the test says."""

    at: datetime = datetime(2024, 5, 1, 12, 30, 15, 123456, tzinfo=UTC)

    def now(self) -> datetime:
        self.at += timedelta(seconds=1)
        return self.at

    def monotonic(self) -> float:
        return self.at.timestamp()


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A catalogue file with tables and nothing in them."""
    folder = tmp_path_factory.mktemp("catalogue")
    open_catalogue(CatalogueSettings(), folder).close()
    return folder / FILE


@pytest.fixture(scope="session")
def migrated_database(postgres_server: Postgres) -> str:
    """A database with tables and nothing in them, to copy."""
    name = postgres_server.new_database()
    open_catalogue(postgres_server.settings(name), Path("/nonexistent")).close()
    return name


@pytest.fixture
def sqlite_folder(migrated_file: Path, tmp_path: Path) -> Path:
    """A data folder with a migrated catalogue."""
    folder = tmp_path / "data"
    folder.mkdir()
    shutil.copy(migrated_file, folder / FILE)
    return folder


@pytest.fixture
def postgres_settings(postgres_server: Postgres, migrated_database: str) -> Iterator[CatalogueSettings]:
    """Settings of a migrated catalogue in a database of its own."""
    name = postgres_server.new_database(template=migrated_database)
    yield postgres_server.settings(name)
    postgres_server.drop_database(name)


@dataclass(frozen=True)
class Place:
    """Where a catalogue is, to be opened as often as a test likes."""

    settings: CatalogueSettings
    folder: Path

    def open(self, clock: SteppingClock | None = None) -> Catalogue:
        return open_catalogue(self.settings, self.folder, clock=clock)


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An empty catalogue that is not opened yet."""
    if request.param == "sqlite":
        return Place(CatalogueSettings(), request.getfixturevalue("sqlite_folder"))
    return Place(request.getfixturevalue("postgres_settings"), tmp_path)


@pytest.fixture
def clock() -> SteppingClock:
    return SteppingClock()


@pytest.fixture
def catalogue(place: Place, clock: SteppingClock) -> Iterator[Catalogue]:
    """An empty catalogue."""
    opened = place.open(clock)
    yield opened
    opened.close()
