"""Takes back exactly what a load brought. Its ledger and its outcome files stay."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from catalogue.load_types import Load, LoadState
from catalogue.store import Catalogue
from catalogue.types import Store
from cluster.erasing import Eraser
from cluster.galleries import Galleries
from cluster.gallery_rows import GalleryRows
from cluster.load.drive import Driver
from cluster.load.lease_keeper import LeaseKeeper
from cluster.load.load_documents import LoadDocuments
from cluster.open_snapshots import open_snapshots
from cluster.startup import INTENT_LIFE
from cluster.upgrade.models import model_in_use
from homeward.clock import SystemClock
from homeward.config import Settings
from homeward.errors import HomewardError, StoreUnavailable
from index.open import open_gallery
from photos.open import open_photo_store

_RECORDS_AT_A_TIME = 64


@dataclass(frozen=True, slots=True)
class Taken:
    """What an undo did."""

    load: Load
    records: int  # taken back, or taken apart, by this run


def undo(
    name: str,
    settings: Settings,
    driver: Driver,
    catalogue: Catalogue,
    documents: LoadDocuments,
    *,
    tell: Callable[[str], object],
) -> Taken:
    """Undo a load, or go on with it. Again: nothing.

    Raises `NotFound`; `Conflict` while a driver is at work on it; `StoreUnavailable` when a store does not
    answer, `Stopped` when the driver was: what is left then is taken back by the next undo, or by the
    sweeper.
    """
    ledger = catalogue.loads
    load = ledger.get(name)
    if load.state is LoadState.UNDONE:
        return Taken(load, 0)
    lease = driver.take(load, tell)
    records = 0
    with LeaseKeeper(ledger, lease, settings.loads.lapse_s, driver.stop):
        try:
            ledger.begin(lease, LoadState.UNDOING)
            while done := ledger.undo_some(lease, _RECORDS_AT_A_TIME).records:
                records += done
                driver.check()
            documents.sweep_outcomes(name, {part.document for part in ledger.parts(name)})
            documents.drop_parts(name)
            if load.model_id:
                _sweep(settings, load, catalogue, documents)
        except HomewardError as error:
            with contextlib.suppress(HomewardError):  # the other one says why
                ledger.release(lease, LoadState.UNDOING, error.message)
            raise
    ledger.release(lease, LoadState.UNDONE)
    return Taken(ledger.get(name), records)


def _sweep(settings: Settings, load: Load, catalogue: Catalogue, documents: LoadDocuments) -> None:
    """Remove from gallery and photo store what nothing refers to any more. What a writer has announced is
    left to it, and to the sweeper once it is certain to be dead."""
    model = model_in_use(catalogue, load.model_id, load.dimension)
    gallery = open_gallery(settings.gallery, settings.data_dir, *model)
    galleries = Galleries(catalogue, model[0], partial(open_gallery, settings.gallery, settings.data_dir))
    clock = SystemClock()
    alone = not settings.catalogue.uri  # so what is announced is a dead writer's
    dead_before = clock.now() if alone else clock.now() - INTENT_LIFE
    try:
        for rows in (GalleryRows(catalogue, gallery, *model), *galleries.others()):
            rows.rewrite_intended(dead_before)
        catalogue.expire_intents(dead_before)
        eraser = Eraser(
            catalogue,
            open_photo_store(settings.photos, settings.data_dir),
            gallery,
            clock,
            open_snapshots(settings, catalogue, *model),
            loads=documents,
            galleries=galleries,
        )
        eraser.sweep()
    finally:
        galleries.close()
        gallery.close()
    left = [store.value for store in Store if _left(catalogue, store)]
    if left:
        raise StoreUnavailable(
            f"the catalogue has let go of all of it, but not yet the store of {' and '.join(left)}: undo "
            "again when it answers, or leave it to a server's sweeper",
            store=left[0],
        )


def _left(catalogue: Catalogue, store: Store) -> bool:
    announced = catalogue.intended(store)
    return any((item.agency, item.item) not in announced for item in catalogue.pending_erasures(store))
