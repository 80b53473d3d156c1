"""Writes what a second model makes of enrolled photos: its rows to its collection, then the catalogue.

The order and the announcement are an enrolment's: gallery rows first, announced by an intent, then the
commit. What is killed in between is swept, and the photo remains to be done.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from catalogue.load_types import Lease
from catalogue.store import Catalogue
from catalogue.types import ENROLLED, Item, Store, StoredFace, StoredPhoto, StoredRecord
from catalogue.upgrade_types import Cover
from cluster.gallery_rows import GalleryRows
from cluster.prepare import face_writes
from cluster.rows import face_row
from cluster.upgrade.matching import Matched
from homeward.errors import HomewardError
from homeward.types import Face, FaceRow


@dataclass(frozen=True, slots=True)
class CoveredPhoto:
    """One photo of a record, as the second model has it."""

    record: StoredRecord
    photo: StoredPhoto
    outcome: str  # ENROLLED with any face, else a reason
    faces_seen: int
    faces: tuple[Face, ...]
    placed: int = 0  # of the faces: embedded where the first model had found them
    lost: int = 0


def enrolled_faces(photo: StoredPhoto, other: str) -> tuple[StoredFace, ...]:
    """The photo's faces of the model `other`."""
    return tuple(face for face in photo.faces if face.model_id == other)


def covered(
    record: StoredRecord,
    photo: StoredPhoto,
    seen: Sequence[Face],
    found: Matched,
    placed: Sequence[Face] = (),
) -> CoveredPhoto:
    """Put one photo together. `placed` are faces that were embedded for `found.missing`: their ordinals
    follow those of the faces seen, as nobody can choose them. What is missing still is lost."""
    first = 1 + max((face.ordinal for face in seen), default=-1)
    added = tuple(replace(face, ordinal=first + at) for at, face in enumerate(placed))
    faces = found.faces + added
    return CoveredPhoto(
        record=record,
        photo=photo,
        outcome=ENROLLED if faces else found.outcome,
        faces_seen=len(seen),
        faces=faces,
        placed=len(added),
        lost=len(found.missing) - len(added),
    )


class CoverWriter:
    """Writes photos of one model. Blocking and thread-safe."""

    def __init__(
        self, catalogue: Catalogue, rows: GalleryRows, model_id: str, lease: Lease | None = None
    ) -> None:
        """`lease`: of the upgrade's driver; a server that enrols has none."""
        self._catalogue = catalogue
        self._rows = rows
        self._model_id = model_id
        self._lease = lease

    def write(self, photos: Sequence[CoveredPhoto]) -> int:
        """Write all; how many of them were, see `UpgradeLedger.cover`. May be called again.

        Raises `StoreUnavailable`, `TemplateInvalid`, and `Conflict` as `UpgradeLedger.cover` does."""
        rows = list(self._face_rows(photos))
        items = [Item(Store.GALLERY, row.record_id, row.face_id) for row in rows]
        intents = [one for one in self._catalogue.begin_intents([items]) if one is not None]
        try:
            if rows:
                self._rows.gallery.upsert(rows)
            return self._catalogue.upgrades.cover(
                self._model_id, [self._cover(one) for one in photos], intents, self._lease
            )
        except BaseException:
            with contextlib.suppress(HomewardError):  # they lapse by themselves
                self._catalogue.abandon(intents)
            raise

    def _face_rows(self, photos: Sequence[CoveredPhoto]) -> Iterator[FaceRow]:
        sources = [(one.record.key, one.record.attributes, one.photo.note, one.photo.load) for one in photos]
        for one, columns in zip(photos, self._catalogue.columns(sources), strict=True):
            for face in one.faces:
                yield face_row(
                    face,
                    record=one.record.record_id,
                    photo=one.photo.sha256,
                    model=self._model_id,
                    columns=columns,
                )

    def _cover(self, one: CoveredPhoto) -> Cover:
        record, sha256 = one.record.record_id, one.photo.sha256
        return Cover(
            record_id=record,
            sha256=sha256,
            version=one.record.version,
            outcome=one.outcome,
            faces_seen=one.faces_seen,
            faces=face_writes(record, sha256, self._model_id, one.faces),
            placed=one.placed,
            lost=one.lost,
        )
