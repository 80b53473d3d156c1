"""Synthetic children for filling real stores: whose they are, what is said of them, their ids and templates.

A child's number decides all of it, so whoever knows how many there are knows every row that the stores hold.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from functools import cache

import numpy as np

from catalogue.types import FaceWrite, PhotoWrite, RecordWrite, RowColumns
from cluster.demo.distractors import MEDIA_TYPE, statistics
from homeward.errors import InvalidInput
from homeward.ids import face_id, photo_sha256, record_id
from homeward.types import (
    Attributes,
    Box,
    DateRange,
    FaceChoice,
    Float32,
    PhotoNote,
    Quality,
    RecordKey,
    Sex,
)
from index.columns import INTEGER_COLUMNS, Columns, Int32, id_words
from index.synthetic import draw_templates

SEED = 11
FACES = (1, 1, 1, 1, 1, 1, 1, 1, 3, 5)  # of ten children; more than one come from a poster
KINDS = 1000  # children of one kind are alike but for their names and faces
BATCH = 16_384  # rows at a time
_GROUP_ROWS = sum(FACES)
_AGENCIES, _PLACES = 20, 50
_BOX = Box(412.0, 187.5, 181.0, 236.25)
_LANDMARKS = np.array(
    [[461.5, 275.25], [541.75, 273.5], [503.0, 322.0], [470.25, 366.5], [538.5, 365.0]], np.float32
)
_QUALITY = Quality(
    71.5,
    {
        "size": 100.0,
        "sharpness": 62.5,
        "exposure": 88.25,
        "pose": 91.0,
        "margin": 100.0,
        "detector_score": 97.5,
    },
)


@dataclass(frozen=True, slots=True)
class Kind:
    """What children of one kind have in common."""

    agency: str
    gallery: str
    attributes: Attributes
    note: PhotoNote
    faces: int

    def key(self, number: int) -> RecordKey:
        """The name of the child with this number."""
        return RecordKey(self.agency, self.gallery, f"child {number:,}")


@dataclass(frozen=True, slots=True)
class Batch:
    """Some children and their rows, a child's side by side and by ordinal."""

    first: int  # number of the first child
    records: list[str]  # record ids
    photos: list[str]  # sha256, one per child
    faces: list[str]  # face ids, one per row
    templates: Float32  # (rows, d)

    def columns(self, coded: list[RowColumns]) -> Columns:
        """The rows as the gallery keeps them, with the filter columns of each kind."""
        numbers = np.arange(self.first, self.first + len(self.records))
        sizes = np.array(FACES)[numbers % len(FACES)]
        kinds = np.repeat(numbers % KINDS, sizes)
        words = np.repeat(id_words(self.records), sizes, axis=0)
        first_rows = np.repeat(np.cumsum(sizes) - sizes, sizes)
        return Columns(
            face=id_words(self.faces),
            record=words,
            photo=np.repeat(id_words(self.photos, 4), sizes, axis=0),
            ordinal=(np.arange(len(words)) - first_rows).astype(np.int32),
            template=self.templates,
            **{name: column[kinds] for name, column in _coded_columns(coded).items()},
        )


@cache
def kinds() -> tuple[Kind, ...]:
    """All of them; children take turns."""
    generator = np.random.default_rng(SEED)
    made = []
    for number in range(KINDS):
        draw = generator.random(8)
        born = date(1996, 1, 1) + timedelta(days=int(draw[0] * 9000))
        event = born + timedelta(days=int(draw[1] * 5000))
        taken = event - timedelta(days=int(draw[2] * 400))
        faces = FACES[number % len(FACES)]
        attributes = Attributes(
            born=DateRange(born, born + timedelta(days=int(draw[3] * 30)), verified=draw[3] < 0.5),
            sex=Sex(int(draw[4] * 3)),
            sex_verified=draw[4] > 0.4,
            event=DateRange(event, event, verified=draw[5] < 0.7) if draw[5] < 0.9 else None,
            event_place=f"Town {int(draw[6] * _PLACES)}, by the station",
            case_reference=f"case {number}/2024",
            provenance="synthetic",
            legal_basis="none: nobody",
        )
        note = PhotoNote(
            taken=DateRange(taken, taken + timedelta(days=30), verified=draw[2] < 0.3),
            choice=FaceChoice.SOLE if faces == 1 else FaceChoice.COMPOSITE,
            provenance="synthetic",
        )
        gallery = "missing" if draw[7] < 0.7 else "found"
        made.append(Kind(f"agency {number % _AGENCIES:02d}", gallery, attributes, note, faces))
    return tuple(made)


def model() -> tuple[str, int]:
    """Id and dimension of the model whose templates these are: the default one."""
    from cluster.demo.distractors import STATISTICS

    with np.load(STATISTICS, allow_pickle=False) as file:
        return str(file["model_id"]), len(file["mean"])


def check_rows(rows: int) -> int:
    """`rows`, if whole groups of children have so many; `InvalidInput` otherwise."""
    if rows < _GROUP_ROWS or rows % _GROUP_ROWS:
        raise InvalidInput(f"rows come by {_GROUP_ROWS}; {rows} is no multiple", field="rows")
    return rows


def children_of(rows: int) -> int:
    """How many children have so many rows."""
    return rows // _GROUP_ROWS * len(FACES)


def draw(rows: int, model_id: str) -> Float32:
    """(rows, d) templates, drawn as real ones lie."""
    mean, covariance = statistics(model_id)
    return draw_templates(mean.astype(np.float64), covariance.astype(np.float64), rows, SEED)


def batches(templates: Float32, model_id: str) -> Iterator[Batch]:
    """All children of these templates, in order."""
    step = BATCH // _GROUP_ROWS * _GROUP_ROWS
    for start in range(0, len(templates), step):
        some = templates[start : start + step]
        first = children_of(start)
        records, photos, faces = [], [], []
        for number in range(first, first + children_of(len(some))):
            kind = kinds()[number % KINDS]
            record, photo = record_id(kind.key(number)), photo_of(number)
            records.append(record)
            photos.append(photo)
            faces += [face_id(record, photo, model_id, ordinal) for ordinal in range(kind.faces)]
        yield Batch(first, records, photos, faces, some)


def record_write(number: int, model_id: str) -> RecordWrite:
    """The enrolment of the child with this number, as the catalogue would be told it."""
    kind = kinds()[number % KINDS]
    key, photo = kind.key(number), photo_of(number)
    faces = tuple(
        FaceWrite(
            face_id=face_id(record_id(key), photo, model_id, ordinal),
            ordinal=ordinal,
            box=_BOX,
            landmarks=_LANDMARKS,
            detector_score=0.975,
            quality=_QUALITY,
        )
        for ordinal in range(kind.faces)
    )
    picture = PhotoWrite(photo, MEDIA_TYPE, 1024, 768, 0, note=kind.note, faces_seen=len(faces), faces=faces)
    return RecordWrite(key, kind.attributes, (picture,), model_id)


def photo_of(number: int) -> str:
    """The sha256 that stands for the photo of the child with this number; there is no photo."""
    return photo_sha256(b"synthetic child %d" % number)


def _coded_columns(coded: list[RowColumns]) -> dict[str, Int32]:
    """Per filter column (KINDS,) values."""
    rows = [asdict(one) for one in coded]
    return {
        name: np.array([row[name] for row in rows], np.int32) for name in INTEGER_COLUMNS if name != "ordinal"
    }
