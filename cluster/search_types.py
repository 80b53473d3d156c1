"""What a search asks and what it answers, between the wire and the index."""

from __future__ import annotations

from dataclasses import dataclass

from catalogue.types import ShownRecord
from homeward.types import Calibration, DateRange, Face, Float32, Implausible, Sex


@dataclass(frozen=True, slots=True)
class SearchContext:
    """Why a search is made, and by whom. The first three are what the caller says."""

    case_reference: str
    purpose: str
    requester: str
    client: str = ""  # the certificate's name where the client showed one
    peer: str = ""  # network address


@dataclass(frozen=True, slots=True)
class PhotoProbe:
    """A photo: a list for each of its faces, or for the one of `ordinal`."""

    photo: bytes
    ordinal: int | None = None


@dataclass(frozen=True, slots=True)
class TemplateProbe:
    """A template, as the caller gave it."""

    values: Float32  # (n,), not yet checked
    model_id: str


@dataclass(frozen=True, slots=True)
class RecordProbe:
    """An enrolled record: best over its faces, itself and its photos left out."""

    record_id: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """The filter, in the caller's words. A name that nobody enrolled under finds nothing."""

    galleries: tuple[str, ...] = ()
    agencies: tuple[str, ...] = ()
    sexes: tuple[Sex, ...] = ()
    born: DateRange | None = None
    event: DateRange | None = None
    places: tuple[str, ...] = ()
    strict: bool = False


@dataclass(frozen=True, slots=True)
class Age:
    """Elapsed years."""

    youngest: float
    oldest: float
    verified: bool = False


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of the probe's child, verified or not."""

    sex: Sex = Sex.UNKNOWN
    sex_verified: bool = False
    born: DateRange | None = None
    taken: DateRange | None = None  # when the probe was taken
    age: Age | None = None  # at that time


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """One search. `limit` and `evidence` 0 mean the server's defaults."""

    context: SearchContext
    probe: PhotoProbe | TemplateProbe | RecordProbe
    limit: int = 0
    wanted: Wanted = Wanted()
    known: Known = Known()
    include_implausible: bool = False
    min_score: float | None = None
    min_log_likelihood_ratio: float | None = None
    evidence: int = 0
    min_rev: int = 0
    model_id: str = ""  # to be searched with, of two while models are upgraded; empty: the one that serves


@dataclass(frozen=True, slots=True)
class ListedEvidence:
    """One face of a candidate, as shown."""

    face_id: str
    sha256: str  # of its photo
    message: bytes  # homeward.shown.as_evidence
    score: float
    years_to_probe: float | None  # between the two photos, where both dates are known


@dataclass(frozen=True, slots=True)
class ListedCandidate:
    """One record of an answer, for a person to review. Never an identification."""

    rank: int  # from 1
    record: ShownRecord
    score: float
    log_likelihood_ratio: float | None
    evidence: tuple[ListedEvidence, ...]
    age_at_probe: Age | None
    implausible: tuple[Implausible, ...]
    notes: tuple[str, ...]  # unverified facts that speak against it


@dataclass(frozen=True, slots=True)
class AnswerList:
    """The list for one face of the probe."""

    face: Face | None  # None for a template or a record
    candidates: tuple[ListedCandidate, ...]
    excluded: dict[Implausible, int]


@dataclass(frozen=True, slots=True)
class SearchAnswer:
    """What one search found, in what, and how long each stage took."""

    search_id: str
    lists: tuple[AnswerList, ...]
    rows: int
    records: int
    rev: int
    method: str
    model_id: str
    calibration: Calibration | None
    seconds: dict[str, float]  # by stage, in order


@dataclass(frozen=True, slots=True)
class Comparison:
    """The comparison of two faces."""

    search_id: str
    score: float
    log_likelihood_ratio: float | None
    first: Face
    second: Face
    model_id: str
    calibration: Calibration | None
