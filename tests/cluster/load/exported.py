"""What the stores hold, without what depends on when and how often it was written: to compare two of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from catalogue.open import open_catalogue
from catalogue.store import Catalogue
from catalogue.tables import records
from catalogue.types import StoredPhoto
from cluster.load.load_documents import AREA, LoadDocuments
from cluster.load.outcome_types import PartOutcome
from homeward.config import Settings
from index.open import open_gallery
from photos.open import open_document_store, open_photo_store

Export = dict[str, Any]


def export(settings: Settings, model_id: str, dimension: int) -> Export:
    """Records with their photos in order, templates by face as bytes, photos by agency, tombstones."""
    with _catalogue(settings) as catalogue:
        found: Export = {"records": records_of(catalogue), "tombstones": catalogue.counts().tombstones}
    gallery = open_gallery(settings.gallery, settings.data_dir, model_id, dimension)
    try:
        found["templates"] = {
            row.face_id: (row.record_id, row.photo_sha256, row.ordinal, row.template.tobytes())
            for columns in gallery.iterate()
            for row in columns.face_rows()
        }
    finally:
        gallery.close()
    photos = open_photo_store(settings.photos, settings.data_dir)
    found["photos"] = {
        (agency, sha256): hashlib.sha256(photos.get(agency, sha256)).hexdigest() == sha256
        for agency in photos.agencies()
        for sha256 in photos.list(agency)
    }
    return found


def records_of(catalogue: Catalogue) -> Export:
    """All records by reference."""
    with catalogue._database.reading() as connection:
        ids = list(connection.execute(sa.select(records.c.record_id)).scalars())
    return {
        record.key.external_reference: {
            "key": record.key,
            "attributes": record.attributes,
            "load": record.load,
            "searchable": record.searchable,
            "why": record.unsearchable_reason,
            "photos": [_photo(photo) for photo in record.photos],
        }
        for record in catalogue.get_many(ids).values()
    }


def outcomes(settings: Settings, name: str) -> list[PartOutcome]:
    """What became of each photo of a load, by part, without timings."""
    documents = LoadDocuments(open_document_store(settings.photos, settings.data_dir))
    with _catalogue(settings) as catalogue:
        parts = [documents.get_outcome(part.document) for part in catalogue.loads.parts(name)]
    return [
        replace(part, photos=tuple(replace(photo, milliseconds=0.0) for photo in part.photos))
        for part in parts
    ]


def documents_of(settings: Settings, name: str) -> list[str]:
    """Names of all that is kept of a load beside the photos."""
    return list(open_document_store(settings.photos, settings.data_dir).list_documents(f"{AREA}/{name}/"))


def _photo(photo: StoredPhoto) -> tuple[object, ...]:
    faces = [
        (face.face_id, face.model_id, face.ordinal, face.box, face.landmarks.tobytes(), face.detector_score)
        for face in photo.faces
    ]
    return (
        photo.sha256,
        photo.place,
        photo.media_type,
        photo.bytes,
        photo.note,
        photo.outcome,
        photo.faces_seen,
        photo.load,
        faces,
    )


@contextmanager
def _catalogue(settings: Settings) -> Iterator[Catalogue]:
    opened = open_catalogue(settings.catalogue, Path(settings.data_dir))
    try:
        yield opened
    finally:
        opened.close()
