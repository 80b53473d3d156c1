"""People of nobody, enrolled straight into catalogue and index, without the enrolment service."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import date, timedelta

from catalogue.coding import KINDS
from catalogue.types import Deletion, FaceWrite, PhotoWrite, RecordWrite, WriteResult
from cluster.compose import Parts
from homeward.ids import face_id, photo_sha256, record_id
from homeward.types import Attributes, DateRange, Face, FaceRow, PhotoNote, RecordKey, Sex
from tests.cluster.fakes import MODEL_ID, fake_face, fake_photo

GALLERIES = ("missing", "found")
AGENCIES = ("agency-a", "agency-b", "agency-c")
PLACES = ("", "Aachen", "Bremen")


@dataclass(frozen=True, slots=True)
class Person:
    """One record to be: every face of every photo is this person's."""

    key: RecordKey
    photos: tuple[tuple[bytes, PhotoNote], ...]
    attributes: Attributes = field(default_factory=Attributes)

    @property
    def record_id(self) -> str:
        return record_id(self.key)


def random_range(chance: random.Random, year: int, years: int) -> DateRange | None:
    """Half of them verified, a fifth unknown."""
    if chance.random() < 0.2:
        return None
    first = date(year, 1, 1) + timedelta(days=chance.randrange(365 * years))
    return DateRange(first, first + timedelta(days=chance.choice((0, 30, 365))), chance.random() < 0.5)


def random_people(count: int, seed: int) -> list[Person]:
    """Some of their photos are also filed under somebody else, so that scores tie."""
    chance = random.Random(seed)
    shared = [fake_photo(f"shared-{seed}-{number}") for number in range(max(1, count // 50))]
    people = []
    for number in range(count):
        photos = [
            fake_photo(f"{seed}-{number}-{shot}", chance.choice((1, 1, 1, 2)))
            for shot in range(chance.choice((1, 1, 2, 3)))
        ]
        if chance.random() < 0.1:
            photos.append(chance.choice(shared))
        sex = chance.choice(tuple(Sex))
        people.append(
            Person(
                key=RecordKey(chance.choice(AGENCIES), chance.choice(GALLERIES), f"{seed}-{number}"),
                photos=tuple((photo, PhotoNote(taken=random_range(chance, 2012, 10))) for photo in photos),
                attributes=Attributes(
                    born=random_range(chance, 2005, 12),
                    sex=sex,
                    sex_verified=bool(sex) and chance.random() < 0.6,
                    event=random_range(chance, 2015, 8),
                    event_place=chance.choice(PLACES),
                ),
            )
        )
    return people


def enrol(parts: Parts, people: Sequence[Person]) -> tuple[list[FaceRow], dict[tuple[str, str], int]]:
    """Write them to catalogue, gallery and index; the rows, and the code of every name by its kind."""
    rows: list[FaceRow] = []
    for start in range(0, len(people), 250):
        rows += _enrol(parts, people[start : start + 250])
    codes = {
        (kind, value): code for kind in KINDS for code, value in parts.catalogue.code_values(kind).items()
    }
    return rows, codes


def _enrol(parts: Parts, people: Sequence[Person]) -> list[FaceRow]:
    faces = {photo: _faces(photo) for person in people for photo, _ in person.photos}
    columns = parts.catalogue.columns(
        [(person.key, person.attributes, note, "") for person in people for _, note in person.photos]
    )
    pending = iter(columns)
    rows: list[FaceRow] = []
    writes: list[RecordWrite] = []
    for person in people:
        photos = []
        for photo, note in person.photos:
            sha256, filters = photo_sha256(photo), asdict(next(pending))
            ids = [face_id(person.record_id, sha256, MODEL_ID, face.ordinal) for face in faces[photo]]
            photos.append(_photo(sha256, note, faces[photo], ids))
            rows += [
                FaceRow(
                    face_id=one,
                    record_id=person.record_id,
                    photo_sha256=sha256,
                    ordinal=face.ordinal,
                    template=face.template,
                    **filters,
                )
                for one, face in zip(ids, faces[photo], strict=True)
            ]
        writes.append(RecordWrite(person.key, person.attributes, tuple(photos), MODEL_ID))
    parts.gallery.upsert(rows)
    results = parts.catalogue.apply(writes)
    assert all(isinstance(result, WriteResult) for result in results)
    parts.index.upsert(rows, rev=parts.catalogue.rev())
    return rows


def delete_from_catalogue(parts: Parts, record: str) -> None:
    """Delete a record where existence is decided, and nowhere else."""
    parts.catalogue.delete(Deletion(record, reason="test", requester="test"))


def _faces(photo: bytes) -> tuple[Face, ...]:
    return tuple(fake_face(photo, ordinal) for ordinal in range(int(photo[4:5])))


def _photo(sha256: str, note: PhotoNote, faces: Sequence[Face], ids: Sequence[str]) -> PhotoWrite:
    return PhotoWrite(
        sha256=sha256,
        media_type="image/png",
        width=100,
        height=120,
        bytes=600,
        note=note,
        faces_seen=len(faces),
        faces=tuple(
            FaceWrite(one, face.ordinal, face.box, face.landmarks, face.detector_score, face.quality)
            for one, face in zip(ids, faces, strict=True)
        ),
    )
