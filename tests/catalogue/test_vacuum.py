"""What is deleted leaves the files of both databases; who may ask for it, and what it waits for."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from pydantic import SecretStr

from catalogue.coding import PLACE
from catalogue.open import FILE, open_catalogue
from catalogue.store import Catalogue
from catalogue.types import Deletion, Store
from homeward.config import CatalogueSettings
from homeward.errors import (
    StoreUnavailable,
)
from homeward.types import Attributes
from tests.catalogue.builders import rid, write
from tests.servers.postgres import Postgres


def test_vacuum_leaves_no_deleted_word_in_any_file(sqlite_folder: Path) -> None:
    catalogue = open_catalogue(CatalogueSettings(), sqlite_folder)
    words = [f"WITNESS-{at:04}" for at in range(200)]
    for word in words:
        attributes = Attributes(case_reference=word)
        catalogue.apply([write(word, {word: 2}, attributes=attributes)])

    def seen() -> set[str]:
        text = b"".join(path.read_bytes() for path in sqlite_folder.iterdir())
        return {word for word in words if word.encode() in text}

    assert seen() == set(words)
    for word in words[:150]:
        catalogue.delete(Deletion(rid(word), "", ""))
    for store in Store:
        while catalogue.erase(store, lambda _: None):
            pass
    catalogue.vacuum()
    assert seen() == set(words[150:])
    assert catalogue.counts().records == 50
    catalogue.close()


def test_vacuum_runs_on_both(catalogue: Catalogue) -> None:
    catalogue.apply([write("r", {"p": 1})])
    catalogue.codes(PLACE, ["rio"])
    catalogue.delete(Deletion(rid("r"), "", ""))
    catalogue.vacuum()
    catalogue.vacuum()
    assert catalogue.counts().tombstones == 1


def test_the_owner_of_a_database_vacuums_it_without_being_more(postgres_server: Postgres) -> None:
    """As the documentation has PostgreSQL set up; who is no superuser may not ask for a checkpoint."""
    name = postgres_server.new_database()
    with postgres_server.connect() as connection:
        connection.execute(f"CREATE ROLE owner_{name} LOGIN PASSWORD 'x'".encode())
        connection.execute(f"ALTER DATABASE {name} OWNER TO owner_{name}".encode())
    given = CatalogueSettings(
        uri=f"postgresql://owner_{name}@127.0.0.1:{postgres_server.port}/{name}", password=SecretStr("x")
    )
    catalogue = open_catalogue(given, Path())
    try:
        catalogue.apply([write("r", {"p": 1})])
        assert catalogue.vacuum() == ()
    finally:
        catalogue.close()
        postgres_server.drop_database(name)


def test_a_table_above_the_limit_is_not_locked_unless_the_whole_is_asked_for(
    postgres_server: Postgres,
) -> None:
    name = postgres_server.new_database()
    given = postgres_server.settings(name).model_copy(update={"rewrite_table_bytes": 32 << 10})
    catalogue = open_catalogue(given, Path())
    try:
        catalogue.apply([write(f"r{n}", {f"p{n}": 1}) for n in range(300)])
        left = catalogue.vacuum(whole=False)
        assert "faces" in left
        assert "counter" not in left
        assert catalogue.vacuum() == ()
    finally:
        catalogue.close()
        postgres_server.drop_database(name)


def test_vacuum_says_when_a_reader_is_in_its_way(
    sqlite_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("catalogue.engine._BUSY_MS", 50)
    catalogue = open_catalogue(CatalogueSettings(), sqlite_folder)
    reader = sqlite3.connect(sqlite_folder / FILE)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM records").fetchall()
    catalogue.apply([write("r")])
    with pytest.raises(StoreUnavailable):
        catalogue.vacuum()
    reader.close()
    catalogue.vacuum()
    catalogue.close()
