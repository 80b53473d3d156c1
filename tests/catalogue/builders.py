"""Small writes for tests, readable at the place where they are used."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import date

import numpy as np
import sqlalchemy as sa

from catalogue.store import Catalogue
from catalogue.tables import changes, faces, photos, record_photos, records
from catalogue.types import (
    ENROLLED,
    FaceWrite,
    Item,
    PhotoWrite,
    RecordWrite,
    Request,
    Store,
    WriteResult,
)
from homeward import ids
from homeward.errors import HomewardError
from homeward.shown import as_candidate, as_evidence, facts_of, taken_of
from homeward.types import Attributes, Box, DateRange, FaceChoice, PhotoNote, Quality, RecordKey, Sex

MODEL = "model-1"
AGENCY = "agency"

ATTRIBUTES = Attributes(
    born=DateRange(date(2008, 3, 1), date(2008, 3, 31), verified=True),
    sex=Sex.FEMALE,
    sex_verified=True,
    event=DateRange(date(2011, 7, 9), date(2011, 7, 9)),
    event_place="Curitiba, Brasil",
    case_reference="C-17 「案件」",
    provenance="report",
    legal_basis="law 12.127",
)
NOTE = PhotoNote(DateRange(date(2010, 1, 1), date(2010, 12, 31), True), FaceChoice.ORDINAL, 1, "mother")


def sha(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def key(reference: str, *, agency: str = AGENCY, gallery: str = "missing") -> RecordKey:
    return RecordKey(agency, gallery, reference)


def rid(reference: str, *, agency: str = AGENCY, gallery: str = "missing") -> str:
    return ids.record_id(key(reference, agency=agency, gallery=gallery))


def face(record: str, photo: str, ordinal: int = 0, *, model: str = MODEL) -> FaceWrite:
    return FaceWrite(
        face_id=ids.face_id(record, sha(photo), model, ordinal),
        ordinal=ordinal,
        box=Box(-1.5, 2.0, 30.25, 40.0),
        landmarks=(np.arange(10) / 3).astype(np.float32).reshape(5, 2),
        detector_score=0.97,
        quality=Quality(61.5, {"size": 30.0, "sharpness": 80.5}, ("Too small",)),
    )


def photo(
    record: str,
    name: str,
    faces: int = 1,
    *,
    model: str = MODEL,
    outcome: str = "",
    note: PhotoNote | None = None,
) -> PhotoWrite:
    return PhotoWrite(
        sha256=sha(name),
        media_type="image/jpeg",
        width=640,
        height=480,
        bytes=12345,
        note=note or PhotoNote(),
        outcome=outcome or (ENROLLED if faces else "NO_FACE"),
        faces_seen=faces,
        faces=tuple(face(record, name, ordinal, model=model) for ordinal in range(faces)),
    )


def write(
    reference: str,
    photos: Sequence[str] | dict[str, int] = (),
    *,
    agency: str = AGENCY,
    gallery: str = "missing",
    model: str = MODEL,
    **more: object,
) -> RecordWrite:
    """An enrolment of photos by name, one face each unless a number is given."""
    counts = photos if isinstance(photos, dict) else dict.fromkeys(photos, 1)
    record = rid(reference, agency=agency, gallery=gallery)
    made = RecordWrite(
        key=key(reference, agency=agency, gallery=gallery),
        attributes=Attributes(),
        photos=tuple(photo(record, name, count, model=model) for name, count in counts.items()),
        model_id=model,
    )
    return replace(made, **more)  # type: ignore[arg-type]


def request(name: str, digest: str = "digest", **more: object) -> Request:
    return replace(
        Request(name, "Enrol", digest, response=lambda result: f"rev {result.rev}".encode()),
        **more,  # type: ignore[arg-type]
    )


def recalled(
    catalogue: Catalogue, name: str, method: str = "Enrol", digest: str = "digest", scope: str = ""
) -> bytes | None:
    """The answer that one request got before; its error is raised."""
    (answer,) = catalogue.recall_many([Request(name, method, digest, scope)])
    if isinstance(answer, HomewardError):
        raise answer
    return answer


def items_of(made: RecordWrite) -> list[Item]:
    """What the other stores will hold of an enrolment."""
    record = ids.record_id(made.key)
    return [Item(Store.PHOTOS, record, each.sha256, made.key.agency) for each in made.photos] + [
        Item(Store.GALLERY, record, each.face_id) for photo_ in made.photos for each in photo_.faces
    ]


def done(result: WriteResult | HomewardError) -> WriteResult:
    """The result, which is no error."""
    if isinstance(result, HomewardError):
        raise result
    return result


def check_consistent(catalogue: Catalogue, undone: Iterable[str] = ()) -> None:
    """What must hold in every committed state. `undone`: records that were taken back without a tombstone."""
    log = catalogue.changes_since(0, 10**6)
    assert [change.rev for change in log] == list(range(1, catalogue.rev() + 1))
    latest = {change.record_id: change for change in log}
    with catalogue._database.reading() as connection:
        held = {row.record_id: row for row in connection.execute(sa.select(records))}
        assert connection.execute(sa.select(sa.func.count()).select_from(changes)).scalar() == len(log)
        referenced = set(
            connection.execute(sa.select(record_photos.c.agency, record_photos.c.sha256).distinct())
        )
        assert set(connection.execute(sa.select(photos.c.agency, photos.c.sha256))) == referenced
        with_faces = set(connection.execute(sa.select(faces.c.record_id).distinct()).scalars())
    for record_id, row in held.items():
        assert (row.updated_rev, latest[record_id].deleted) == (latest[record_id].rev, False)
        assert row.searchable is (record_id in with_faces)
    gone = {record_id for record_id, change in latest.items() if change.deleted}
    assert gone == set(latest) - set(held) == catalogue.deleted(latest) | set(undone)
    check_shown(catalogue)


def check_shown(catalogue: Catalogue) -> None:
    """Lists show what the catalogue holds."""
    places = list(catalogue.all_faces())
    shown = catalogue.shown([place.face_id for place in places])
    held = catalogue.get_many(place.record_id for place in places)
    assert {face for one in shown.values() for face in one.faces} == {place.face_id for place in places}
    for record_id, one in shown.items():
        record = held[record_id]
        assert one.message == as_candidate(record.key, record.attributes)
        assert facts_of(one.message) == replace(
            record.attributes, case_reference="", provenance="", legal_basis=""
        )
        for photo in record.photos:
            for face in photo.faces:
                assert one.faces[face.face_id] == as_evidence(face, photo.note.taken)
                assert taken_of(one.faces[face.face_id]) == photo.note.taken
