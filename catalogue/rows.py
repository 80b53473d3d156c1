"""Between rows of the tables and the dataclasses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from catalogue.types import FaceWrite, PhotoWrite, RecordWrite, StoredFace, StoredPhoto, StoredRecord
from homeward.shown import as_candidate, as_evidence
from homeward.types import (
    Attributes,
    Box,
    DateRange,
    FaceChoice,
    PhotoNote,
    Quality,
    RecordKey,
    Sex,
)

Row = Mapping[str, Any]
Values = dict[str, Any]


def attributes_to_row(attributes: Attributes) -> Values:
    """Columns of `records` that hold the attributes."""
    return {
        **_range_to_row("born", attributes.born),
        "sex": int(attributes.sex),
        "sex_verified": bool(attributes.sex_verified),
        **_range_to_row("event", attributes.event),
        "event_place": attributes.event_place,
        "case_reference": attributes.case_reference,
        "provenance": attributes.provenance,
        "legal_basis": attributes.legal_basis,
    }


def attributes_of(row: Row) -> Attributes:
    """The attributes of a row of `records`."""
    return Attributes(
        born=_range_of("born", row),
        sex=Sex(row["sex"]),
        sex_verified=row["sex_verified"],
        event=_range_of("event", row),
        event_place=row["event_place"],
        case_reference=row["case_reference"],
        provenance=row["provenance"],
        legal_basis=row["legal_basis"],
    )


def key_of(row: Row) -> RecordKey:
    """The key of a row of `records`."""
    return RecordKey(row["agency"], row["gallery"], row["external_reference"])


def note_to_row(note: PhotoNote) -> Values:
    """Columns of `record_photos` that hold the caller's note."""
    return {
        **_range_to_row("taken", note.taken),
        "choice": str(note.choice),
        "ordinal": int(note.ordinal),
        "provenance": note.provenance,
    }


def note_of(row: Row) -> PhotoNote:
    """The note of a row of `record_photos`."""
    return PhotoNote(_range_of("taken", row), FaceChoice(row["choice"]), row["ordinal"], row["provenance"])


def photo_to_row(agency: str, photo: PhotoWrite) -> Values:
    """A row of `photos`."""
    return {
        "agency": agency,
        "sha256": photo.sha256,
        "media_type": photo.media_type,
        "width": int(photo.width),
        "height": int(photo.height),
        "bytes": int(photo.bytes),
    }


def face_to_row(write: RecordWrite, record_id: str, photo: PhotoWrite, face: FaceWrite) -> Values:
    """A row of `faces`, of an enrolment."""
    return face_values(
        face,
        record_id,
        photo.sha256,
        write.model_id,
        key=write.key,
        attributes=write.attributes,
        taken=photo.note.taken,
    )


def face_values(
    face: FaceWrite,
    record_id: str,
    sha256: str,
    model_id: str,
    *,
    key: RecordKey,
    attributes: Attributes,
    taken: DateRange | None,
) -> Values:
    """A row of `faces`."""
    return {
        "face_id": face.face_id,
        "record_id": record_id,
        "sha256": sha256,
        "model_id": model_id,
        "ordinal": int(face.ordinal),
        "x": float(face.box.x),
        "y": float(face.box.y),
        "width": float(face.box.width),
        "height": float(face.box.height),
        "landmarks": np.asarray(face.landmarks, dtype=np.float32).tolist(),
        "detector_score": float(face.detector_score),
        "quality_score": float(face.quality.score),
        "quality_components": {name: float(value) for name, value in face.quality.components.items()},
        "quality_reasons": list(face.quality.reasons),
        "as_candidate": as_candidate(key, attributes),
        "as_evidence": as_evidence(face, taken),
    }


def face_of(row: Row) -> StoredFace:
    """The face of a row of `faces`."""
    return StoredFace(
        face_id=row["face_id"],
        record_id=row["record_id"],
        sha256=row["sha256"],
        model_id=row["model_id"],
        ordinal=row["ordinal"],
        box=Box(row["x"], row["y"], row["width"], row["height"]),
        landmarks=np.asarray(row["landmarks"], dtype=np.float32).reshape(-1, 2),
        detector_score=row["detector_score"],
        quality=Quality(row["quality_score"], dict(row["quality_components"]), tuple(row["quality_reasons"])),
    )


def photo_of(row: Row, faces: Iterable[StoredFace]) -> StoredPhoto:
    """The photo of a row of `record_photos` joined with `photos`."""
    return StoredPhoto(
        sha256=row["sha256"],
        media_type=row["media_type"],
        width=row["width"],
        height=row["height"],
        bytes=row["bytes"],
        note=note_of(row),
        outcome=row["outcome"],
        faces_seen=row["faces_seen"],
        model_id=row["model_id"],
        load=row["load"],
        faces=tuple(sorted(faces, key=lambda face: (face.model_id, face.ordinal))),
        place=row["position"],
    )


def record_of(row: Row, photos: Sequence[StoredPhoto]) -> StoredRecord:
    """The record of a row of `records`."""
    return StoredRecord(
        record_id=row["record_id"],
        key=key_of(row),
        attributes=attributes_of(row),
        photos=tuple(photos),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        created_rev=row["created_rev"],
        updated_rev=row["updated_rev"],
        version=row["version"],
        load=row["load"],
        searchable=row["searchable"],
        unsearchable_reason=row["unsearchable_reason"],
    )


def _range_to_row(name: str, span: DateRange | None) -> Values:
    return {
        f"{name}_earliest": None if span is None else span.earliest,
        f"{name}_latest": None if span is None else span.latest,
        f"{name}_verified": span is not None and bool(span.verified),
    }


def _range_of(name: str, row: Row) -> DateRange | None:
    earliest = row[f"{name}_earliest"]
    if earliest is None:
        return None
    return DateRange(earliest, row[f"{name}_latest"], row[f"{name}_verified"])
