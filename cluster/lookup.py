"""What a search asks the catalogue: the records of candidates, dictionary codes, the newest rev."""

from __future__ import annotations

from collections.abc import Collection

from catalogue.coding import PLACE, place_cell
from catalogue.store import Catalogue
from catalogue.types import StoredRecord
from cluster.search_types import EnrolledFace, EnrolledRecord


class Lookup:
    """Read-only view of the catalogue for searches. Blocking: called on an executor."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    def records(self, record_ids: Collection[str]) -> dict[str, EnrolledRecord]:
        """Those of the records that exist, in one look-up."""
        if not record_ids:
            return {}
        return {name: enrolled(stored) for name, stored in self._catalogue.get_many(record_ids).items()}

    def record(self, record_id: str) -> tuple[EnrolledRecord, frozenset[str]]:
        """One record, and the SHA-256 of all its photos. Raises `NotFound` and `RecordDeleted`."""
        stored = self._catalogue.get(record_id)
        return enrolled(stored), frozenset(photo.sha256 for photo in stored.photos)

    def code_of(self, kind: str, name: str) -> int | None:
        """The code of an agency, a gallery or a place; None when nobody enrolled under that name."""
        value = place_cell(name) if kind == PLACE else name
        return self._catalogue.find_codes(kind, [value]).get(value)

    def rev(self) -> int:
        """The newest rev of the change log."""
        return self._catalogue.rev()


def enrolled(stored: StoredRecord) -> EnrolledRecord:
    """The record with its faces by id."""
    return EnrolledRecord(
        stored,
        {
            face.face_id: EnrolledFace(face, photo.note.taken)
            for photo in stored.photos
            for face in photo.faces
        },
    )
