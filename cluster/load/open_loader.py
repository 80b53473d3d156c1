"""Puts a loader together: the stores and the model that the settings name, by URI."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial

from catalogue.load_types import Lease
from catalogue.open import open_catalogue
from catalogue.store import Catalogue
from cluster.erasing import Eraser
from cluster.followed import NoIndex
from cluster.galleries import Galleries
from cluster.gallery_rows import GalleryRows
from cluster.load.ahead import Ahead
from cluster.load.load_documents import LoadDocuments
from cluster.load.loader import Loader
from cluster.load.open_source import open_source
from cluster.load.part_reader import PartReader
from cluster.load.part_writer import PartWriter
from cluster.load.patience import Patience
from cluster.load.picture import picture_hash
from cluster.load.spec import LoadSpec
from cluster.load.tally import Tally
from cluster.open_snapshots import open_snapshots
from cluster.upgrade.models import serving_settings
from cluster.writer import Writer
from homeward.clock import SystemClock
from homeward.config import Settings
from index.open import open_gallery
from photos.open import open_document_store, open_photo_store
from workers.open import open_bulk

_PUTTERS = 8


@contextmanager
def open_loader(settings: Settings, spec: LoadSpec, lease: Lease) -> Iterator[Loader]:
    """A loader for one load. Searches see what it commits as soon as they follow the change log.

    The gallery is opened beside the first part, for Milvus takes seconds to make a new collection ready; what
    that raises becomes of the part. Raises what the other parts raise that cannot be opened, and `Conflict`
    (LOAD_MODEL) when the model is not the one that the load was begun with.
    """
    with ExitStack() as stack:
        catalogue = open_catalogue(settings.catalogue, settings.data_dir)
        stack.callback(catalogue.close)
        begun_with = catalogue.loads.get(lease.load).model_id
        embedding = open_bulk(serving_settings(settings, catalogue, begun_with), picture_hash)
        stack.callback(embedding.close)
        catalogue.loads.settle_model(lease, embedding.model_id, embedding.dimension)
        model = (embedding.model_id, embedding.dimension)
        writer = stack.enter_context(Ahead(lambda: _open_writer(settings, spec, lease, catalogue, model)))
        writer.begin()
        tally = Tally()
        reader = PartReader(
            spec.sources,
            partial(open_source, settings=settings),
            settings.workers.max_photo_bytes,
            spec.states,
        )
        stack.callback(reader.close)
        yield Loader(
            lease=lease,
            planned_by=spec.planned_by,
            ledger=catalogue.loads,
            documents=LoadDocuments(open_document_store(settings.photos, settings.data_dir)),
            reader=reader,
            embedding=embedding,
            writer=writer.get,
            tally=tally,
            patience=Patience(settings.loads.patience_s, tally.holding_back),
            batch_max=settings.workers.batch_max,
        )


@contextmanager
def _open_writer(
    settings: Settings, spec: LoadSpec, lease: Lease, catalogue: Catalogue, model: tuple[str, int]
) -> Iterator[PartWriter]:
    with ExitStack() as stack:
        photos = open_photo_store(settings.photos, settings.data_dir)
        documents = LoadDocuments(open_document_store(settings.photos, settings.data_dir))
        gallery = open_gallery(settings.gallery, settings.data_dir, *model)
        stack.callback(gallery.close)
        snapshots = open_snapshots(settings, catalogue, *model)
        opened = partial(open_gallery, settings.gallery, settings.data_dir)
        galleries = Galleries(catalogue, model[0], opened)
        stack.callback(galleries.close)
        writer = Writer(
            catalogue=catalogue,
            photos=photos,
            gallery=gallery,
            live=NoIndex(),
            gallery_rows=GalleryRows(catalogue, gallery, *model),
            eraser=Eraser(
                catalogue, photos, gallery, SystemClock(), snapshots, loads=documents, galleries=galleries
            ),
            executor=stack.enter_context(ThreadPoolExecutor(_PUTTERS, thread_name_prefix="put")),
            lease=lease,
            galleries=galleries,
        )
        yield PartWriter(
            writer,
            catalogue,
            load=lease.load,
            model_id=model[0],
            reinstate_until=spec.reinstate_until if spec.reinstate else None,
        )
