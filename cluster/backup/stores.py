"""The stores of one Homeward, for a backup of it or to restore one into it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from catalogue.open import open_catalogue
from catalogue.store import Catalogue
from cluster.backup.manifest import Model
from cluster.ownership import own_data_dir
from homeward.config import Settings
from index.gallery import MilvusGallery
from index.open import open_gallery, stored_dimension
from photos.documents import DocumentStore
from photos.open import open_document_store, open_photo_store
from photos.store import PhotoStore


@dataclass(frozen=True, slots=True)
class Stores:
    """What is true of a Homeward, and where it lies."""

    settings: Settings
    catalogue: Catalogue
    photos: PhotoStore
    documents: DocumentStore

    def model(self, model_id: str) -> Model | None:
        """The gallery of a model, if there is one."""
        found = stored_dimension(self.settings.gallery, self.settings.data_dir, model_id)
        return None if found is None else Model(model_id, found)

    @contextmanager
    def gallery(self, model: Model) -> Iterator[MilvusGallery]:
        """The gallery of a model, created if there is none."""
        settings = self.settings
        opened = open_gallery(settings.gallery, settings.data_dir, model.model_id, model.dimension)
        try:
            yield opened
        finally:
            opened.close()


@contextmanager
def open_stores(settings: Settings, *, restoring: bool = False) -> Iterator[Stores]:
    """The stores that the settings name. Those that one process owns are owned meanwhile: raises `Conflict`
    (DATA_DIR_OWNED) while a server serves them. Servers over PostgreSQL, Milvus and S3 go on."""
    alone = [settings.gallery.uri]
    if restoring:
        alone += [settings.catalogue.uri, settings.photos.uri]
    with ExitStack() as stack:
        if not all(alone):
            stack.enter_context(own_data_dir(settings.data_dir))
        catalogue = open_catalogue(settings.catalogue, settings.data_dir, restoring=restoring)
        stack.callback(catalogue.close)
        yield Stores(
            settings,
            catalogue,
            open_photo_store(settings.photos, settings.data_dir),
            open_document_store(settings.photos, settings.data_dir),
        )
