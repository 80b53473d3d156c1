"""What candidate lists show of a face and its record, as parts of their messages.

The catalogue keeps them made with each face, beside the columns that they are made of: a search puts forty of
them in its answer, and says of each only what it found out itself.
"""

from __future__ import annotations

from datetime import date

from homeward.face_message import SeenFace, write_face
from homeward.types import Attributes, DateRange, RecordKey, Sex
from homeward.v1 import records_pb2, search_pb2

_SEX = {
    Sex.UNKNOWN: records_pb2.SEX_UNSPECIFIED,
    Sex.FEMALE: records_pb2.SEX_FEMALE,
    Sex.MALE: records_pb2.SEX_MALE,
}
SEX_OF = {message: sex for sex, message in _SEX.items()}


def as_candidate(key: RecordKey, attributes: Attributes) -> bytes:
    """homeward.v1.Candidate with the record's key and what is known of the child, without id and scores."""
    return search_pb2.Candidate(
        key=write_key(key),
        born=write_date_range(attributes.born),
        sex=write_sex(attributes.sex),
        sex_verified=attributes.sex_verified,
        event=write_date_range(attributes.event),
        event_place=attributes.event_place,
    ).SerializeToString(deterministic=True)


def as_evidence(face: SeenFace, taken: DateRange | None) -> bytes:
    """homeward.v1.Evidence with the face as it was seen and when, without ids and scores."""
    return search_pb2.Evidence(face=write_face(face), taken=write_date_range(taken)).SerializeToString(
        deterministic=True
    )


def facts_of(candidate: bytes) -> Attributes:
    """Birth, sex and event of `as_candidate`."""
    message = search_pb2.Candidate.FromString(candidate)
    return Attributes(
        born=_read_date_range(message.born),
        sex=SEX_OF[message.sex],
        sex_verified=message.sex_verified,
        event=_read_date_range(message.event),
        event_place=message.event_place,
    )


def taken_of(evidence: bytes) -> DateRange | None:
    """When the photo of `as_evidence` was taken."""
    return _read_date_range(search_pb2.Evidence.FromString(evidence).taken)


def write_date_range(value: DateRange | None) -> records_pb2.DateRange | None:
    """None stays None: pass it to a message's constructor and the field stays unset."""
    if value is None:
        return None
    return records_pb2.DateRange(
        earliest=value.earliest.isoformat(), latest=value.latest.isoformat(), verified=value.verified
    )


def write_sex(value: Sex) -> records_pb2.Sex.ValueType:
    """The enum's number."""
    return _SEX[value]


def write_key(value: RecordKey) -> records_pb2.RecordKey:
    """The three parts."""
    return records_pb2.RecordKey(
        agency=value.agency, gallery=value.gallery, external_reference=value.external_reference
    )


def _read_date_range(message: records_pb2.DateRange) -> DateRange | None:
    """As `write_date_range` wrote it."""
    if not message.earliest:
        return None
    return DateRange(
        date.fromisoformat(message.earliest), date.fromisoformat(message.latest), message.verified
    )
