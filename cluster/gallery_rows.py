"""The rows that the catalogue says there are, with their templates from the gallery.

The catalogue decides what exists and what the filter columns say; the gallery only supplies templates. So a
template whose enrolment never committed, or whose record was deleted, is never searched, whatever a crash
left in the gallery.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

import numpy as np

from catalogue.store import Catalogue
from catalogue.types import Item, Store
from cluster.rows import with_columns
from homeward.types import FaceRow
from index.columns import Bool, Columns, UInt64, empty, from_rows, id_words
from index.gallery import MilvusGallery
from index.placement import SLOTS, slot_of

_PAGE = 65_536  # face ids turned into words at a time


class GalleryRows:
    """Blocking and thread-safe, as the catalogue and the gallery are."""

    def __init__(self, catalogue: Catalogue, gallery: MilvusGallery, model_id: str, dimension: int) -> None:
        self._catalogue = catalogue
        self._gallery = gallery
        self._model_id = model_id
        self._dimension = dimension

    @property
    def dimension(self) -> int:
        """Components of a template."""
        return self._dimension

    @property
    def gallery(self) -> MilvusGallery:
        """Where the templates are."""
        return self._gallery

    @property
    def model_id(self) -> str:
        """Of whose templates the rows are."""
        return self._model_id

    def catalogued_faces(self) -> set[str]:
        """Ids of all faces of this model that the catalogue has."""
        return {face.face_id for face in self._catalogue.all_faces() if face.model_id == self._model_id}

    def of_slots(self, wanted: Bool) -> Iterator[Columns]:
        """All rows of the records in these slots (SLOTS,), in no particular order; changes made meanwhile
        may be in it or not. Filter columns are the gallery's, of records that a writer is about to change
        or left half-written the catalogue's."""
        faces = _FaceSet(self._faces_in(wanted))
        doubtful = {face for _, face in self._catalogue.intended(Store.GALLERY)}
        records = {face.record_id for face in self._catalogue.faces(doubtful).values()}
        records = {record for record in records if wanted[slot_of(record)]}
        apart = _FaceSet(face.face_id for face in self._catalogue.faces_of(records))
        for columns in self._gallery.iterate() if len(faces) else ():
            keep = faces.holds(columns.face) & ~apart.holds(columns.face)
            if keep.any():
                yield columns.take(keep)
        if records:
            yield self.current(records)

    def current(self, record_ids: Iterable[str]) -> Columns:
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
        if not facts:
            return empty(self._dimension)
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
        return from_rows(rows, self._dimension)

    def rewrite(self, record_ids: Iterable[str]) -> None:
        """Write the rows of these records to the gallery as the catalogue says now."""
        rows = list(self.current(record_ids).face_rows())
        if rows:
            self.put(rows)

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

    def _faces_in(self, wanted: Bool) -> Iterator[str]:
        everything = bool(wanted.all())
        for face in self._catalogue.all_faces():
            if face.model_id == self._model_id and (everything or wanted[slot_of(face.record_id)]):
                yield face.face_id


class _FaceSet:
    """Face ids at 16 bytes each: a gallery of millions is compared with the catalogue at every start."""

    def __init__(self, face_ids: Iterable[str]) -> None:
        pages: list[UInt64] = [np.empty((0, 2), np.uint64)]
        page: list[str] = []
        for face in face_ids:
            page.append(face)
            if len(page) == _PAGE:
                pages.append(id_words(page))
                page = []
        if page:
            pages.append(id_words(page))
        words = np.concatenate(pages)
        self._words = words[np.lexsort((words[:, 1], words[:, 0]))]

    def __len__(self) -> int:
        return len(self._words)

    def holds(self, faces: UInt64) -> Bool:
        """(n,) whether each of the faces (n, 2) is one of them."""
        at = np.searchsorted(self._words[:, 0], faces[:, 0])
        end = np.searchsorted(self._words[:, 0], faces[:, 0], side="right")
        found = np.zeros(len(faces), np.bool_)
        while (open_ := at < end).any():  # ids that share their first half are tried in turn
            found[open_] |= self._words[at[open_], 1] == faces[open_, 1]
            at = at + 1
        return found


def all_slots() -> Bool:
    """(SLOTS,) every slot."""
    return np.ones(SLOTS, np.bool_)


def in_slots(record_ids: Iterable[str], slots: Bool) -> list[str]:
    """Those of the records that lie in these slots."""
    return [record for record in record_ids if slots[slot_of(record)]]
