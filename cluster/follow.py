"""Keeps the resident index at the catalogue's change log: at start, after every write, and by polling.

The catalogue decides what exists; the gallery only supplies the rows of faces that the catalogue
has. So a template whose enrolment never committed, or whose record was deleted, is never searched,
whatever a crash left in the gallery.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from catalogue.store import Catalogue
from catalogue.types import Item, Store
from cluster.rows import with_columns
from homeward.errors import Unavailable
from homeward.types import Change, FaceRow
from index.columns import Columns, from_rows, hex_ids
from index.gallery import MilvusGallery
from index.resident import ResidentIndex

_PAGE = 4096  # changes read, or faces listed, at a time

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Written:
    """What this server just committed of one record, so that it need not be read back."""

    record_id: str
    rev: int
    rows: Sequence[FaceRow]  # new or changed
    removed_faces: tuple[str, ...]


class Follower:
    """The one writer of a resident index. Blocking; every method is thread-safe."""

    def __init__(
        self, catalogue: Catalogue, gallery: MilvusGallery, index: ResidentIndex, model_id: str
    ) -> None:
        self._catalogue = catalogue
        self._gallery = gallery
        self._index = index
        self._model_id = model_id
        self._lock = threading.Lock()
        self._cursor = 0
        self._loaded = False

    @property
    def loaded(self) -> bool:
        """Whether the index holds all that the catalogue has."""
        return self._loaded

    def check_loaded(self) -> None:
        """Raise `Unavailable` (INDEX_LOADING) until the index is loaded."""
        if not self._loaded:
            raise Unavailable("the index is being loaded; try again in a moment", code="INDEX_LOADING")

    def load(self) -> int:
        """Fill the index from the gallery; returns the rows. Faces without catalogue entry stay out.

        Rows that a writer was about to change when it died are filled in from the catalogue.
        """
        with self._lock:
            self._cursor = self._catalogue.rev()
            wanted = self.catalogued_faces()
            self._index.apply(delete_faces=self._index.face_ids() - wanted)
            doubtful = {face for _, face in self._catalogue.intended(Store.GALLERY)} & wanted
            for columns in self._gallery.iterate():
                keep = np.array([face in wanted for face in hex_ids(columns.face)], dtype=np.bool_)
                if keep.any():
                    self._index.apply(upserts=columns.take(keep))
            records = {face.record_id for face in self._catalogue.faces(doubtful).values()}
            if records:
                self._index.apply(delete_records=records, upserts=self.rewrite(records))
            missing = len(wanted) - self._index.rows
            if missing:
                _logger.error("%d enrolled faces are not in the gallery: run homeward doctor --mend", missing)
            self._index.advance(self._cursor)
            self._catch_up(())
            self._loaded = True
            return self._index.rows

    def catch_up(self, own: Sequence[Written] = ()) -> int:
        """Apply all committed changes; returns the rev reached. Deletes never wait for the gallery.

        Raises `StoreUnavailable` when the catalogue, or the gallery for other servers' writes, does
        not answer; the next call goes on where this one stopped.
        """
        with self._lock:
            self._catch_up(own)
            return self._cursor

    def catalogued_faces(self) -> set[str]:
        """Ids of all faces of this model that the catalogue has."""
        return {face.face_id for face in self._catalogue.all_faces() if face.model_id == self._model_id}

    def _catch_up(self, own: Sequence[Written]) -> None:
        mine = {(written.record_id, written.rev): written for written in own}
        while changes := self._catalogue.changes_since(self._cursor, _PAGE):
            self._apply(changes, mine)
            self._cursor = changes[-1].rev

    def _apply(self, changes: Sequence[Change], mine: dict[tuple[str, int], Written]) -> None:
        times = Counter(change.record_id for change in changes)
        last = {change.record_id: change for change in changes}
        gone = [record for record, change in last.items() if change.deleted]
        known: list[Written] = []
        others: list[str] = []
        for record, change in last.items():
            written = mine.get((record, change.rev))
            if change.deleted:
                continue
            if written is not None and times[record] == 1:
                known.append(written)
            else:
                others.append(record)
        rev = changes[-1].rev
        self._index.apply(
            delete_records=gone,
            delete_faces=[face for written in known for face in written.removed_faces],
            upserts=self._columns([row for written in known for row in written.rows]),
            rev=None if others else rev,
        )
        if others:
            self._index.apply(delete_records=others, upserts=self.current_rows(others), rev=rev)

    def current_rows(self, record_ids: Iterable[str]) -> Columns:
        """The rows of all faces that the catalogue has of these records now.

        Templates come from the gallery, filter columns from the catalogue: a writer that has
        committed but not yet rewritten its rows cannot show old facts.
        """
        records = self._catalogue.get_many(record_ids)
        facts = {
            (record.record_id, photo.sha256): (record.key, record.attributes, photo.note, photo.load)
            for record in records.values()
            for photo in record.photos
        }
        columns = dict(zip(facts, self._catalogue.columns(list(facts.values())), strict=True))
        faces = [
            face.face_id
            for record in records.values()
            for photo in record.photos
            for face in photo.faces
            if face.model_id == self._model_id
        ]
        rows = [
            with_columns(row, columns[row.record_id, row.photo_sha256])
            for row in self._gallery.get(faces).face_rows()
        ]
        return from_rows(rows, self._index.dimension)

    def rewrite(self, record_ids: Iterable[str]) -> Columns:
        """Write the rows of these records to the gallery as the catalogue says now; what was written."""
        columns = self.current_rows(record_ids)
        rows = list(columns.face_rows())
        if rows:
            self.put(rows)
        return columns

    def rewrite_intended(self, before: datetime) -> None:
        """As `rewrite`, of the records whose rows a writer announced before that time and left: its rows
        may not be what the catalogue says. Raises what `rewrite` raises; then the intents must stay."""
        faces = {face for _, face in self._catalogue.intended(Store.GALLERY, before)}
        if faces:
            self.rewrite({face.record_id for face in self._catalogue.faces(faces).values()})

    def put(self, rows: Sequence[FaceRow]) -> None:
        """Write rows of faces that the catalogue has. One whose record is deleted meanwhile goes again."""
        items = [Item(Store.GALLERY, row.record_id, row.face_id) for row in rows]
        intents = [intent for intent in self._catalogue.begin_intents([items]) if intent is not None]
        try:
            self._gallery.upsert(rows)
        finally:
            self._catalogue.abandon(intents)

    def _columns(self, rows: Sequence[FaceRow]) -> Columns | None:
        return from_rows(rows, self._index.dimension) if rows else None
