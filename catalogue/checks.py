"""Refuses what a database could not hold, before one bad item can spoil the others of its batch."""

from __future__ import annotations

import math

import numpy as np

from catalogue.types import FaceWrite, PhotoWrite, RecordWrite, Request
from homeward import ids
from homeward.errors import InvalidInput
from homeward.types import Attributes, DateRange, PhotoNote, RecordKey

AGENCY_BYTES_MAX = 80  # of UTF-8: as the photo stores can name
TEXT_BYTES_MAX = 64 * 1024
NAME_BYTES_MAX = 1024
_INT_MAX = 2**31 - 1
_BIGINT_MAX = 2**63 - 1


def check_write(write: RecordWrite) -> str:
    """Return the record id if every value fits, else raise `InvalidInput` naming the field."""
    check_key(write.key)
    check_attributes(write.attributes)
    _text(write.model_id, "model_id", NAME_BYTES_MAX, empty=False)
    _text(write.load, "load", NAME_BYTES_MAX)
    if write.request is not None:
        check_request(write.request)
    if write.intent is not None:
        ids.check_id(write.intent, "intent")
    record = ids.record_id(write.key)
    seen: set[str] = set()
    for photo in write.photos:
        if photo.sha256 in seen:
            raise InvalidInput("a photo is named twice in one enrolment", field="photos", sha256=photo.sha256)
        seen.add(photo.sha256)
        _check_photo(record, write.model_id, photo)
    return record


def check_key(key: RecordKey) -> None:
    """The three parts of a key: present, and short enough to be indexed."""
    _text(key.agency, "agency", AGENCY_BYTES_MAX, empty=False)
    _text(key.gallery, "gallery", AGENCY_BYTES_MAX, empty=False)
    _text(key.external_reference, "external_reference", NAME_BYTES_MAX, empty=False)


def check_attributes(attributes: Attributes) -> None:
    """Texts that are text, ranges the right way round."""
    _range(attributes.born, "born")
    _range(attributes.event, "event")
    for name in ("event_place", "case_reference", "provenance", "legal_basis"):
        _text(getattr(attributes, name), name, NAME_BYTES_MAX if name == "event_place" else TEXT_BYTES_MAX)


def check_note(note: PhotoNote) -> None:
    """What a caller says of a photo."""
    _range(note.taken, "taken")
    _text(note.provenance, "provenance", TEXT_BYTES_MAX)
    _integer(note.ordinal, "ordinal", _INT_MAX)


def check_request(request: Request) -> None:
    """The texts that name a request."""
    check_request_name(request.request_id, request.scope)
    _text(request.method, "method", NAME_BYTES_MAX, empty=False)
    _text(request.digest, "digest", NAME_BYTES_MAX, empty=False)


def check_request_name(request_id: str, scope: str) -> None:
    """What a request is looked up by."""
    _text(request_id, "request_id", NAME_BYTES_MAX, empty=False)
    _text(scope, "scope", NAME_BYTES_MAX)


def check_name(value: str, field: str) -> None:
    """A text of up to a kilobyte, which may be empty."""
    _text(value, field, NAME_BYTES_MAX)


def _check_photo(record: str, model_id: str, photo: PhotoWrite) -> None:
    ids.check_sha256(photo.sha256, "sha256")
    _text(photo.media_type, "media_type", NAME_BYTES_MAX)
    _text(photo.outcome, "outcome", NAME_BYTES_MAX, empty=False)
    _integer(photo.width, "width", _INT_MAX)
    _integer(photo.height, "height", _INT_MAX)
    _integer(photo.bytes, "bytes", _BIGINT_MAX)
    _integer(photo.faces_seen, "faces_seen", _INT_MAX)
    check_note(photo.note)
    seen: set[int] = set()
    for face in photo.faces:
        if face.ordinal in seen:
            raise InvalidInput("two faces of a photo have one ordinal", field="faces", sha256=photo.sha256)
        seen.add(face.ordinal)
        _check_face(record, photo.sha256, model_id, face)


def _check_face(record: str, sha256: str, model_id: str, face: FaceWrite) -> None:
    _integer(face.ordinal, "ordinal", _INT_MAX)
    if face.face_id != ids.face_id(record, sha256, model_id, face.ordinal):
        raise InvalidInput(
            "face_id is not that of its record, photo, model and ordinal", code="ID_INVALID", field="face_id"
        )
    if np.shape(face.landmarks) != (5, 2):
        raise InvalidInput("a face has five landmarks of x and y", field="landmarks")
    numbers = (
        face.box.x,
        face.box.y,
        face.box.width,
        face.box.height,
        face.detector_score,
        face.quality.score,
        *face.quality.components.values(),
    )
    if not all(math.isfinite(number) for number in numbers) or not np.all(np.isfinite(face.landmarks)):
        raise InvalidInput("a face's box, landmarks, score and quality are finite numbers", field="faces")
    for text in (*face.quality.components, *face.quality.reasons):
        _text(text, "quality", NAME_BYTES_MAX)


def _range(span: DateRange | None, field: str) -> None:
    if span is not None and span.earliest > span.latest:
        raise InvalidInput(f"{field} ends before it begins", code="DATE_RANGE_INVALID", field=field)


def _integer(value: int, field: str, most: int) -> None:
    if not 0 <= value <= most:
        raise InvalidInput(f"{field} must lie between 0 and {most}", field=field)


def _text(value: str, field: str, most: int, *, empty: bool = True) -> None:
    try:
        size = len(value.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise InvalidInput(f"{field} is no valid text", code="TEXT_INVALID", field=field) from error
    if "\x00" in value:
        raise InvalidInput(f"{field} contains a zero character", code="TEXT_INVALID", field=field)
    if size > most or (size == 0 and not empty):
        raise InvalidInput(
            f"{field} must have {0 if empty else 1} to {most} bytes of UTF-8, not {size}",
            code="TEXT_LENGTH",
            field=field,
        )
