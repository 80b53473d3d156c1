"""The one place where adapters are chosen, by URI, and put together into a running Homeward.

The embedded default (SQLite, folder, Milvus Lite, the model in this process) and the cluster
(PostgreSQL, S3, a Milvus server, remote workers) are the same parts behind the same seams.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from catalogue.open import open_catalogue
from catalogue.store import Catalogue
from cluster.erasing import Eraser
from cluster.follow import Follower
from cluster.ownership import own_data_dir
from cluster.searchlog import SearchLog
from homeward.clock import Clock, SystemClock
from homeward.config import Settings
from homeward.types import Calibration
from index.gallery import MilvusGallery
from index.open import open_gallery
from index.resident import ResidentIndex
from photos.open import open_photo_store
from photos.store import PhotoStore
from workers.calibrate import load_calibration
from workers.embedding import Embedding
from workers.open import open_embedding


@dataclass(frozen=True, slots=True)
class Parts:
    """A composed Homeward. Blocking stores are called through `blocking`, never on the event loop."""

    settings: Settings
    clock: Clock
    catalogue: Catalogue
    photos: PhotoStore
    gallery: MilvusGallery
    index: ResidentIndex
    embedding: Embedding
    search_log: SearchLog
    calibration: Calibration | None
    blocking: ThreadPoolExecutor  # catalogue, gallery and photo store calls
    scanning: ThreadPoolExecutor  # index scans, so that slow stores never delay a search
    putting: ThreadPoolExecutor  # photo bytes of one batch of enrolments, side by side
    follower: Follower = field(init=False)  # the index's one writer
    eraser: Eraser = field(init=False)

    def __post_init__(self) -> None:
        follower = Follower(self.catalogue, self.gallery, self.index, self.embedding.model_id)
        object.__setattr__(self, "follower", follower)
        eraser = Eraser(self.catalogue, self.photos, self.gallery, self.clock)
        object.__setattr__(self, "eraser", eraser)


@asynccontextmanager
async def compose(settings: Settings, clock: Clock | None = None) -> AsyncIterator[Parts]:
    """Open every part, in order, and close them in reverse.

    Raises `Conflict` (DATA_DIR_OWNED) when another process serves the data folder, and the parts'
    own errors when one of them cannot be opened.
    """
    async with AsyncExitStack() as stack:
        stack.enter_context(own_data_dir(settings.data_dir))
        blocking = stack.enter_context(ThreadPoolExecutor(16, thread_name_prefix="store"))
        scanning = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="scan"))
        putting = stack.enter_context(ThreadPoolExecutor(8, thread_name_prefix="put"))
        loop = asyncio.get_running_loop()
        catalogue = await loop.run_in_executor(
            blocking, open_catalogue, settings.catalogue, settings.data_dir
        )
        stack.callback(catalogue.close)
        photos = await loop.run_in_executor(blocking, open_photo_store, settings.photos, settings.data_dir)
        embedding = await open_embedding(settings)
        stack.push_async_callback(embedding.close)
        gallery = await loop.run_in_executor(
            blocking,
            open_gallery,
            settings.gallery,
            settings.data_dir,
            embedding.model_id,
            embedding.dimension,
        )
        stack.callback(gallery.close)
        yield Parts(
            settings=settings,
            clock=clock or SystemClock(),
            catalogue=catalogue,
            photos=photos,
            gallery=gallery,
            index=ResidentIndex(embedding.dimension),
            embedding=embedding,
            search_log=stack.enter_context(SearchLog(settings.data_dir / "search-log")),
            calibration=load_calibration(settings.bundles_dir, embedding.model_id),
            blocking=blocking,
            scanning=scanning,
            putting=putting,
        )
