"""Opening, migrating, vacuuming; files, errors and settings of the two databases."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from pydantic import SecretStr
from sqlalchemy import exc

from catalogue.errors import map_error, mapped
from catalogue.migrate import HEAD, alembic_config, upgrade
from catalogue.open import FILE, open_catalogue
from catalogue.store import Catalogue
from catalogue.tables import metadata
from homeward.config import CatalogueSettings
from homeward.errors import (
    Conflict,
    Corrupt,
    HomewardError,
    InvalidInput,
    NotSupported,
    StoreUnavailable,
)
from tests.catalogue.builders import rid, write
from tests.catalogue.conftest import Place
from tests.servers.postgres import Postgres
from tests.servers.process import free_port


def test_the_migrated_tables_are_those_of_the_code(catalogue: Catalogue) -> None:
    with catalogue._database.reading() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, metadata) == []


def test_checks_and_keys_are_migrated_too(catalogue: Catalogue) -> None:
    """What Alembic's comparison leaves out: primary keys in order, and the check on the counter."""
    with catalogue._database.reading() as connection:
        inspector = sa.inspect(connection)
        for table in metadata.sorted_tables:
            keys = [column.name for column in table.primary_key.columns]
            assert inspector.get_pk_constraint(table.name)["constrained_columns"] == keys
    with pytest.raises(Conflict), catalogue._database.writing() as connection:
        connection.exec_driver_sql("INSERT INTO counter (id, rev) VALUES (2, 5)")


def test_opening_again_keeps_everything(place: Place) -> None:
    first = place.open()
    first.apply([write("r", {"p": 2})])
    first.close()
    second = place.open()
    assert len(second.get(rid("r")).photos[0].faces) == 2
    assert second.rev() == 1
    second.close()


def test_migrating_a_migrated_database_does_nothing(catalogue: Catalogue) -> None:
    catalogue.apply([write("r")])
    upgrade(catalogue._database)
    assert catalogue.rev() == 1


def test_there_is_one_head_and_no_gap() -> None:
    scripts = ScriptDirectory.from_config(alembic_config())
    assert scripts.get_heads() == [HEAD]
    assert len(list(scripts.walk_revisions())) >= 1


def test_a_database_of_a_newer_version_is_refused(place: Place) -> None:
    opened = place.open()
    with opened._database.writing() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    opened.close()
    with pytest.raises(NotSupported) as caught:
        place.open()
    assert caught.value.code == "CATALOGUE_TOO_NEW"


def test_an_empty_database_is_migrated_by_all_who_open_it_at_once(postgres_server: Postgres) -> None:
    name = postgres_server.new_database()
    with ThreadPoolExecutor(3) as pool:
        opened = list(
            pool.map(lambda _: open_catalogue(postgres_server.settings(name), Path("/nonexistent")), range(3))
        )
    assert [each.rev() for each in opened] == [0, 0, 0]
    for each in opened:
        each.close()
    postgres_server.drop_database(name)


def test_the_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "data"
    catalogue = open_catalogue(CatalogueSettings(), folder)
    catalogue.apply([write("r")])
    assert folder.stat().st_mode & 0o777 == 0o700
    files = list(folder.iterdir())
    assert {path.name for path in files} >= {FILE, FILE + "-wal"}
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    with catalogue._database.reading() as connection:
        found = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "secure_delete")
        }
    assert found == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "secure_delete": 1}
    catalogue.close()


def test_a_damaged_file_is_corrupt(sqlite_folder: Path) -> None:
    path = sqlite_folder / FILE
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(Corrupt):
        open_catalogue(CatalogueSettings(), sqlite_folder)


def test_a_lost_counter_is_corrupt(catalogue: Catalogue) -> None:
    with catalogue._database.writing() as connection:
        connection.exec_driver_sql("DELETE FROM counter")
    with pytest.raises(Corrupt):
        catalogue.apply([write("r")])


def test_a_folder_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreUnavailable):
        open_catalogue(CatalogueSettings(), tmp_path / "file" / "data")


@pytest.mark.parametrize(
    "uri",
    [
        "mysql://u@h/d",
        "sqlite:////tmp/x.db",
        "not a uri",
        "postgresql://user:secret@host/db",
        "postgresql://u@h/d?password=secret",
    ],
)
def test_other_uris_are_refused(uri: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        open_catalogue(CatalogueSettings(uri=uri), tmp_path)
    assert caught.value.code == "CONFIG_INVALID"
    assert "secret" not in str(caught.value)


def test_a_server_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    settings = CatalogueSettings(uri=f"postgresql://u@127.0.0.1:{free_port()}/d")
    with pytest.raises(StoreUnavailable) as caught:
        open_catalogue(settings, tmp_path)
    assert caught.value.details == {"store": "catalogue"}


def test_a_wrong_password_is_told(postgres_settings: CatalogueSettings, tmp_path: Path) -> None:
    wrong = postgres_settings.model_copy(update={"password": SecretStr("wrong")})
    with pytest.raises(StoreUnavailable, match="HOMEWARD_CATALOGUE__PASSWORD"):
        open_catalogue(wrong, tmp_path)


def test_a_connection_that_broke_is_replaced(
    postgres_settings: CatalogueSettings, postgres_server: Postgres, tmp_path: Path
) -> None:
    catalogue = open_catalogue(postgres_settings, tmp_path)
    catalogue.apply([write("r")])
    with postgres_server.connect() as admin:
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'homeward'"
        )
    assert catalogue.apply([write("s")])[0].rev == 2  # type: ignore[union-attr]
    catalogue.close()


def test_errors_never_show_what_was_written(catalogue: Catalogue) -> None:
    with pytest.raises(HomewardError) as caught, catalogue._database.writing() as connection:
        connection.execute(sa.text("INSERT INTO nowhere VALUES (:a)"), {"a": "a child's name"})
    assert isinstance(caught.value, StoreUnavailable)
    text = "".join(str(error) for error in (caught.value, caught.value.__cause__))
    assert "child's name" not in text


def test_every_error_of_sqlalchemy_is_mapped() -> None:
    def subclasses(kind: Any) -> set[Any]:
        return {kind}.union(*(subclasses(each) for each in kind.__subclasses__()))

    def made(kind: Any) -> Any:
        if issubclass(kind, exc.DBAPIError):
            return kind("statement", {}, Exception("driver's words"))
        return BaseException.__new__(kind)

    expected = {exc.IntegrityError: Conflict, exc.DataError: InvalidInput}
    for kind in subclasses(exc.SQLAlchemyError):
        error = map_error(made(kind))
        assert isinstance(error, expected.get(kind, StoreUnavailable)), kind
        assert "driver's words" not in error.message
    with pytest.raises(StoreUnavailable), mapped():
        raise exc.TimeoutError


def test_nothing_but_database_errors_is_swallowed(catalogue: Catalogue) -> None:
    def fail() -> None:
        with catalogue._database.committing() as revs:
            revs.take()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert catalogue.rev() == 0


def test_the_shared_time_goes_on_and_says_its_zone(catalogue: Catalogue) -> None:
    first = catalogue.shared_now()
    time.sleep(0.01)
    second = catalogue.shared_now()
    assert first < second
    assert first.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - second) < timedelta(minutes=1)  # databases of tests run on this machine
