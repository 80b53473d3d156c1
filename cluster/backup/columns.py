"""Rows as Arrow tables and Parquet: the catalogue's tables, templates, photos and documents.

Types are those of no database: what SQLite wrote PostgreSQL reads, and any tool that reads Parquet.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa

from catalogue.rows import Values
from catalogue.tables import UtcDateTime
from homeward.types import Float32

PHOTOS = pa.schema([("agency", pa.string()), ("sha256", pa.string()), ("content", pa.large_binary())])
DOCUMENTS = pa.schema([("name", pa.string()), ("content", pa.large_binary())])

# The first that a column's type is of: JSON and times are kept as neither database has them.
_TYPES: tuple[tuple[type[sa.types.TypeEngine[Any]], pa.DataType], ...] = (
    (UtcDateTime, pa.timestamp("us", "UTC")),
    (sa.JSON, pa.string()),
    (sa.Boolean, pa.bool_()),
    (sa.Integer, pa.int64()),
    (sa.Double, pa.float64()),
    (sa.Date, pa.date32()),
    (sa.LargeBinary, pa.large_binary()),
    (sa.String, pa.string()),
)


def schema_of(table: sa.Table) -> pa.Schema:
    """The Arrow schema of one of the catalogue's tables."""
    return pa.schema([pa.field(column.name, _type_of(column), column.nullable) for column in table.columns])


def from_values(table: sa.Table, values: Sequence[Values]) -> pa.Table:
    """Rows of a table of the catalogue."""
    documents = _json_columns(table)
    rows = [{**row, **{name: json.dumps(row[name]) for name in documents}} for row in values]
    return pa.Table.from_pylist(rows, schema_of(table))


def to_values(table: sa.Table, rows: pa.Table) -> list[Values]:
    """The inverse."""
    documents = _json_columns(table)
    return [
        {**row, **{name: json.loads(row[name]) for name in documents}}
        for row in rows.cast(schema_of(table)).to_pylist()
    ]


def from_templates(face_ids: Sequence[str], templates: Float32) -> pa.Table:
    """(n, d) float32 rows with the faces they are of."""
    flat = pa.array(np.ascontiguousarray(templates, np.float32).reshape(-1), pa.float32())
    vectors = pa.FixedSizeListArray.from_arrays(flat, templates.shape[1])
    return pa.table({"face_id": pa.array(face_ids, pa.string()), "template": vectors})


def to_templates(rows: pa.Table, dimension: int) -> tuple[list[str], Float32]:
    """The inverse."""
    vectors = rows.column("template").combine_chunks()
    flat = vectors.flatten().to_numpy(zero_copy_only=False)
    return rows.column("face_id").to_pylist(), flat.astype(np.float32).reshape(-1, dimension)


def to_parquet(rows: pa.Table) -> bytes:
    """A Parquet file. Photos and templates are as good as random: they are not compressed."""
    incompressible = any(name in rows.column_names for name in ("content", "template"))
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, compression="none" if incompressible else "zstd")
    return bytes(sink.getvalue())


def from_parquet(data: bytes) -> pa.Table:
    """The inverse."""
    return pq.read_table(pa.BufferReader(data), use_threads=False)


def gathered(parts: Iterable[pa.Table], most: int) -> Iterator[pa.Table]:
    """The rows of all parts, in order, in tables of about `most` bytes."""
    held: list[pa.Table] = []
    size = 0
    for part in parts:
        held.append(part)
        size += part.nbytes
        if size >= most:
            yield pa.concat_tables(held)
            held, size = [], 0
    if held:
        yield pa.concat_tables(held)


def _type_of(column: sa.Column[object]) -> pa.DataType:
    return next(arrow for kind, arrow in _TYPES if isinstance(column.type, kind))


def _json_columns(table: sa.Table) -> list[str]:
    return [column.name for column in table.columns if isinstance(column.type, sa.JSON)]
