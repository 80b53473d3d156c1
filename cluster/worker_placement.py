"""The list of embedding workers: settings of the catalogue, which every server can read already.

Each worker writes its own entry, so that no two writers ever change the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from catalogue.open import open_catalogue
from catalogue.store import Catalogue
from homeward.config import CatalogueSettings, Settings
from workers.placement import PlacedWorker

_WORKER: TypeAdapter[PlacedWorker] = TypeAdapter(PlacedWorker)
_PREFIX = "embedding_worker/"


@dataclass(frozen=True, slots=True)
class CataloguePlacements:
    """`Placements` in a catalogue that is open."""

    catalogue: Catalogue

    def read(self) -> list[PlacedWorker]:
        """See `Placements`; an entry that is none is left out."""
        found = []
        for _, text in sorted(self.catalogue.list_meta(_PREFIX).items()):
            try:
                found.append(_WORKER.validate_json(text))
            except ValidationError:
                continue
        return found

    def place(self, worker: PlacedWorker) -> None:
        """See `Placements`."""
        self.catalogue.set_meta(_PREFIX + worker.name, _WORKER.dump_json(worker).decode())

    def remove(self, name: str) -> None:
        """See `Placements`."""
        self.catalogue.drop_meta(_PREFIX + name)


@dataclass(frozen=True, slots=True)
class OpenedPlacements:
    """`Placements` for whoever has no catalogue open, as workers have not: it is opened for each call."""

    settings: CatalogueSettings
    data_dir: Path

    @classmethod
    def of(cls, settings: Settings) -> OpenedPlacements:
        """In the catalogue that the settings name."""
        return cls(settings.catalogue, settings.data_dir.absolute())

    def read(self) -> list[PlacedWorker]:
        """See `Placements`."""
        with self._opened() as placements:
            return placements.read()

    def place(self, worker: PlacedWorker) -> None:
        """See `Placements`."""
        with self._opened() as placements:
            placements.place(worker)

    def remove(self, name: str) -> None:
        """See `Placements`."""
        with self._opened() as placements:
            placements.remove(name)

    @contextmanager
    def _opened(self) -> Iterator[CataloguePlacements]:
        catalogue = open_catalogue(self.settings, self.data_dir)
        try:
            yield CataloguePlacements(catalogue)
        finally:
            catalogue.close()
