"""A composed Homeward whose model is a fake, for tests that serve it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager
from typing import cast

from catalogue.open import open_catalogue
from cluster.compose import Parts
from cluster.load.load_documents import LoadDocuments
from cluster.open_snapshots import open_snapshots
from cluster.searchlog import SearchLog
from cluster.server import OpenParts
from homeward.clock import SystemClock
from homeward.config import Settings
from homeward.types import Calibration
from homeward.v1 import search_pb2
from index.columns import Columns, empty
from index.gallery import MilvusGallery
from index.open import open_gallery
from index.shard import Shard
from photos.open import open_document_store, open_photo_store
from tests.cluster.fakes import DIMENSION, FakeEmbedding

CASE = search_pb2.SearchContext(case_reference="case-1", purpose="identification", requester="officer 7")


class EmptyGallery:
    """No templates, and no Milvus to start: for servers into which nobody is enrolled."""

    def iterate(self, batch: int = 0) -> Iterator[Columns]:
        """Nothing."""
        return iter(())

    def get(self, face_ids: Sequence[str]) -> Columns:
        """Nothing."""
        return empty(DIMENSION)

    def delete(self, face_ids: Sequence[str]) -> None:
        """Nothing to delete."""

    def close(self) -> None:
        """Nothing to close."""


def opening(
    embedding: FakeEmbedding | None = None, calibration: Calibration | None = None, *, enrols: bool = True
) -> OpenParts:
    """What `running_server` opens its parts with: the embedded stores, and the fake model."""

    @asynccontextmanager
    async def open_parts(settings: Settings) -> AsyncIterator[Parts]:
        model = embedding or FakeEmbedding()
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        if not enrols:  # the index is filled by hand, and no gallery is there to check it by
            unchecked = settings.index.model_copy(
                update={"self_check_share": 0.0, "self_check_interval_s": 0.0}
            )
            settings = settings.model_copy(update={"index": unchecked})
        with ExitStack() as stack:
            blocking = stack.enter_context(ThreadPoolExecutor(16))
            putting = stack.enter_context(ThreadPoolExecutor(8))
            scanning = stack.enter_context(ThreadPoolExecutor(1))
            catalogue = open_catalogue(settings.catalogue, settings.data_dir)
            stack.callback(catalogue.close)
            gallery = (
                open_gallery(settings.gallery, settings.data_dir, model.model_id, model.dimension)
                if enrols
                else cast("MilvusGallery", EmptyGallery())
            )
            stack.callback(gallery.close)
            yield Parts(
                settings=settings,
                clock=SystemClock(),
                catalogue=catalogue,
                photos=open_photo_store(settings.photos, settings.data_dir),
                snapshots=open_snapshots(settings, catalogue, model.model_id, model.dimension),
                load_documents=LoadDocuments(open_document_store(settings.photos, settings.data_dir)),
                gallery=gallery,
                index=Shard(model.dimension),
                embedding=model,
                search_log=stack.enter_context(SearchLog(settings.data_dir / "search-log")),
                calibration=calibration,
                blocking=blocking,
                scanning=scanning,
                putting=putting,
            )

    return open_parts
