"""Reads what a candidate list shows: the faces that speak, with record and photo, in one query.

It runs once in every search, so rows are taken by position and nothing is read that is not shown.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date

import numpy as np
import sqlalchemy as sa

from catalogue import sql
from catalogue.tables import faces, record_photos, records
from catalogue.types import ShownFace, StoredFace
from homeward.types import Attributes, Box, DateRange, Quality, RecordKey, Sex

_FACE = (
    faces.c.face_id,
    faces.c.record_id,
    faces.c.sha256,
    faces.c.model_id,
    faces.c.ordinal,
    faces.c.x,
    faces.c.y,
    faces.c.width,
    faces.c.height,
    faces.c.landmarks,
    faces.c.detector_score,
    faces.c.quality_score,
    faces.c.quality_components,
    faces.c.quality_reasons,
)
_TAKEN = (record_photos.c.taken_earliest, record_photos.c.taken_latest, record_photos.c.taken_verified)
_KEY = (records.c.agency, records.c.gallery, records.c.external_reference)
_ATTRIBUTES = (
    records.c.born_earliest,
    records.c.born_latest,
    records.c.born_verified,
    records.c.sex,
    records.c.sex_verified,
    records.c.event_earliest,
    records.c.event_latest,
    records.c.event_verified,
    records.c.event_place,
    records.c.case_reference,
    records.c.provenance,
    records.c.legal_basis,
)
_QUERY = (
    sa.select(*_FACE, *_TAKEN, *_KEY, *_ATTRIBUTES)
    .select_from(faces)
    .join(
        record_photos,
        sa.and_(record_photos.c.record_id == faces.c.record_id, record_photos.c.sha256 == faces.c.sha256),
    )
    .join(records, records.c.record_id == faces.c.record_id)
    .where(faces.c.face_id.in_(sa.bindparam("face_ids", expanding=True)))
)


def read_shown(connection: sa.Connection, face_ids: Iterable[str]) -> list[ShownFace]:
    """Those of the faces that exist, in no order."""
    found: list[ShownFace] = []
    records_seen: dict[str, tuple[RecordKey, Attributes]] = {}
    for chunk in sql.chunks(face_ids):
        for row in connection.execute(_QUERY, {"face_ids": chunk}):
            face = StoredFace(
                *row[0:5],
                box=Box(*row[5:9]),
                landmarks=np.array(row[9], dtype=np.float32),
                detector_score=row[10],
                quality=Quality(row[11], row[12], tuple(row[13])),
            )
            if face.record_id not in records_seen:
                records_seen[face.record_id] = RecordKey(*row[17:20]), _attributes(*row[20:])
            found.append(ShownFace(face, _range(*row[14:17]), *records_seen[face.record_id]))
    return found


def _attributes(*row: object) -> Attributes:
    born, sex, verified, event, texts = row[0:3], row[3], row[4], row[5:8], row[8:12]
    return Attributes(_range(*born), Sex(sex), bool(verified), _range(*event), *texts)  # type: ignore[arg-type]


def _range(earliest: date | None, latest: date | None, verified: bool) -> DateRange | None:
    if earliest is None or latest is None:
        return None
    return DateRange(earliest, latest, verified)
