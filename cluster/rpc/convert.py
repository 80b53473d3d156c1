"""Between the messages of proto/ and the types of `homeward.types`.

`read_*` take a message and the path of the field that held it, and raise `InvalidInput` with the
path of the wrong field; `write_*` make messages.
"""

from __future__ import annotations

from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from cluster.rpc.fields import LONG_CHARS, invalid, key_text, span, text
from homeward.shown import SEX_OF, write_date_range, write_sex
from homeward.types import (
    Attributes,
    DateRange,
    FaceChoice,
    PhotoNote,
    RecordKey,
    Sex,
)
from homeward.v1 import enrolment_pb2, records_pb2
from photos.store import AGENCY_BYTES_MAX

_CHOICE = {
    records_pb2.FACE_CHOICE_UNSPECIFIED: FaceChoice.SOLE,
    records_pb2.FACE_CHOICE_ORDINAL: FaceChoice.ORDINAL,
    records_pb2.FACE_CHOICE_MOST_CENTRAL: FaceChoice.MOST_CENTRAL,
    records_pb2.FACE_CHOICE_COMPOSITE: FaceChoice.COMPOSITE,
}
_CHOICE_MESSAGE = {value: message for message, value in _CHOICE.items()}


def read_date_range(message: records_pb2.DateRange, field: str) -> DateRange | None:
    """None for a message without dates. An unset message field reads as one without dates."""
    return span(message.earliest, message.latest, message.verified, field)


def read_sex(value: records_pb2.Sex.ValueType, field: str) -> Sex:
    """UNSPECIFIED is UNKNOWN; numbers that the enum does not have are refused."""
    if value not in SEX_OF:
        raise invalid(field, f"has the unknown value {value}")
    return SEX_OF[value]


def read_choice(value: records_pb2.FaceChoice.ValueType, field: str) -> FaceChoice:
    """UNSPECIFIED is SOLE; numbers that the enum does not have are refused."""
    if value not in _CHOICE:
        raise invalid(field, f"has the unknown value {value}")
    return _CHOICE[value]


def read_key(message: records_pb2.RecordKey, field: str = "key") -> RecordKey:
    """All three parts are required; they are hashed in NFC."""
    parts = {
        name: key_text(getattr(message, name), f"{field}.{name}")
        for name in ("agency", "gallery", "external_reference")
    }
    for name in ("agency", "gallery"):  # they name folders, objects' prefixes and filters
        if len(parts[name].encode()) > AGENCY_BYTES_MAX:
            raise invalid(f"{field}.{name}", f"has more than {AGENCY_BYTES_MAX} bytes of UTF-8")
    return RecordKey(**parts)


def read_attributes(message: records_pb2.Attributes, field: str = "attributes") -> Attributes:
    """Everything may be missing. A sex that is verified must be given."""
    sex = read_sex(message.sex, f"{field}.sex")
    if message.sex_verified and sex is Sex.UNKNOWN:
        raise invalid(f"{field}.sex_verified", "is set, but no sex is given")
    return Attributes(
        born=read_date_range(message.born, f"{field}.born"),
        sex=sex,
        sex_verified=message.sex_verified,
        event=read_date_range(message.event, f"{field}.event"),
        event_place=text(message.event_place, f"{field}.event_place"),
        case_reference=text(message.case_reference, f"{field}.case_reference"),
        provenance=text(message.provenance, f"{field}.provenance", limit=LONG_CHARS),
        legal_basis=text(message.legal_basis, f"{field}.legal_basis", limit=LONG_CHARS),
    )


def read_photo_note(message: enrolment_pb2.PhotoUpload, field: str) -> PhotoNote:
    """What the caller says of one photo, without its bytes."""
    choice = read_choice(message.choice, f"{field}.choice")
    if message.ordinal and choice is not FaceChoice.ORDINAL:
        raise invalid(f"{field}.ordinal", "needs choice FACE_CHOICE_ORDINAL")
    if message.ordinal > 2**31 - 1:
        raise invalid(f"{field}.ordinal", "is larger than any photo's number of faces")
    return PhotoNote(
        taken=read_date_range(message.taken, f"{field}.taken"),
        choice=choice,
        ordinal=message.ordinal,
        provenance=text(message.provenance, f"{field}.provenance", limit=LONG_CHARS),
    )


def write_choice(value: FaceChoice) -> records_pb2.FaceChoice.ValueType:
    """The enum's number; SOLE is UNSPECIFIED."""
    return _CHOICE_MESSAGE[value]


def write_attributes(value: Attributes) -> records_pb2.Attributes:
    """What an agency says of one child."""
    return records_pb2.Attributes(
        born=write_date_range(value.born),
        sex=write_sex(value.sex),
        sex_verified=value.sex_verified,
        event=write_date_range(value.event),
        event_place=value.event_place,
        case_reference=value.case_reference,
        provenance=value.provenance,
        legal_basis=value.legal_basis,
    )


def write_time(moment: datetime) -> Timestamp:
    """An aware time as a protobuf timestamp."""
    message = Timestamp()
    message.FromDatetime(moment)
    return message
