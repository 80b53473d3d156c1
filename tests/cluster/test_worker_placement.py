"""The list of embedding workers in a real catalogue: one process writes it, another one reads it."""

from __future__ import annotations

import pickle
from pathlib import Path

from catalogue.open import open_catalogue
from cluster.worker_placement import CataloguePlacements, OpenedPlacements
from homeward.config import Settings
from tests.servers.postgres import Postgres
from workers.placement import PlacedWorker


def test_workers_are_listed_by_name_at_their_newest_address(postgres_server: Postgres) -> None:
    settings = Settings(catalogue=postgres_server.settings(postgres_server.new_database()))
    elsewhere: OpenedPlacements = pickle.loads(pickle.dumps(OpenedPlacements.of(settings)))
    catalogue = open_catalogue(settings.catalogue, settings.data_dir)
    try:
        placements = CataloguePlacements(catalogue)
        assert placements.read() == []
        elsewhere.place(PlacedWorker("embedding-1", "10.0.0.2:20100", "model", 128))
        elsewhere.place(PlacedWorker("embedding-0", "10.0.0.1:20100", "model", 128))
        moved = PlacedWorker("embedding-1", "[fd00::3]:20100", "model", 128)
        elsewhere.place(moved)
        assert placements.read() == [PlacedWorker("embedding-0", "10.0.0.1:20100", "model", 128), moved]
        elsewhere.remove("embedding-0")
        elsewhere.remove("embedding-0")
        assert placements.read() == elsewhere.read() == [moved]
    finally:
        catalogue.close()


def test_an_entry_that_is_none_hides_no_other(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    catalogue = open_catalogue(settings.catalogue, settings.data_dir)
    try:
        placements = CataloguePlacements(catalogue)
        placed = PlacedWorker("embedding-1", "127.0.0.1:20100", "model", 128)
        placements.place(placed)
        for number, text in enumerate(("", "{", "[]", '{"name": "x"}', "[" * 9999)):
            catalogue.set_meta(f"embedding_worker/broken-{number}", text)
        assert placements.read() == [placed]
    finally:
        catalogue.close()
