"""The one place where adapters are chosen, by URI, and put together into a running Homeward.

The embedded default (SQLite, folder, Milvus Lite, the model in this process) and the cluster
(PostgreSQL, S3, a Milvus server, remote workers) are the same parts behind the same seams.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

from catalogue.open import open_catalogue
from catalogue.store import Catalogue
from cluster.erasing import Eraser
from cluster.follow import Follower
from cluster.galleries import Galleries
from cluster.gallery_rows import GalleryRows
from cluster.live import Live, ServerIndex, ShardedIndex, milvus_fallback
from cluster.load.load_documents import LoadDocuments
from cluster.open_snapshots import open_snapshots
from cluster.ownership import own_data_dir
from cluster.searchlog import SearchLog
from cluster.self_check import SelfCheck
from cluster.shard_maps import ShardMaps
from cluster.snapshots import Snapshots
from cluster.upgrade.models import open_bundle
from cluster.worker_placement import CataloguePlacements
from homeward.clock import Clock, SystemClock
from homeward.config import Settings
from homeward.types import Calibration
from index.gallery import MilvusGallery
from index.open import open_gallery
from index.router import Router
from index.router_types import RouterSettings
from index.shard import Shard
from index.warm_up import compile_kernels
from photos.open import open_document_store, open_photo_store
from photos.store import PhotoStore
from workers.calibrate import load_calibration
from workers.embedding import Embedding
from workers.open import open_embedding

_logger = logging.getLogger(__name__)

SCANNING_THREADS = 2  # one batch of searches is scanned while the one before is looked up and written


@dataclass(frozen=True, slots=True)
class Parts:
    """A composed Homeward. Blocking stores are called through `blocking`, never on the event loop."""

    settings: Settings
    clock: Clock
    catalogue: Catalogue
    photos: PhotoStore
    snapshots: Snapshots  # from which the index is loaded sooner than from the gallery
    load_documents: LoadDocuments
    gallery: MilvusGallery
    index: Shard
    embedding: Embedding
    search_log: SearchLog
    calibration: Calibration | None
    blocking: ThreadPoolExecutor  # catalogue, gallery and photo store calls
    scanning: ThreadPoolExecutor  # searches, so that slow stores of enrolments never delay one
    putting: ThreadPoolExecutor  # photo bytes of one batch of enrolments, side by side
    router: Router | None = None  # to the shards that hold the index instead of `index`, if they do
    rows: GalleryRows = field(init=False)
    follower: Follower = field(init=False)  # the one writer of `index`
    live: Live = field(init=False)  # the index that answers
    galleries: Galleries = field(init=False)  # of the other model, while models are being upgraded
    eraser: Eraser = field(init=False)
    self_check: SelfCheck = field(init=False)

    def __post_init__(self) -> None:
        model = self.embedding
        rows = GalleryRows(self.catalogue, self.gallery, model.model_id, model.dimension)
        object.__setattr__(self, "rows", rows)
        follower = Follower(self.catalogue, rows, self.index, snapshot_source(self.settings, self.snapshots))
        object.__setattr__(self, "follower", follower)
        live: Live = ServerIndex(self.index, follower)
        if self.router is not None:
            stale_s = self.settings.index.stale_s
            live = ShardedIndex(self.router, self.catalogue, rows, self.blocking, stale_s)
        object.__setattr__(self, "live", live)
        opened = partial(open_gallery, self.settings.gallery, self.settings.data_dir)
        galleries = Galleries(self.catalogue, model.model_id, opened)
        object.__setattr__(self, "galleries", galleries)
        eraser = Eraser(
            self.catalogue,
            self.photos,
            self.gallery,
            self.clock,
            self.snapshots,
            loads=self.load_documents,
            galleries=galleries,
        )
        object.__setattr__(self, "eraser", eraser)
        check = SelfCheck(self.catalogue, self.gallery, model.model_id, self.settings.index, clock=self.clock)
        object.__setattr__(self, "self_check", check)


@asynccontextmanager
async def compose(settings: Settings, clock: Clock | None = None) -> AsyncIterator[Parts]:
    """Open every part, in order, and close them in reverse.

    Raises `Conflict` (DATA_DIR_OWNED) when another process serves the data folder, and the parts'
    own errors when one of them cannot be opened.
    """
    async with AsyncExitStack() as stack:
        stack.enter_context(own_data_dir(settings.data_dir))
        blocking = stack.enter_context(ThreadPoolExecutor(16, thread_name_prefix="store"))
        scanning = stack.enter_context(ThreadPoolExecutor(SCANNING_THREADS, thread_name_prefix="scan"))
        putting = stack.enter_context(ThreadPoolExecutor(8, thread_name_prefix="put"))
        loop = asyncio.get_running_loop()
        catalogue = await loop.run_in_executor(
            blocking, open_catalogue, settings.catalogue, settings.data_dir
        )
        stack.callback(catalogue.close)
        photos = await loop.run_in_executor(blocking, open_photo_store, settings.photos, settings.data_dir)
        embedding = await _open_serving(settings, catalogue, blocking)
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
        router = None
        if settings.index.where == "shards":
            router = open_router(settings, catalogue, gallery, embedding, blocking)
            await router.open()
            stack.push_async_callback(router.close)
        else:
            await loop.run_in_executor(blocking, compile_kernels)
        index = open_index(settings, embedding.dimension)
        stack.callback(index.close)
        parts = Parts(
            settings=settings,
            clock=clock or SystemClock(),
            catalogue=catalogue,
            photos=photos,
            gallery=gallery,
            index=index,
            embedding=embedding,
            search_log=stack.enter_context(SearchLog(settings.data_dir / "search-log")),
            calibration=load_calibration(settings.bundles_dir, embedding.model_id),
            blocking=blocking,
            scanning=scanning,
            putting=putting,
            router=router,
            load_documents=LoadDocuments(open_document_store(settings.photos, settings.data_dir)),
            snapshots=await loop.run_in_executor(
                blocking, open_snapshots, settings, catalogue, embedding.model_id, embedding.dimension
            ),
        )
        stack.callback(parts.galleries.close)
        yield parts


async def _open_serving(settings: Settings, catalogue: Catalogue, executor: ThreadPoolExecutor) -> Embedding:
    """The model that serves since the last upgrade; before the first, the one that the settings name.
    Embedding workers are asked if it is theirs."""
    found = await asyncio.get_running_loop().run_in_executor(executor, catalogue.upgrades.latest)
    placements = CataloguePlacements(catalogue)
    if found is None:
        return await open_embedding(settings, placements)
    model = found.serving
    if settings.workers.addresses or settings.workers.where == "workers":
        remote = await open_embedding(settings, placements)
        if remote.model_id == model.model_id:
            return remote
        await remote.close()
        _logger.warning("the workers embed with %s, not with %s that serves", remote.model_id, model.model_id)
    elif settings.workers.bundle != model.bundle:
        _logger.warning(
            "workers.bundle is %s, and %s serves since the last upgrade",
            settings.workers.bundle,
            model.bundle,
        )
    return await open_bundle(settings, model)


def open_index(settings: Settings, dimension: int) -> Shard:
    """An empty index whose originals lie where the settings say."""
    folder = settings.index.folder or settings.data_dir / "index"
    folder.mkdir(parents=True, exist_ok=True)
    device = None
    if settings.index.device != "cpu":
        from index.torch_scan import TorchScan

        device = TorchScan(settings.index.device)
    return Shard(dimension, folder=folder, threads=settings.index.threads, device=device)


def snapshot_source(settings: Settings, snapshots: Snapshots) -> Snapshots | None:
    """What an index is loaded from; None when the settings want no snapshots."""
    return snapshots if settings.index.snapshot_interval_s else None


def open_router(
    settings: Settings,
    catalogue: Catalogue,
    gallery: MilvusGallery,
    embedding: Embedding,
    executor: ThreadPoolExecutor,
) -> Router:
    """The way to the shards of the model's index; to be opened."""
    return Router(
        ShardMaps(catalogue, embedding.model_id).read,
        partial(milvus_fallback, gallery, catalogue),
        model_id=embedding.model_id,
        dimension=embedding.dimension,
        token=settings.index.token,
        executor=executor,
        settings=RouterSettings(
            shard_timeout_s=settings.index.shard_timeout_s, hedge_s=settings.index.hedge_s
        ),
    )
