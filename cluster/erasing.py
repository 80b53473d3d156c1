"""Takes deleted children out of the stores, and says how far that has come.

The catalogue knows what must go (its `erasures`), so that a crash only delays it. Rows and photos go at
once; what a store keeps in its files goes when they are rewritten, at the latest `KEEP` after the deletion.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from catalogue.store import Catalogue
from catalogue.types import Item, Store
from cluster.enrolment_types import StoreErasure
from cluster.galleries import Galleries
from cluster.load.load_documents import LoadDocuments
from cluster.snapshots import Snapshots
from homeward.clock import Clock
from homeward.errors import HomewardError
from index.gallery import MilvusGallery
from photos.store import PhotoStore

KEEP = timedelta(hours=24)
HALF_WRITTEN_S = 60.0  # a photo's temporary file that is older belongs to a writer that died
AGAIN = timedelta(hours=2)  # a rewrite that something hindered: one in an hour, see `is_due`
REWRITE_DUE = "rewrite_due"  # catalogue setting: when files with deleted content must have been rewritten

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StoreErased:
    """What `rewrite` achieved in one store."""

    store: str
    erased: bool
    note: str = ""


class Eraser:
    """Blocking; every method is thread-safe and may be repeated."""

    def __init__(
        self,
        catalogue: Catalogue,
        photos: PhotoStore,
        gallery: MilvusGallery,
        clock: Clock,
        snapshots: Snapshots,
        *,
        loads: LoadDocuments,
        galleries: Galleries | None = None,
    ) -> None:
        """`galleries`: where else rows of deleted children may lie."""
        self._catalogue = catalogue
        self._photos = photos
        self._gallery = gallery
        self._clock = clock
        self._snapshots = snapshots
        self._loads = loads
        self._galleries = galleries
        self._delete: dict[Store, Callable[[Sequence[Item]], None]] = {
            Store.PHOTOS: self._delete_photos,
            Store.OUTCOMES: self._forget_outcomes,
        }

    def sweep(self, *stores: Store, record_id: str | None = None) -> int:
        """Remove what must go from the stores (all of them by default); how many items went.

        A store that fails keeps its items for the next sweep.
        """
        gone = 0
        for store in stores or tuple(Store):
            try:
                if store is Store.GALLERY:
                    self._forget(record_id)
                while done := self._catalogue.erase(store, self._deleting(store), record_id=record_id):
                    gone += done
                    if store is Store.GALLERY:
                        self.mark_due()
            except HomewardError as error:
                _logger.warning("sweeping %s: %s", store.value, error.message)
        return gone

    def deleted(self, record_id: str) -> tuple[StoreErasure, ...]:
        """Erase what can be erased of a deleted record now, and say what is left where."""
        self.mark_due()
        # Not what is noted: a rewrite may be under way that is past this child already, see `rewrite`.
        due = self._clock.now() + KEEP
        self.sweep(record_id=record_id)
        photos_left = self._catalogue.pending_erasures(Store.PHOTOS, record_id, 1)
        outcomes_left = self._catalogue.pending_erasures(Store.OUTCOMES, record_id, 1)
        return (
            StoreErasure("index", None),
            StoreErasure("photos", due if photos_left else None),
            StoreErasure("outcomes", due if outcomes_left else None),
            # Rows are gone for every reader; the files of Milvus and the catalogue's write-ahead log
            # hold them until they are rewritten.
            StoreErasure("gallery", due),
            StoreErasure("catalogue", due),
        )

    def mark_due(self) -> datetime:
        """Note that files must be rewritten, if that is not noted yet; until when."""
        noted = self._catalogue.get_meta(REWRITE_DUE)
        if noted:
            return datetime.fromisoformat(noted)
        due = self._clock.now() + KEEP
        self._catalogue.set_meta(REWRITE_DUE, due.isoformat())
        return due

    def is_due(self) -> bool:
        """Whether a rewrite was promised for a time that is near (an hour) or past."""
        noted = self._catalogue.get_meta(REWRITE_DUE)
        return bool(noted) and datetime.fromisoformat(str(noted)) <= self._clock.now() + timedelta(hours=1)

    def rewrite_due(self) -> list[StoreErased]:
        """Rewrite if that is due, as servers do by themselves: one of them does, and what hinders it is tried
        again in an hour, not at once. Large tables are left to `rewrite`: see `Catalogue.vacuum`."""
        noted = self._catalogue.get_meta(REWRITE_DUE)
        later = (self._clock.now() + AGAIN).isoformat()
        if not noted or not self.is_due() or not self._catalogue.swap_meta(REWRITE_DUE, noted, later):
            return []
        return self.rewrite(whole=False)

    def rewrite(self, *, whole: bool = True) -> list[StoreErased]:
        """Rewrite what stores keep, so that no byte of deleted children stays in their files."""
        begun_at = self._catalogue.rev()
        large: tuple[str, ...] = ()
        self.sweep()
        done: list[StoreErased] = []
        settled: set[str] = set()
        try:
            self._photos.sweep(HALF_WRITTEN_S)
            done.append(self._pending(Store.PHOTOS))
            done.append(self._pending(Store.OUTCOMES))
        except HomewardError as error:
            done.append(StoreErased("photos", False, error.message))
        try:
            self._snapshots.sweep()
            done.append(StoreErased("snapshots", True))
        except HomewardError as error:
            done.append(StoreErased("snapshots", False, error.message))
        try:
            states = [gallery.erase() for gallery in (self._gallery, *self._others())]
            left = self._pending(Store.GALLERY)
            late = [state.pending_until for state in states if state.pending_until is not None]
            if late and left.erased:  # nothing is left to do here, however often
                settled.add("gallery")
                note = f"Milvus removes its files by itself, by {max(late):%Y-%m-%d %H:%M} UTC"
                left = StoreErased("gallery", False, note)
            done.append(left)
        except HomewardError as error:
            done.append(StoreErased("gallery", False, error.message))
        try:
            large = self._catalogue.vacuum(whole=whole)
            note = (
                f"too large to be locked by a server: {', '.join(large)}; run homeward erase" if large else ""
            )
            done.append(StoreErased("catalogue", not large, note))
        except HomewardError as error:
            done.append(StoreErased("catalogue", False, error.message))
        hindered = {one.store for one in done if not one.erased} - settled
        if hindered == {"catalogue"} and large:
            self._catalogue.set_meta(REWRITE_DUE, (self._clock.now() + KEEP).isoformat())
        if not hindered:
            self._catalogue.set_meta(REWRITE_DUE, "")
            if self._catalogue.rev() != begun_at:  # a child deleted meanwhile may be in the new files
                self.mark_due()
        return done

    def _pending(self, store: Store) -> StoreErased:
        left = len(self._catalogue.pending_erasures(store))
        return StoreErased(store.value, not left, f"{left} items could not be removed yet" if left else "")

    def _forget(self, record_id: str | None) -> None:
        """Take deleted records out of the snapshots, before their rows: what fails is tried again with them.
        (Of children that were reinstated, the writer of snapshots sees to it.)"""
        items = self._catalogue.pending_erasures(Store.GALLERY, record_id)
        records = self._catalogue.deleted({item.record_id for item in items if item.record_id})
        if records:
            self._snapshots.forget(records)

    def _others(self) -> list[MilvusGallery]:
        return [] if self._galleries is None else [rows.gallery for rows in self._galleries.others()]

    def _deleting(self, store: Store) -> Callable[[Sequence[Item]], None]:
        """How items are deleted. Rows go from every collection: an item does not say of which model its row
        is. Which collections there are is asked before; who deletes must not call the catalogue."""
        if store is not Store.GALLERY:
            return self._delete[store]
        galleries = (self._gallery, *self._others())

        def delete(items: Sequence[Item]) -> None:
            for gallery in galleries:
                gallery.delete([item.item for item in items])

        return delete

    def _delete_photos(self, items: Sequence[Item]) -> None:
        for item in items:
            self._photos.delete(item.agency, item.item)

    def _forget_outcomes(self, items: Sequence[Item]) -> None:
        """Take records out of what is kept of the loads that brought or named them."""
        by_part: defaultdict[str, set[str]] = defaultdict(set)
        for item in items:
            by_part[item.agency].add(item.item)
        for where, records in by_part.items():
            load, _, part = where.rpartition("/")
            self._loads.forget(load, int(part), frozenset(records))
