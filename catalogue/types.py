"""What goes into the catalogue and what comes out of it. No template ever does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from homeward.types import Attributes, Box, Float32, PhotoNote, Quality, RecordKey

ENROLLED = "ENROLLED"  # PhotoWrite.outcome of a photo that gave at least one face row
NO_PHOTO = "NO_PHOTO"  # unsearchable_reason of a record without any photo


class Store(StrEnum):
    """Where something lies that a deletion must reach beside the catalogue."""

    GALLERY = "gallery"  # items are face ids
    PHOTOS = "photos"  # items are sha256 of an agency
    OUTCOMES = "outcomes"  # items are record ids, in the documents of one part of a bulk load


@dataclass(frozen=True, slots=True)
class Item:
    """One face row of the gallery, one photo of an agency, or a record named in a part of a load."""

    store: Store
    record_id: str  # whose it is, or was
    item: str  # face id, sha256, or record id
    agency: str = ""  # of a photo; empty for a face; load/part of an outcome


@dataclass(frozen=True, slots=True)
class FaceWrite:
    """One face row to be; its template goes to the gallery."""

    face_id: str  # homeward.ids.face_id of record, photo, model and ordinal
    ordinal: int
    box: Box
    landmarks: Float32  # (5, 2) pixels
    detector_score: float
    quality: Quality


@dataclass(frozen=True, slots=True)
class PhotoWrite:
    """One photo of an enrolment and what became of it."""

    sha256: str
    media_type: str
    width: int  # pixels of the upright photo; 0 when it could not be decoded
    height: int
    bytes: int
    note: PhotoNote = field(default_factory=PhotoNote)
    outcome: str = ENROLLED  # or a reason code (homeward.errors.PhotoReason)
    faces_seen: int = 0  # detected, chosen or not
    faces: tuple[FaceWrite, ...] = ()
    place: int | None = None  # among the photos of its load; None: after those that are there


@dataclass(frozen=True, slots=True)
class Request:
    """What makes a write idempotent: the same id with the same digest is the same request.

    `scope` keeps callers apart (the agency, or who is authenticated). `response` builds the answer
    from the result inside the transaction, so that either both are stored or none."""

    request_id: str
    method: str
    digest: str
    scope: str = ""
    response: Callable[[WriteResult], bytes] | None = None


@dataclass(frozen=True, slots=True)
class RecordWrite:
    """One enrolment: attributes replace the record's, each named photo replaces its face rows of
    `model_id`, photos not named stay."""

    key: RecordKey
    attributes: Attributes
    photos: tuple[PhotoWrite, ...]
    model_id: str
    load: str = ""  # name of the bulk load; empty: none
    request: Request | None = None
    intent: str | None = None  # from `Catalogue.begin_intents`; spent by the commit
    reinstate: bool = False  # bring back a deleted record, by name
    reinstate_until: int | None = None  # only one that was deleted up to this rev
    expected_version: int | None = None  # refuse (EtagMismatch) any other; 0: must not exist yet


@dataclass(frozen=True, slots=True)
class RecordUpdate:
    """New attributes or photo notes of one record."""

    record_id: str
    attributes: Attributes | None = None
    mask: frozenset[str] | None = None  # names of Attributes' fields to take; None: all
    notes: Mapping[str, PhotoNote] = field(default_factory=dict)  # by sha256
    expected_version: int | None = None
    request: Request | None = None


@dataclass(frozen=True, slots=True)
class Deletion:
    """A record to delete, by whom and why. Neither text may name the child."""

    record_id: str
    reason: str
    requester: str
    expected_version: int | None = None
    request: Request | None = None


@dataclass(frozen=True, slots=True)
class WriteResult:
    """One committed write."""

    record_id: str
    rev: int
    version: int
    created: bool = False  # there was no record before
    deleted: bool = False
    searchable: bool = False
    removed_faces: tuple[str, ...] = ()  # face ids that were and are no more: the gallery's to erase
    response: bytes | None = None  # of the request, as stored
    replayed: bool = False  # the request had been done before: nothing was written now

    @property
    def etag(self) -> str:
        """Opaque to callers; equals `StoredRecord.etag` until the next write."""
        return str(self.version)


@dataclass(frozen=True, slots=True)
class StoredFace:
    """One face row as the catalogue knows it."""

    face_id: str
    record_id: str
    sha256: str
    model_id: str
    ordinal: int
    box: Box
    landmarks: Float32  # (5, 2) pixels
    detector_score: float
    quality: Quality


@dataclass(frozen=True, slots=True)
class StoredPhoto:
    """One photo of one record."""

    sha256: str
    media_type: str
    width: int
    height: int
    bytes: int
    note: PhotoNote
    outcome: str
    faces_seen: int
    model_id: str
    load: str
    faces: tuple[StoredFace, ...]  # by model, then ordinal
    place: int = 0  # among the record's photos, rising, with gaps


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """One record with all the catalogue holds of it."""

    record_id: str
    key: RecordKey
    attributes: Attributes
    photos: tuple[StoredPhoto, ...]  # in the order they were first enrolled
    created_at: datetime
    updated_at: datetime
    created_rev: int
    updated_rev: int
    version: int  # never the same twice, not even after a deletion
    load: str  # the load that created it
    searchable: bool
    unsearchable_reason: str  # a photo's outcome or NO_PHOTO; empty when searchable

    @property
    def etag(self) -> str:
        """Opaque to callers."""
        return str(self.version)


@dataclass(frozen=True, slots=True)
class ShownRecord:
    """One record of a candidate list, with those of its faces that were asked for."""

    record_id: str
    message: bytes  # homeward.shown.as_candidate
    faces: dict[str, bytes]  # homeward.shown.as_evidence, by face id


@dataclass(frozen=True, slots=True)
class RecordPage:
    """Some records in record id order, and where to go on."""

    records: tuple[StoredRecord, ...]
    next_page_token: str  # empty: these were the last


@dataclass(frozen=True, slots=True)
class Tombstone:
    """What is left of a deleted record: no attribute, no reference of the agency."""

    record_id: str
    rev: int
    at: datetime
    reason: str
    requester: str
    gallery_erased_at: datetime | None  # None: pending
    photos_erased_at: datetime | None


@dataclass(frozen=True, slots=True)
class RowColumns:
    """The filter columns of one photo's face rows, as `homeward.types.FaceRow` has them."""

    agency: int
    gallery: int
    load: int
    sex: int
    born_from: int
    born_to: int
    event_from: int
    event_to: int
    taken_from: int
    taken_to: int
    place: int


@dataclass(frozen=True, slots=True)
class FacePlace:
    """Where one face row belongs, for comparing the gallery with the catalogue."""

    face_id: str
    record_id: str
    sha256: str
    model_id: str


@dataclass(frozen=True, slots=True)
class Counts:
    """How much there is."""

    records: int
    searchable: int
    photos: int
    faces: int
    tombstones: int
    pending_gallery: int
    pending_photos: int
    intents: int
    rev: int
