"""What became of each photo of a load: the rows of its outcome files, and their sums."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

NOBODY = -1  # where the number of another photo would stand


class Became(StrEnum):
    """What became of a photo. Every photo of a load's input became exactly one of these."""

    ENROLLED = "ENROLLED"  # with `faces` face rows
    DUPLICATE = "DUPLICATE"  # the same bytes under the same record, earlier in the input
    ALREADY_THERE = "ALREADY_THERE"  # the record had the photo before, from another origin
    REJECTED = "REJECTED"  # with the reason in `code`


OTHER_VERSION = "LOAD_OTHER_VERSION"  # code of a document that another version of Homeward wrote
RECORD_DELETED = "RECORD_DELETED"  # code of what was rejected because its record has a tombstone


@dataclass(frozen=True, slots=True)
class PhotoOutcome:
    """One photo of the load's input and what became of it. It holds no template.

    Of a record that was deleted since, everything that could name it is empty.
    """

    number: int  # place in the load's input, from 0 on; unique in the load
    photo: str  # the photo's name in its source, fit to be shown
    reference: str  # the record's, in the agency's words; empty where there is none
    record_id: str
    became: Became
    code: str = ""  # why it was rejected: PhotoReason, Refusal, Unplanned or RECORD_DELETED
    message: str = ""  # the same for a person, with what to do
    line: int = 0  # of the manifest; 0: none
    source: int = 0  # which of the load's sources, from 0 on
    sha256: str = ""  # of the bytes; empty where they could not be read
    size: int = 0  # bytes
    width: int = 0  # pixels of the upright photo; 0 when it could not be decoded
    height: int = 0
    faces_seen: int = 0
    face_ids: tuple[str, ...] = ()  # of the face rows it gave
    of: int = NOBODY  # DUPLICATE: the photo that was enrolled
    picture: bytes = b""  # perceptual hash of the pixels; empty when it could not be decoded
    kept: bool = False  # the photo store has the bytes
    milliseconds: float = 0.0  # of decoding and embedding, shared out over its batch


@dataclass(frozen=True, slots=True)
class RecordOutcome:
    """One record that a part wrote, for what photos alone do not say."""

    record_id: str
    reference: str
    created: bool  # by this load
    searchable: bool  # it has a usable face, from this load or before
    attributes_kept: bool = False  # it was there before, and its attributes were left as they were


@dataclass(frozen=True, slots=True)
class PartOutcome:
    """One part, done. Of a record that is in several parts each part speaks of its own."""

    part: int
    photos: tuple[PhotoOutcome, ...]
    records: tuple[RecordOutcome, ...]
