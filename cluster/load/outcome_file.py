"""A part's outcome as one Parquet file: photos are its rows, which any tool for tables reads; what photos
alone do not say lies in the metadata, with a checksum of both.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import astuple, fields
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.load.outcome_types import (
    OTHER_VERSION,
    RECORD_DELETED,
    Became,
    PartOutcome,
    PhotoOutcome,
    RecordOutcome,
)
from homeward.errors import Corrupt

_FORMAT = 1
_ROWS_MAX = 1 << 20  # far beyond any part: a forged count must not cost memory
_TYPES = {
    "number": pa.int64(),
    "photo": pa.string(),
    "reference": pa.string(),
    "record_id": pa.string(),
    "became": pa.string(),
    "code": pa.string(),
    "message": pa.string(),
    "line": pa.int64(),
    "source": pa.int64(),
    "sha256": pa.string(),
    "size": pa.int64(),
    "width": pa.int64(),
    "height": pa.int64(),
    "faces_seen": pa.int64(),
    "face_ids": pa.list_(pa.field("element", pa.string(), nullable=False)),
    "of": pa.int64(),
    "picture": pa.binary(),
    "kept": pa.bool_(),
    "milliseconds": pa.float64(),
}
_SCHEMA = pa.schema([pa.field(name, kind, nullable=False) for name, kind in _TYPES.items()])
_KEY = b"homeward.load.outcome"
_DIGEST = b"homeward.load.sha256"
_NAMES = [one.name for one in fields(PhotoOutcome)]
_RECORD = {"record_id": str, "reference": str, "created": bool, "searchable": bool, "attributes_kept": bool}


def write_outcome(outcome: PartOutcome) -> bytes:
    """The outcome as a file; of equal outcomes equal bytes.

    Text that is no valid Unicode is written with its lone surrogates escaped.
    """
    photos = [_plain(photo) for photo in outcome.photos]
    records = [[_valid(value) for value in astuple(record)] for record in outcome.records]
    said = json.dumps(
        {"format": _FORMAT, "part": outcome.part, "records": records}, separators=(",", ":")
    ).encode()
    columns = [pa.array([row[at] for row in photos], type=kind) for at, kind in enumerate(_TYPES.values())]
    table = pa.Table.from_arrays(columns, schema=_SCHEMA)
    digest = _digest(said, _rows(table))
    sink = pa.BufferOutputStream()
    # Statistics would repeat names outside of their rows, and nothing asks for them.
    table = table.replace_schema_metadata({_KEY: said, _DIGEST: digest})
    pq.write_table(table, sink, compression="zstd", write_statistics=False)
    return bytes(sink.getvalue())


def read_outcome(data: bytes) -> PartOutcome:
    """The outcome in a file. Raises `Corrupt` (LOAD_OUTCOME_INVALID) for what `write_outcome` did not write,
    and for what changed since; (LOAD_OTHER_VERSION) for what another version wrote."""
    try:
        return _read(data)
    except _Other as other:
        raise _invalid(str(other)) from other
    # Arrow's errors are of many kinds, among them plain OSError and what Python's own types raise.
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise _invalid(f"{type(error).__name__}, {error}") from error
    except (MemoryError, RecursionError) as error:  # counts and depths that a forger chose
        raise _invalid(type(error).__name__) from error


def forget(outcome: PartOutcome, record_ids: frozenset[str]) -> PartOutcome:
    """The outcome without what it says of these records: of each of their photos its number remains, and
    that it was rejected because its record was deleted.

    A photo of theirs that has no record id, because it was refused before, is known by its reference.
    """
    gone = {one.reference for one in outcome.photos if one.record_id in record_ids}
    gone |= {one.reference for one in outcome.records if one.record_id in record_ids}
    gone.discard("")
    return PartOutcome(
        outcome.part,
        tuple(
            PhotoOutcome(photo.number, "", "", "", Became.REJECTED, RECORD_DELETED, source=photo.source)
            if photo.record_id in record_ids or (not photo.record_id and photo.reference in gone)
            else photo
            for photo in outcome.photos
        ),
        tuple(record for record in outcome.records if record.record_id not in record_ids),
    )


class _Other(Exception):
    """The file holds something else."""


def _invalid(why: str) -> Corrupt:
    return Corrupt(f"this is no whole outcome of a part of a load: {why}", code="LOAD_OUTCOME_INVALID")


def _read(data: bytes) -> PartOutcome:
    with pq.ParquetFile(pa.BufferReader(data)) as file:
        schema = file.schema_arrow
        if not schema.equals(_SCHEMA):
            raise _Other("it has other columns")
        if file.metadata.num_rows > _ROWS_MAX:
            raise _Other("it has too many rows")
        said = (schema.metadata or {})[_KEY]
        head = json.loads(said)
        if head["format"] != _FORMAT:
            raise Corrupt("another version wrote this outcome of a part of a load", code=OTHER_VERSION)
        table = file.read(use_threads=False)
    rows = _rows(table)
    if schema.metadata.get(_DIGEST) != _digest(said, rows):
        raise _Other("its checksum is another")
    if not isinstance(head["records"], list):
        raise _Other("what it says of records is something else")
    return PartOutcome(_number(head["part"]), tuple(map(_photo, rows)), tuple(map(_record, head["records"])))


def _rows(table: pa.Table) -> list[list[Any]]:
    columns = [table.column(name).to_pylist() for name in _NAMES]
    return [list(row) for row in zip(*columns, strict=True)]


def _digest(said: bytes, rows: Sequence[Sequence[Any]]) -> bytes:
    """SHA-256 of the values, not of the file: how Parquet lays them out is not ours."""
    text = json.dumps([[one.hex() if isinstance(one, bytes) else one for one in row] for row in rows])
    return hashlib.sha256(said + b"\n" + text.encode()).hexdigest().encode()


def _plain(photo: PhotoOutcome) -> list[Any]:
    values = [_valid(getattr(photo, name)) for name in _NAMES]
    values[_NAMES.index("face_ids")] = [_valid(one) for one in photo.face_ids]
    return values


def _valid(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    return value


def _photo(row: list[Any]) -> PhotoOutcome:
    if any(value is None for value in row):
        raise _Other("a value is missing")
    given = dict(zip(_NAMES, row, strict=True))
    return PhotoOutcome(
        **{
            **given,
            "number": _number(given["number"]),
            "became": Became(given["became"]),
            "face_ids": tuple(given["face_ids"]),
        }
    )


def _record(values: list[Any]) -> RecordOutcome:
    if not isinstance(values, list) or [type(one) for one in values] != list(_RECORD.values()):
        raise _Other("what it says of a record is something else")
    return RecordOutcome(**dict(zip(_RECORD, values, strict=True)))


def _number(value: object) -> int:
    if type(value) is not int or value < 0:
        raise _Other(f"{value!r:.40} is no number of a part or of a photo")
    return value
