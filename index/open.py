"""Choose the gallery by URI."""

from __future__ import annotations

from pathlib import Path

from homeward.config import GallerySettings
from index.gallery import MilvusGallery
from index.milvus import collection_name, connect, dimension_of, translated


def open_gallery(settings: GallerySettings, data_dir: Path, model_id: str, dimension: int) -> MilvusGallery:
    """The model's gallery on the server at `settings.uri`, or in the data folder (Milvus Lite).

    Raises `StoreUnavailable` when Milvus does not answer, `Corrupt` when the collection is another.
    """
    connection = connect(settings, data_dir)
    try:
        return MilvusGallery(connection, collection_name(settings.collection, model_id), model_id, dimension)
    except BaseException:
        connection.close()
        raise


def stored_dimension(settings: GallerySettings, data_dir: Path, model_id: str) -> int | None:
    """Components of the templates in a model's gallery; None if there is no such gallery.

    Raises `StoreUnavailable` when Milvus does not answer."""
    connection = connect(settings, data_dir)
    try:
        name = collection_name(settings.collection, model_id)
        return dimension_of(connection, name if connection.lite is None else connection.lite.in_use(name))
    finally:
        connection.close()


def drop_gallery(settings: GallerySettings, data_dir: Path, model_id: str) -> None:
    """Remove the model's collection, if it is there, and with Milvus Lite every file of it. May be repeated.

    Nobody may have it open to write. Raises `StoreUnavailable`."""
    connection = connect(settings, data_dir)
    try:
        name = collection_name(settings.collection, model_id)
        with translated("dropping a collection"), connection.guard():
            if connection.lite is not None:
                connection.lite.drop(name)
            elif connection.client.has_collection(name, timeout=settings.timeout_s):
                connection.client.drop_collection(name, timeout=settings.timeout_s)
    finally:
        connection.close()
