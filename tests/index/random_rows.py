"""Random galleries and queries, small enough that every rule of the search is met by chance."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

import numpy as np

from homeward.types import DAY_MAX, DAY_MIN, FaceRow, Filter, Float32, ProbeFacts, Query
from index.synthetic import unit_rows

DIMENSION = 8


def hex_id(kind: str, number: int) -> str:
    """A 128-bit id; every third number's begins like its neighbour's, so that both words matter."""
    digest = hashlib.sha256(f"{kind}{number}".encode()).hexdigest()
    shared = hashlib.sha256(f"{kind}{number - number % 3}".encode()).hexdigest()
    return shared[:16] + digest[:16]


def photo_id(number: int) -> str:
    """A SHA-256."""
    return hashlib.sha256(f"photo{number}".encode()).hexdigest()


@dataclass(slots=True)
class World:
    """A source of rows and queries over few records, photos, templates and days, so that they collide."""

    chance: Random
    dimension: int = DIMENSION
    records: int = 12
    faces: int = 40
    templates: int = 10
    _pool: Float32 | None = None

    def pool(self) -> Float32:
        """(templates, dimension) the templates that rows and probes are drawn from, always the same ones
        for the same world size; neighbours differ in one last bit, or lie opposite."""
        if self._pool is None:
            self._pool = self._make_pool()
        return self._pool

    def _make_pool(self) -> Float32:
        generator = np.random.default_rng(self.templates * 1_000 + self.dimension)
        rows = unit_rows(generator.standard_normal((self.templates, self.dimension)))
        for row in range(1, self.templates, 4):
            rows[row] = rows[row - 1]
            rows[row, 0] = np.nextafter(rows[row, 0], np.float32(0.0))
        for row in range(2, self.templates, 7):
            rows[row] = -rows[row - 1]
        return rows

    def row(self, face: int) -> FaceRow:
        """A row of this face; its record, template and facts are chance."""
        chance = self.chance
        born, event, taken = self._span(), self._span(), self._span()
        record = chance.randrange(self.records)
        return FaceRow(
            face_id=self.face_id(record, face),
            record_id=hex_id("record", record),
            photo_sha256=photo_id(chance.randrange(self.faces)),
            ordinal=chance.randrange(3),
            agency=chance.randrange(3),
            gallery=chance.randrange(2),
            load=chance.randrange(2),
            sex=chance.randrange(3),
            born_from=born[0],
            born_to=born[1],
            event_from=event[0],
            event_to=event[1],
            taken_from=taken[0],
            taken_to=taken[1],
            place=chance.randrange(3),
            template=self.pool()[chance.randrange(self.templates)],
        )

    def face_id(self, record: int, face: int) -> str:
        """The id of one of a record's faces: a face is of one record for good."""
        return hex_id("face", record * 100_000 + face)

    def rows(self, count: int) -> list[FaceRow]:
        """`count` rows of chance faces, the same face more than once among them."""
        return [self.row(self.chance.randrange(self.faces)) for _ in range(count)]

    def distinct_rows(self, count: int) -> list[FaceRow]:
        """`count` rows of different faces."""
        return [self.row(face) for face in range(count)]

    def query(self) -> Query:
        """Any query that makes sense, with every part of it present or not."""
        chance = self.chance
        pool = self.pool()
        picked = [pool[chance.randrange(len(pool))] for _ in range(chance.choice((1, 1, 1, 2, 5)))]
        return Query(
            templates=np.stack(picked),
            k=chance.choice((1, 1, 2, 3, 5, self.records, 10 * self.faces)),
            filter=self._filter() if chance.random() < 0.6 else Filter(),
            facts=self._facts() if chance.random() < 0.6 else ProbeFacts(),
            include_implausible=chance.random() < 0.4,
            min_score=self._threshold(pool, picked[0]),
            evidence=chance.choice((0, 1, 3, 100)),
            without_records=frozenset(
                hex_id("record", chance.randrange(self.records)) for _ in range(chance.choice((0, 0, 1, 3)))
            ),
            without_photos=frozenset(
                photo_id(chance.randrange(self.faces)) for _ in range(chance.choice((0, 0, 1, 3)))
            ),
        )

    def _span(self) -> tuple[int, int]:
        """A range of days around 2010; unknown, or open on one side, every now and then."""
        first = 14_600 + self.chance.randrange(30) * 40
        last = first + self.chance.choice((0, 1, 40, 400))
        return self.chance.choice(
            ((first, last), (first, last), (DAY_MIN, DAY_MAX), (DAY_MIN, last), (first, DAY_MAX))
        )

    def _codes(self, below: int) -> frozenset[int]:
        return frozenset(self.chance.randrange(below) for _ in range(self.chance.choice((0, 0, 1, 2))))

    def _filter(self) -> Filter:
        return Filter(
            galleries=self._codes(2),
            agencies=self._codes(3),
            sexes=self._codes(3),
            born=self._span() if self.chance.random() < 0.3 else None,
            event=self._span() if self.chance.random() < 0.3 else None,
            places=self._codes(3),
            strict=self.chance.random() < 0.3,
        )

    def _facts(self) -> ProbeFacts:
        chance = self.chance
        youngest = chance.choice((0.0, 1.0, 2.5))
        age = (youngest, youngest + chance.choice((0.0, 1.0, float("inf"))))
        return ProbeFacts(
            sex=chance.randrange(3),
            born=self._span() if chance.random() < 0.5 else (DAY_MIN, DAY_MAX),
            taken=self._span() if chance.random() < 0.5 else (DAY_MIN, DAY_MAX),
            age_years=age if chance.random() < 0.4 else None,
        )

    def _threshold(self, pool: Float32, probe: Float32) -> float | None:
        """None, or a threshold that some row reaches exactly, or misses by a rounding."""
        if self.chance.random() < 0.5:
            return None
        row = pool[self.chance.randrange(len(pool))]
        exact = plain_score(row.tolist(), probe.tolist())
        return self.chance.choice((exact, float(np.nextafter(exact, 2.0)), 0.0, -2.0, 1.5))


def plain_score(row: Sequence[float], probe: Sequence[float]) -> float:
    """The comparison score by its definition: products summed in order, in float64."""
    total = 0.0
    for one, other in zip(row, probe, strict=True):
        total += one * other
    return total


def as_values(row: FaceRow) -> tuple[object, ...]:
    """All of a row, the template as its bits, so that rows compare."""
    values = [getattr(row, field.name) for field in dataclasses.fields(row)]
    return tuple(value.tobytes() if isinstance(value, np.ndarray) else value for value in values)


def crowded(count: int) -> list[FaceRow]:
    """`count` rows of one record, all as near as can be to the first template of a world of seed 1, and one
    row of each of five others, farther away."""
    template = World(Random(1)).pool()
    first = World(Random(1)).row(0)
    rows = [
        replace(first, face_id=hex_id("f", n), record_id=hex_id("r", 0), template=template[0])
        for n in range(count)
    ]
    return rows + [
        replace(first, face_id=hex_id("g", n), record_id=hex_id("r", n + 1), template=template[5])
        for n in range(5)
    ]
