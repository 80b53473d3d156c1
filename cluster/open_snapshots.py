"""Choose where snapshots of the index lie."""

from __future__ import annotations

from catalogue.store import Catalogue
from cluster.snapshots import Snapshots
from homeward.config import Settings
from photos.open import open_document_store


def open_snapshots(settings: Settings, catalogue: Catalogue, model_id: str, dimension: int) -> Snapshots:
    """The index's snapshots beside the photos."""
    documents = open_document_store(settings.photos, settings.data_dir)
    return Snapshots(documents, catalogue, model_id, dimension)
