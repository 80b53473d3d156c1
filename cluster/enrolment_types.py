"""What the enrolment service is asked and what it answers, between the wire and the stores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from catalogue.types import StoredRecord, WriteResult
from cluster.prepare import Outcome, Upload
from homeward.types import Attributes, RecordKey


@dataclass(frozen=True, slots=True)
class RequestName:
    """The caller's name for a write, which makes repeating it harmless."""

    request_id: str
    digest: str  # of the request's content
    scope: str = ""  # who is authenticated, where somebody is: callers do not share request ids


@dataclass(frozen=True, slots=True)
class Enrol:
    """Create a record, or add photos to it and replace its attributes."""

    name: RequestName
    key: RecordKey
    attributes: Attributes
    uploads: tuple[Upload, ...]
    version: int | None  # change it only in this version
    reinstate: bool
    encode: Callable[[tuple[Outcome, ...], WriteResult], bytes]  # the answer, kept for repeats


@dataclass(frozen=True, slots=True)
class Enrolled:
    """A committed enrolment: the answer as `Enrol.encode` made it, and the record as it is now."""

    answer: bytes
    record: StoredRecord


@dataclass(frozen=True, slots=True)
class Update:
    """Change the attributes that the mask names."""

    name: RequestName
    record_id: str
    attributes: Attributes
    mask: frozenset[str]  # fields of Attributes
    version: int | None


@dataclass(frozen=True, slots=True)
class Updated:
    """A committed update."""

    rev: int
    record: StoredRecord


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete a child, by whom and why."""

    name: RequestName
    record_id: str
    requester: str
    reason: str


@dataclass(frozen=True, slots=True)
class StoreErasure:
    """One store's word on the bytes of a deleted child."""

    store: str
    pending_until: datetime | None  # None: no byte is left


@dataclass(frozen=True, slots=True)
class Deleted:
    """A committed deletion: no search returns the child any more."""

    rev: int
    erasures: tuple[StoreErasure, ...]
