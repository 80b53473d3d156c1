"""Made-up face rows: seeded, with few values per column so that filters, facts and ties meet."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np

from homeward.types import DAY_MAX, DAY_MIN, FaceRow, Float32
from index.synthetic import unit_rows


def hex_id(*parts: object, digits: int = 32) -> str:
    """A fixed id of what the parts name."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:digits]


def templates(generator: np.random.Generator, count: int, dimension: int, distinct: int = 0) -> Float32:
    """(count, dimension) unit rows near one another, as real ones are; of `distinct` kinds if given."""
    mean = np.full(dimension, 2.0)
    rows = unit_rows(mean + generator.standard_normal((distinct or count, dimension)))
    return rows[generator.integers(0, distinct, count)] if distinct else rows


def face_row(record: object, photo: object, ordinal: int, template: Float32, **columns: int) -> FaceRow:
    """One row; columns not given are unknown or zero."""
    unknown = {
        name: day
        for span in ("born", "event", "taken")
        for name, day in ((f"{span}_from", DAY_MIN), (f"{span}_to", DAY_MAX))
    }
    zero = dict.fromkeys(("agency", "gallery", "load", "sex", "place"), 0)
    return FaceRow(
        face_id=hex_id("face", record, photo, ordinal),
        record_id=hex_id("record", record),
        photo_sha256=hex_id("photo", photo, digits=64),
        ordinal=ordinal,
        template=template,
        **{**zero, **unknown, **columns},
    )


def random_rows(
    generator: np.random.Generator,
    count: int,
    dimension: int,
    records: int,
    distinct: int = 0,
    tag: object = 0,
) -> list[FaceRow]:
    """Rows of up to `records` records; each column is unknown in about a third of them."""
    vectors = templates(generator, count, dimension, distinct)
    rows = []
    for number, vector in enumerate(vectors):
        record = int(generator.integers(0, max(1, records)))
        columns = {
            "agency": int(generator.integers(1, 4)),
            "gallery": int(generator.integers(1, 3)),
            "load": int(generator.integers(0, 3)),
            "sex": int(generator.integers(0, 3)),
            "place": int(generator.integers(0, 4)),
        }
        for span in ("born", "event", "taken"):
            if generator.random() < 0.67:
                start = int(generator.integers(14_000, 20_000))
                columns[f"{span}_from"] = start
                columns[f"{span}_to"] = start + int(generator.integers(0, 700))
        rows.append(
            face_row((tag, record), (tag, number // 2), number, np.array(vector, np.float32), **columns)
        )
    return rows


def with_template(row: FaceRow, template: Float32) -> FaceRow:
    """The row with another template."""
    return replace(row, template=np.array(template, np.float32))
