"""The table that says who is who: one row per photo, in a CSV or Parquet file.

A row that makes no sense is reported with its line, its column and what to do, and costs itself alone.
"""

from __future__ import annotations

import csv
import datetime
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from cluster.rpc.fields import LONG_CHARS, key_text, span, text
from homeward.errors import InvalidInput
from homeward.types import Attributes, DateRange, FaceChoice, PhotoNote, Sex

_DATES = "YYYY, YYYY-MM, YYYY-MM-DD, or two of them as FROM..TO"
_YES_NO = "yes or no (true, false, 1, 0); empty is no"

# What each column says, in the order of the documentation. The first two are required.
COLUMNS: Mapping[str, str] = {
    "photo": "the photo's name in the source, with / between folders",
    "record": "the agency's own reference for the child",
    "born": f"date of birth: {_DATES}",
    "born_verified": f"{_YES_NO}; only verified facts exclude a candidate",
    "sex": "female or male (f, m); empty is unknown",
    "sex_verified": _YES_NO,
    "event": f"when the child went missing, or was found or sighted: {_DATES}",
    "event_verified": _YES_NO,
    "event_place": "where",
    "case_reference": "the case in the agency's system",
    "provenance": "where the record comes from",
    "legal_basis": "why the agency may hold it",
    "taken": f"when the photo was taken: {_DATES}",
    "taken_verified": _YES_NO,
    "face": "whose face it is: sole (the default), central, composite, or a number from 0 on",
    "photo_provenance": "where the photo comes from",
}
REQUIRED = ("photo", "record")
_PHOTO_CHARS = 4096
_NAMES: Mapping[str, FaceChoice] = {
    "": FaceChoice.SOLE,
    "sole": FaceChoice.SOLE,
    "central": FaceChoice.MOST_CENTRAL,
    "composite": FaceChoice.COMPOSITE,
}
_SEXES = {"": Sex.UNKNOWN, "f": Sex.FEMALE, "female": Sex.FEMALE, "m": Sex.MALE, "male": Sex.MALE}
_FLAGS = {"": False, "no": False, "false": False, "0": False, "yes": True, "true": True, "1": True}
_ORDINAL_MAX = 10_000
_PARQUET_MAGIC = b"PAR1"
_BATCH_ROWS = 4096


@dataclass(frozen=True, slots=True)
class Row:
    """What the manifest says of one photo."""

    line: int  # of a CSV file from 1 on, where the row ends; of a Parquet file the row's number from 1 on
    photo: str
    reference: str
    attributes: Attributes
    note: PhotoNote


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that is not used."""

    line: int
    column: str  # empty: the row as a whole
    why: str
    photo: str = ""  # where the row says it


class Table(Protocol):
    """Rows of texts under named columns."""

    @property
    def columns(self) -> Sequence[str]:
        """The names in the file's first line, or in its schema."""
        ...

    def rows(self) -> Iterator[tuple[int, Sequence[str] | BadRow]]:
        """Each row's line and values, as many as there are columns."""
        ...


@dataclass(frozen=True, slots=True)
class Manifest:
    """An opened manifest; each call of `rows` reads the file from its start."""

    path: Path
    unknown: tuple[str, ...]  # columns that are not read, for the person to look at
    _table: Table = field(repr=False)

    def rows(self) -> Iterator[Row | BadRow]:
        """Every row, in the file's order."""
        places = {name: at for at, name in enumerate(self._table.columns) if name in COLUMNS}
        for line, values in self._table.rows():
            if isinstance(values, BadRow):
                yield values
                continue
            given = {name: values[at] for name, at in places.items()}
            try:
                yield _row(line, given)
            except InvalidInput as error:
                column = error.details.get("field", "").partition(".")[0]
                why = error.message.removeprefix(f"{error.details.get('field', '')}: ")
                yield BadRow(line, column, why, given["photo"][:_PHOTO_CHARS])


def open_manifest(path: Path) -> Manifest:
    """The manifest at a path: Parquet by its first bytes, else CSV in UTF-8 with commas, semicolons or tabs.

    Raises `InvalidInput` (MANIFEST_INVALID) when it cannot be read, or has not the columns it must have.
    """
    try:
        with path.open("rb") as file:
            is_parquet = file.read(len(_PARQUET_MAGIC)) == _PARQUET_MAGIC
        table: Table = _Parquet(path) if is_parquet else _Csv(path)
    except (OSError, ValueError, csv.Error) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise _invalid(path, f"it cannot be read: {why}") from error
    columns = list(table.columns)
    missing = [name for name in REQUIRED if name not in columns]
    if missing:
        raise _invalid(
            path,
            f"it has no column {' and no column '.join(missing)}; it has {', '.join(columns) or 'none'}. "
            f"Known columns: {', '.join(COLUMNS)}",
        )
    twice = sorted({name for name in columns if name in COLUMNS and columns.count(name) > 1})
    if twice:
        raise _invalid(path, f"it has several columns {', '.join(twice)}")
    return Manifest(path, tuple(name for name in columns if name not in COLUMNS), table)


def _invalid(path: Path, why: str) -> InvalidInput:
    return InvalidInput(f"the manifest {path}: {why}", code="MANIFEST_INVALID", field="manifest")


def _row(line: int, given: Mapping[str, str]) -> Row:
    def value(name: str) -> str:
        return given.get(name, "").strip()

    photo = given["photo"]
    if not photo or len(photo) > _PHOTO_CHARS:
        raise InvalidInput(f"photo: a name of 1 to {_PHOTO_CHARS} characters is required", field="photo")
    sex = _one_of(value("sex").lower(), _SEXES, "sex")
    sex_verified = _one_of(value("sex_verified").lower(), _FLAGS, "sex_verified")
    if sex_verified and sex is Sex.UNKNOWN:
        raise InvalidInput("sex_verified: is set, but no sex is given", field="sex_verified")
    choice, ordinal = _face(value("face").lower())
    return Row(
        line,
        photo,
        key_text(value("record"), "record"),
        Attributes(
            born=_dates(value, "born"),
            sex=sex,
            sex_verified=sex_verified,
            event=_dates(value, "event"),
            event_place=text(value("event_place"), "event_place"),
            case_reference=text(value("case_reference"), "case_reference"),
            provenance=text(value("provenance"), "provenance", limit=LONG_CHARS),
            legal_basis=text(value("legal_basis"), "legal_basis", limit=LONG_CHARS),
        ),
        PhotoNote(
            taken=_dates(value, "taken"),
            choice=choice,
            ordinal=ordinal,
            provenance=text(value("photo_provenance"), "photo_provenance", limit=LONG_CHARS),
        ),
    )


def _dates(value: Any, name: str) -> DateRange | None:
    verified = _one_of(value(f"{name}_verified").lower(), _FLAGS, f"{name}_verified")
    earliest, dots, latest = value(name).partition("..")
    return span(earliest.strip(), latest.strip() if dots else earliest.strip(), verified, name)


def _face(value: str) -> tuple[FaceChoice, int]:
    if value.isascii() and value.isdigit() and len(value) <= len(str(_ORDINAL_MAX)):
        return FaceChoice.ORDINAL, int(value)
    return _one_of(value, _NAMES, "face"), 0


def _one_of(value: str, meanings: Mapping[str, Any], name: str) -> Any:
    if value not in meanings:
        known = ", ".join(one for one in meanings if one)
        raise InvalidInput(f"{name}: {value[:40]!r} is none of {known}", field=name)
    return meanings[value]


class _Csv:
    """RFC 4180, with the separator that the first line has. Bytes that are no UTF-8 cost their own row."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._open() as file:
            first = file.readline()
        self._separator = max(",;\t", key=first.count)
        self._columns = [name.strip() for name in next(csv.reader([first], delimiter=self._separator), [])]

    @property
    def columns(self) -> Sequence[str]:
        return self._columns

    def rows(self) -> Iterator[tuple[int, Sequence[str] | BadRow]]:
        with self._open() as file:
            reader = csv.reader(file, delimiter=self._separator, strict=True)
            next(reader, None)
            while True:
                before = reader.line_num
                try:
                    values = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    lines = (
                        f"lines {before + 1} to {reader.line_num}" if reader.line_num > before + 1 else "it"
                    )
                    why = f"{error}: is a quotation mark missing? Nothing of {lines} is used"
                    yield before + 1, BadRow(before + 1, "", why)
                    continue
                if not values:
                    continue
                line = before + 1
                if len(values) != len(self._columns):
                    why = f"has {len(values)} fields, the first line has {len(self._columns)}"
                    yield line, BadRow(line, "", why)
                else:
                    yield line, values

    def _open(self) -> Any:
        return self._path.open(encoding="utf-8-sig", errors="surrogateescape", newline="")


class _Parquet:
    """Columns of texts, numbers, truth values or dates; null is empty."""

    def __init__(self, path: Path) -> None:
        from pyarrow.parquet import ParquetFile

        self._file = ParquetFile(path)
        self._columns = list(self._file.schema_arrow.names)

    @property
    def columns(self) -> Sequence[str]:
        return self._columns

    def rows(self) -> Iterator[tuple[int, Sequence[str] | BadRow]]:
        wanted = [name for name in self._columns if name in COLUMNS]
        line = 0
        for batch in self._file.iter_batches(batch_size=_BATCH_ROWS, columns=wanted):
            values = {name: batch.column(name).to_pylist() for name in wanted}
            for row in range(batch.num_rows):
                line += 1
                yield line, [_text(values[name][row]) if name in values else "" for name in self._columns]


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime.datetime):
        return value.date().isoformat()
    return str(value)
