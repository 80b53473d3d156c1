"""What an upgrade's driver does in the stores: cover photos, set filter columns right, compare, erase."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

from catalogue.load_types import Lease
from catalogue.store import Catalogue
from catalogue.upgrade_types import UpgradeModel
from cluster.erasing import KEEP, REWRITE_DUE
from cluster.gallery_rows import GalleryRows
from cluster.load.patience import Patience
from cluster.open_snapshots import open_snapshots
from cluster.shard_maps import ShardMaps
from cluster.upgrade.cover import CoverWriter
from cluster.upgrade.models import differs, settings_for
from cluster.upgrade.passing import Pass, Passed
from homeward.clock import Clock
from homeward.config import Settings
from homeward.errors import Corrupt
from index.columns import hex_ids
from index.open import drop_gallery, open_gallery
from photos.open import open_photo_store
from workers.open import open_bulk

_CHANGES = 1000
_RECORDS = 500

Progress = Callable[[Passed], object]


class UpgradeWork:
    """One driver's work under its lease. Blocking; `stop` from any thread."""

    def __init__(self, settings: Settings, catalogue: Catalogue, lease: Lease, clock: Clock) -> None:
        self._settings = settings
        self._catalogue = catalogue
        self._lease = lease
        self._clock = clock
        self._patience = Patience(settings.loads.patience_s, lambda _: nullcontext())

    def stop(self) -> None:
        """Begin nothing more."""
        self._patience.stop()

    def check(self) -> None:
        """Raise `Stopped` once that was asked for."""
        self._patience.check()

    def cover(self, model: UpgradeModel, other: UpgradeModel, progress: Progress) -> int:
        """Have the model cover every photo; how many are left, that others enrolled just now. The model is
        loaded only if there is something to do.

        Raises `Conflict` (LEASE_LOST, BUNDLE_DIFFERS), `Stopped`, and what stores and bundle raise."""
        ledger = self._catalogue.upgrades
        if ledger.count_uncovered(model.model_id):
            with self._pass(model, other) as one:
                for passed in one.run():
                    progress(passed)
        self._set_right(model)
        self._compare(model)
        return ledger.count_uncovered(model.model_id)

    def erase(self, keep: UpgradeModel, drop: UpgradeModel, progress: Callable[[int], object]) -> None:
        """Erase every row of a model: of the catalogue, the collection, the snapshots. May be repeated."""
        after, records = "", 0
        ledger = self._catalogue.upgrades
        while last := ledger.retire_some(self._lease, keep.model_id, drop.model_id, after, _RECORDS):
            after, records = last, records + _RECORDS
            progress(records)
            self.check()
        drop_gallery(self._settings.gallery, self._settings.data_dir, drop.model_id)
        open_snapshots(self._settings, self._catalogue, drop.model_id, drop.dimension).drop()
        ShardMaps(self._catalogue, drop.model_id).drop()
        if not self._catalogue.get_meta(REWRITE_DUE):
            self._catalogue.set_meta(REWRITE_DUE, (self._clock.now() + KEEP).isoformat())

    @contextmanager
    def _pass(self, model: UpgradeModel, other: UpgradeModel) -> Iterator[Pass]:
        settings = settings_for(self._settings, model.bundle)
        embedding = open_bulk(settings, lambda _: b"")
        try:
            if embedding.model_id != model.model_id:
                raise differs(model, embedding.model_id)
            with self._rows(model) as rows:
                yield Pass(
                    catalogue=self._catalogue,
                    photos=open_photo_store(settings.photos, settings.data_dir),
                    embedding=embedding,
                    writer=CoverWriter(self._catalogue, rows, model.model_id, self._lease),
                    other=other.model_id,
                    patience=self._patience,
                    batch_max=settings.workers.batch_max,
                )
        finally:
            embedding.close()

    def _set_right(self, model: UpgradeModel) -> None:
        """Write anew the rows of records that changed since that was done last: whoever changed one may not
        have known yet of the second collection, or died before he came to it."""
        found = self._catalogue.upgrades.under_way()
        rev = since = found.since_rev
        with self._rows(model) as rows:
            while changes := self._catalogue.changes_since(rev, _CHANGES):
                self.check()
                rows.rewrite({change.record_id for change in changes if not change.deleted})
                rev = changes[-1].rev
        if rev != since:
            self._catalogue.upgrades.set_since(self._lease, rev)

    def _compare(self, model: UpgradeModel) -> None:
        """Raise `Corrupt` unless the collection has the template of every face."""
        with self._rows(model) as rows:
            if rows.gallery.count() == self._catalogue.upgrades.count_faces(model.model_id):
                return
            wanted = rows.catalogued_faces()
            for columns in rows.gallery.iterate():
                wanted.difference_update(hex_ids(columns.face))
            # What was enrolled or deleted meanwhile is asked for again.
            still = set(self._catalogue.faces(wanted)) - set(hex_ids(rows.gallery.get(sorted(wanted)).face))
        if still:
            raise Corrupt(
                f"{len(still)} templates of {model.bundle} are in the catalogue and not in Milvus: serve "
                "with that model, run homeward doctor --mend, and try again; or abandon the upgrade and "
                "begin anew",
                code="UPGRADE_INCOMPLETE",
            )

    @contextmanager
    def _rows(self, model: UpgradeModel) -> Iterator[GalleryRows]:
        settings = self._settings
        gallery = open_gallery(settings.gallery, settings.data_dir, model.model_id, model.dimension)
        try:
            yield GalleryRows(self._catalogue, gallery, model.model_id, model.dimension)
        finally:
            gallery.close()
