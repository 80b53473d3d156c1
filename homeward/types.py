"""The frozen dataclasses that flow along the data path. Arrays are read-only by convention."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import IntEnum, StrEnum

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
UInt8 = npt.NDArray[np.uint8]


class Sex(IntEnum):
    """As recorded by the agency; UNKNOWN passes every filter that is not strict."""

    UNKNOWN = 0
    FEMALE = 1
    MALE = 2


@dataclass(frozen=True, slots=True)
class DateRange:
    """A date known to lie in [earliest, latest], both included. Only `verified` ones exclude."""

    earliest: date
    latest: date
    verified: bool = False


@dataclass(frozen=True, slots=True)
class Attributes:
    """What an agency says of one child. All optional; empty string and None mean unknown."""

    born: DateRange | None = None
    sex: Sex = Sex.UNKNOWN
    sex_verified: bool = False
    event: DateRange | None = None  # when the child went missing, or was found or sighted
    event_place: str = ""
    case_reference: str = ""
    provenance: str = ""
    legal_basis: str = ""


class FaceChoice(StrEnum):
    """Which faces of a photo are the child's: the caller says, Homeward never guesses."""

    SOLE = "SOLE"  # the one face there is; several are refused with FACE_CHOICE_REQUIRED
    ORDINAL = "ORDINAL"  # the face of a given ordinal
    MOST_CENTRAL = "MOST_CENTRAL"  # the caller states that the child is in the middle
    COMPOSITE = "COMPOSITE"  # a poster or collage: every face is this child's


@dataclass(frozen=True, slots=True)
class PhotoNote:
    """What the caller says of one photo of a record."""

    taken: DateRange | None = None
    choice: FaceChoice = FaceChoice.SOLE
    ordinal: int = 0  # with FaceChoice.ORDINAL
    provenance: str = ""


@dataclass(frozen=True, slots=True)
class Box:
    """Pixels of the upright (EXIF-rotated) photo; x right, y down; may reach past its edges."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Quality:
    """Face image quality, 0 (useless) to 100, after ISO/IEC 29794-5's measures."""

    score: float
    components: dict[str, float] = field(default_factory=dict)  # each 0..100
    reasons: tuple[str, ...] = ()  # why it is low, ISO/IEC 29794-5 words


@dataclass(frozen=True, slots=True)
class Face:
    """One detected face of one photo with its template."""

    ordinal: int  # by box position: top, then left
    box: Box
    landmarks: Float32  # (5, 2) pixels x, y: eyes, nose, mouth corners, as seen left to right
    detector_score: float  # 0..1
    quality: Quality
    template: Float32  # (d,) float32, unit length


@dataclass(frozen=True, slots=True)
class PhotoFaces:
    """All that the pipeline says of one photo. `faces` may be empty."""

    sha256: str
    media_type: str  # "image/jpeg", ...
    width: int  # of the upright photo at full size
    height: int
    model_id: str
    faces: tuple[Face, ...]


@dataclass(frozen=True, slots=True)
class RecordKey:
    """Names one record from outside: agency, gallery and the agency's own reference."""

    agency: str
    gallery: str
    external_reference: str


@dataclass(frozen=True, slots=True)
class FaceRow:
    """One face as the gallery (Milvus) keeps it: template and filter columns."""

    face_id: str  # 32 hex digits
    record_id: str  # 32 hex digits
    photo_sha256: str  # 64 hex digits
    ordinal: int
    agency: int  # dictionary codes: no caller's string reaches a Milvus expression
    gallery: int
    load: int  # 0: not from a load
    sex: int  # verified only; 0 unknown
    born_from: int  # verified only; days since 1970-01-01; DAY_MIN / DAY_MAX when unknown
    born_to: int
    event_from: int
    event_to: int
    taken_from: int
    taken_to: int
    place: int  # dictionary code of the event place's cell; 0 unknown
    template: Float32  # (d,) float32, unit length


DAY_MIN = -(2**31)
DAY_MAX = 2**31 - 1
EPOCH = date(1970, 1, 1)


def day_number(day: date) -> int:
    """Days since 1970-01-01 (negative before)."""
    return (day - EPOCH).days


def verified_days(span: DateRange | None) -> tuple[int, int]:
    """The range's day numbers when it is verified, else the widest range there is."""
    if span is None or not span.verified:
        return DAY_MIN, DAY_MAX
    return day_number(span.earliest), day_number(span.latest)


class Implausible(StrEnum):
    """Verified facts by which a candidate cannot be the probe's child."""

    SEX_DIFFERS = "SEX_DIFFERS"
    REFERENCE_BEFORE_BIRTH = "REFERENCE_BEFORE_BIRTH"
    PROBE_BEFORE_BIRTH = "PROBE_BEFORE_BIRTH"
    AGE_IMPOSSIBLE = "AGE_IMPOSSIBLE"


@dataclass(frozen=True, slots=True)
class Filter:
    """What the caller wants searched. Empty sets mean all. Codes, not strings.

    Only verified facts stand in the columns; an unknown passes unless `strict`."""

    galleries: frozenset[int] = frozenset()
    agencies: frozenset[int] = frozenset()
    sexes: frozenset[int] = frozenset()
    born: tuple[int, int] | None = None  # day numbers, both included: ranges must overlap
    event: tuple[int, int] | None = None
    places: frozenset[int] = frozenset()
    strict: bool = False


@dataclass(frozen=True, slots=True)
class ProbeFacts:
    """Verified facts about the probe; whatever is unknown excludes nobody."""

    sex: int = 0
    born: tuple[int, int] = (DAY_MIN, DAY_MAX)
    taken: tuple[int, int] = (DAY_MIN, DAY_MAX)
    age_years: tuple[float, float] | None = None  # at the time the probe was taken


@dataclass(frozen=True, slots=True)
class Query:
    """One search of the index."""

    templates: Float32  # (p, d) float32 unit rows: a record's score is its best over all of them
    k: int
    filter: Filter = Filter()
    facts: ProbeFacts = ProbeFacts()
    include_implausible: bool = False
    min_score: float | None = None  # candidates score at least this
    evidence: int = 3  # faces shown per candidate at most
    without_records: frozenset[str] = frozenset()
    without_photos: frozenset[str] = frozenset()  # sha256


@dataclass(frozen=True, slots=True)
class Evidence:
    """One face that speaks for a candidate."""

    face_id: str
    photo_sha256: str
    ordinal: int
    score: float  # the one score function's float64
    probe: int  # row of Query.templates that gave it


@dataclass(frozen=True, slots=True)
class Candidate:
    """One record of the list. Never an identification."""

    record_id: str
    score: float
    evidence: tuple[Evidence, ...]  # score descending, then face id
    implausible: tuple[Implausible, ...] = ()


@dataclass(frozen=True, slots=True)
class CandidateList:
    """The certified answer to one `Query`: score descending, then record id."""

    candidates: tuple[Candidate, ...]
    excluded: dict[Implausible, int]  # records that facts kept out of the list, by reason
    rows_searched: int
    records_searched: int
    rev: int
    method: str  # how: "exact", ...


@dataclass(frozen=True, slots=True)
class Change:
    """One line of the change log."""

    rev: int
    record_id: str
    deleted: bool
    at: datetime


@dataclass(frozen=True, slots=True)
class Calibration:
    """The natural-log likelihood ratio of a comparison score, and what it was fitted on.

    A ratio says how much more likely the score is for two photos of one person than for photos of
    two people like those it was fitted on. It is no probability that they are one person.
    """

    a: float  # > 0
    b: float
    dataset: str
    faces: str  # whose: "adults, press photographs"
    fitted_on: date
    mated: int  # pairs it was fitted on
    non_mated: int
    model_id: str

    def llr(self, score: float) -> float:
        """a * score + b in nats, held within what so many pairs can show: no stronger than
        ln(non-mated pairs) for one person, nor than ln(mated pairs) for two."""
        return min(max(self.a * score + self.b, -math.log(self.mated)), math.log(self.non_mated))
