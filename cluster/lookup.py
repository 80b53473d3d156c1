"""What a search asks the catalogue: candidates' faces and records, dictionary codes, the newest rev."""

from __future__ import annotations

from collections.abc import Collection

from catalogue.coding import PLACE, place_cell
from catalogue.store import Catalogue
from cluster.search_types import EnrolledFace, EnrolledRecord


class Lookup:
    """Read-only view of the catalogue for searches. Blocking: called on an executor."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    def records(self, face_ids: Collection[str]) -> dict[str, EnrolledRecord]:
        """The records of those of the faces that exist, with these faces, in one query."""
        found: dict[str, EnrolledRecord] = {}
        for shown in self._catalogue.shown(face_ids):
            record = shown.face.record_id
            if record not in found:
                found[record] = EnrolledRecord(record, shown.key, shown.attributes, {})
            found[record].faces[shown.face.face_id] = EnrolledFace(shown.face, shown.taken)
        return found

    def record(self, record_id: str) -> tuple[EnrolledRecord, frozenset[str]]:
        """One record, and the SHA-256 of all its photos. Raises `NotFound` and `RecordDeleted`."""
        stored = self._catalogue.get(record_id)
        faces = {
            face.face_id: EnrolledFace(face, photo.note.taken)
            for photo in stored.photos
            for face in photo.faces
        }
        enrolled = EnrolledRecord(record_id, stored.key, stored.attributes, faces)
        return enrolled, frozenset(photo.sha256 for photo in stored.photos)

    def code_of(self, kind: str, name: str) -> int | None:
        """The code of an agency, a gallery or a place; None when nobody enrolled under that name."""
        value = place_cell(name) if kind == PLACE else name
        return self._catalogue.find_codes(kind, [value]).get(value)

    def rev(self) -> int:
        """The newest rev of the change log."""
        return self._catalogue.rev()
