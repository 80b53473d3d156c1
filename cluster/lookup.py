"""What a search asks the catalogue: candidates' faces and records, dictionary codes, the newest rev."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from catalogue.coding import PLACE, place_cell
from catalogue.store import Catalogue
from catalogue.types import ShownRecord
from homeward.types import Attributes, DateRange


@dataclass(frozen=True, slots=True)
class ProbeRecord:
    """What the catalogue says of a record that is a probe."""

    attributes: Attributes
    taken: Mapping[str, DateRange | None]  # by face id: when its photo was taken
    photos: frozenset[str]  # sha256 of all


class Lookup:
    """Read-only view of the catalogue for searches. Blocking: called on an executor."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    def shown(self, face_ids: Collection[str]) -> dict[str, ShownRecord]:
        """The records, by id, of those of the faces that exist, with these faces, in one query."""
        return self._catalogue.shown(face_ids)

    def record(self, record_id: str) -> ProbeRecord:
        """One record. Raises `NotFound` and `RecordDeleted`."""
        stored = self._catalogue.get(record_id)
        return ProbeRecord(
            attributes=stored.attributes,
            taken={face.face_id: photo.note.taken for photo in stored.photos for face in photo.faces},
            photos=frozenset(photo.sha256 for photo in stored.photos),
        )

    def code_of(self, kind: str, name: str) -> int | None:
        """The code of an agency, a gallery or a place; None when nobody enrolled under that name."""
        value = place_cell(name) if kind == PLACE else name
        return self._catalogue.find_codes(kind, [value]).get(value)

    def rev(self) -> int:
        """The newest rev of the change log."""
        return self._catalogue.rev()
