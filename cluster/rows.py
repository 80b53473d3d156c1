"""Face rows as the gallery keeps them: template, ids, and the filter columns the catalogue gives."""

from __future__ import annotations

from dataclasses import asdict, replace

from catalogue.types import RowColumns
from homeward.ids import face_id
from homeward.types import Face, FaceRow


def face_row(face: Face, *, record: str, photo: str, model: str, columns: RowColumns) -> FaceRow:
    """The row of one face of one photo (sha256) under one record."""
    return FaceRow(
        face_id=face_id(record, photo, model, face.ordinal),
        record_id=record,
        photo_sha256=photo,
        ordinal=face.ordinal,
        template=face.template,
        **asdict(columns),
    )


def with_columns(row: FaceRow, columns: RowColumns) -> FaceRow:
    """The same row with the filter columns that the catalogue says now."""
    return replace(row, **asdict(columns))
