"""The collections beside the serving model's: while models are being upgraded there is one more.

Who takes children out of the gallery, or changes what is known of them, asks here which other collections
hold rows of theirs. The catalogue is asked each time, after the change was committed: an upgrade that began
later reads what was committed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from catalogue.store import Catalogue
from cluster.gallery_rows import GalleryRows
from index.gallery import MilvusGallery

OpenGallery = Callable[[str, int], MilvusGallery]  # of a model id and its templates' length


class Galleries:
    """Opens them when they are first asked for. Blocking and thread-safe."""

    def __init__(self, catalogue: Catalogue, model_id: str, open_gallery: OpenGallery) -> None:
        """`model_id`: whose collection is not meant, as its owner has it open."""
        self._catalogue = catalogue
        self._model_id = model_id
        self._open_gallery = open_gallery
        self._opened: dict[str, GalleryRows] = {}
        self._opening = threading.Lock()

    def others(self) -> list[GalleryRows]:
        """The rows of models that are not this one. Raises `StoreUnavailable`."""
        found = self._catalogue.upgrades.latest()
        if found is None:
            return []
        models = (found.serving, found.standby)
        return [
            self._rows(model.model_id, model.dimension)
            for model in models
            if model is not None and model.model_id != self._model_id
        ]

    def rewrite(self, record_ids: Iterable[str]) -> None:
        """Write the rows of these records in the other collections as the catalogue says now."""
        records = list(record_ids)
        for rows in self.others() if records else ():
            rows.rewrite(records)

    def close(self) -> None:
        """Let go of what was opened."""
        with self._opening:
            while self._opened:
                self._opened.popitem()[1].gallery.close()

    def _rows(self, model_id: str, dimension: int) -> GalleryRows:
        with self._opening:
            rows = self._opened.get(model_id)
            if rows is None:
                gallery = self._open_gallery(model_id, dimension)
                rows = self._opened[model_id] = GalleryRows(self._catalogue, gallery, model_id, dimension)
            return rows
