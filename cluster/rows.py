"""Face rows as the gallery keeps them: template, ids, and filter columns from verified facts alone.

Papers can be false and EXIF can hold a scanning date, so an unverified fact leaves its column at
"unknown", which passes every filter that is not strict. A place counts as verified with its event.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from homeward.ids import face_id
from homeward.types import Attributes, DateRange, Face, FaceRow, Sex, verified_days


@dataclass(frozen=True, slots=True)
class Codes:
    """Dictionary codes of a record's texts. 0 means none."""

    agency: int
    gallery: int
    place: int = 0
    load: int = 0


def place_text(attributes: Attributes) -> str:
    """The place that may stand in the filter column; empty when it is not verified."""
    event = attributes.event
    return attributes.event_place if event is not None and event.verified else ""


def face_row(
    face: Face,
    *,
    record: str,
    photo: str,
    model: str,
    codes: Codes,
    attributes: Attributes,
    taken: DateRange | None,
) -> FaceRow:
    """The row of one face of one photo (sha256) under one record."""
    born, event, shot = (verified_days(span) for span in (attributes.born, attributes.event, taken))
    return FaceRow(
        face_id=face_id(record, photo, model, face.ordinal),
        record_id=record,
        photo_sha256=photo,
        ordinal=face.ordinal,
        agency=codes.agency,
        gallery=codes.gallery,
        load=codes.load,
        sex=_sex(attributes),
        born_from=born[0],
        born_to=born[1],
        event_from=event[0],
        event_to=event[1],
        taken_from=shot[0],
        taken_to=shot[1],
        place=codes.place,
        template=face.template,
    )


def with_attributes(row: FaceRow, attributes: Attributes, place: int) -> FaceRow:
    """The same row with the filter columns that the record's attributes decide."""
    born, event = verified_days(attributes.born), verified_days(attributes.event)
    return replace(
        row,
        sex=_sex(attributes),
        born_from=born[0],
        born_to=born[1],
        event_from=event[0],
        event_to=event[1],
        place=place,
    )


def filters_differ(before: Attributes, after: Attributes) -> bool:
    """Whether a change of attributes changes a filter column."""

    def columns(value: Attributes) -> tuple[object, ...]:
        return _sex(value), verified_days(value.born), verified_days(value.event), place_text(value)

    return columns(before) != columns(after)


def _sex(attributes: Attributes) -> int:
    return int(attributes.sex) if attributes.sex_verified else int(Sex.UNKNOWN)
