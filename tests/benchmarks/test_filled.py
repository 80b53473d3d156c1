"""Stores that are filled at once hold what enrolling the same children one by one would have left there."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from benchmarks.filled import Filled, coded_kinds, fill
from benchmarks.filled_children import BATCH, batches, children_of, draw, model, record_write
from benchmarks.stores import Stores
from catalogue.open import open_catalogue
from catalogue.tables import metadata
from homeward.config import CatalogueSettings, PhotoStoreSettings
from homeward.errors import Conflict, InvalidInput
from index.columns import COLUMN_NAMES, concatenate
from index.open import open_gallery
from tests.servers.milvus import Milvus
from tests.servers.postgres import Postgres

ROWS = 1_616  # more children than there are kinds
TIMES = {"at", "created_at", "updated_at"}


@pytest.fixture(scope="module")
def filled(postgres_server: Postgres, milvus_server: Milvus) -> Filled:
    """Small ones."""
    stores = Stores(
        catalogue=postgres_server.settings(postgres_server.new_database()),
        gallery=milvus_server.settings("filled"),
        photos=PhotoStoreSettings(),
        postgres=postgres_server,
        milvus=milvus_server,
    )
    fill(stores, ROWS, *model())
    return Filled(stores, *model(), ROWS, 0.0, was_there=False)


def contents(settings: CatalogueSettings) -> dict[str, list[tuple[object, ...]]]:
    """All rows of all tables without the times, JSON as its text."""
    catalogue = open_catalogue(settings, Path())
    found = {}
    try:
        with catalogue._database.reading() as connection:
            for table in metadata.sorted_tables:
                columns = [
                    sa.cast(column, sa.Text) if isinstance(column.type, sa.JSON) else column
                    for column in table.columns
                    if column.name not in TIMES
                ]
                found[table.name] = sorted(map(tuple, connection.execute(sa.select(*columns))), key=repr)
    finally:
        catalogue.close()
    return found


def test_the_catalogue_is_as_if_the_children_had_been_enrolled(
    filled: Filled, postgres_server: Postgres
) -> None:
    enrolled = postgres_server.settings(postgres_server.new_database())
    catalogue = open_catalogue(enrolled, Path())
    coded_kinds(Stores(enrolled, *[None] * 4))  # type: ignore[arg-type] # only the catalogue is used
    results = catalogue.apply([record_write(number, filled.model_id) for number in range(children_of(ROWS))])
    catalogue.close()
    assert [getattr(one, "rev", None) for one in results] == list(range(1, len(results) + 1))
    ours, theirs = contents(filled.stores.catalogue), contents(enrolled)
    assert ours.keys() == theirs.keys()
    for table, rows in theirs.items():
        assert ours[table] == rows, table
    assert len(ours["faces"]) == ROWS


def test_the_gallery_holds_the_rows_that_the_catalogue_names(filled: Filled) -> None:
    gallery = open_gallery(filled.stores.gallery, Path(), filled.model_id, filled.dimension)
    held = concatenate(list(gallery.iterate()), filled.dimension)
    gallery.close()
    wanted = filled.columns()
    assert len(held) == len(wanted) == ROWS
    order = {face: row for row, face in enumerate(map(tuple, held.face.tolist()))}
    rows = [order[face] for face in map(tuple, wanted.face.tolist())]
    for name in COLUMN_NAMES:
        assert (getattr(held, name)[rows] == getattr(wanted, name)).all(), name


def test_stores_that_hold_something_are_not_filled(filled: Filled) -> None:
    with pytest.raises(Conflict):
        fill(filled.stores, 16, filled.model_id, filled.dimension)
    with pytest.raises(InvalidInput):
        fill(filled.stores, 17, filled.model_id, filled.dimension)


def test_children_do_not_depend_on_how_many_there_are() -> None:
    name, _ = model()
    few = next(batches(draw(32, name), name))
    many = list(batches(draw(BATCH + 32, name), name))
    assert many[0].records[:20] == few.records
    assert many[0].faces[:32] == few.faces
    assert many[1].first == children_of(BATCH)
