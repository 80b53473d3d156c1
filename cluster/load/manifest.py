"""The table that says who is who: one row per photo, in a CSV or Parquet file.

A row that makes no sense is reported with its line, its column and what to do, and costs itself alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster.load.csv_table import CsvTable
from cluster.load.members import normal_name
from cluster.load.pace import plain
from cluster.load.parquet_table import MAGIC, ParquetTable
from cluster.load.table import Cells, Table, TableUnreadable, Unread
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
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_NAMES_TOLD, _NAME_CHARS = 32, 64  # of columns that are not read
_SURROGATES = re.compile("[\udc80-\udcff]")  # bytes that are no UTF-8


@dataclass(frozen=True, slots=True)
class Row:
    """What the manifest says of one photo."""

    line: int  # of a CSV file from 1 on, where the row begins; of a Parquet file the row's number from 1 on
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


@dataclass(frozen=True, slots=True)
class Manifest:
    """An opened manifest; each call of `rows` reads the file from its start."""

    path: Path
    unknown: tuple[str, ...]  # columns that are not read, for the person to look at: in characters to be seen
    _table: Table = field(repr=False)

    def rows(self) -> Iterator[Row | BadRow]:
        """Every row, in the file's order. Raises `InvalidInput` (MANIFEST_INVALID) where the file cannot be
        read further."""
        places = {name: at for at, name in enumerate(self._table.columns) if name in COLUMNS}
        try:
            for line, values in self._table.rows():
                yield _used(line, places, values)
        except TableUnreadable as error:
            raise _invalid(self.path, f"it cannot be read: {error}") from error


def open_manifest(path: Path) -> Manifest:
    """The manifest at a path: Parquet by its first bytes, else CSV in UTF-8 with commas, semicolons or tabs.

    Raises `InvalidInput` (MANIFEST_INVALID) when it cannot be read, or has not the columns it must have.
    """
    try:
        with path.open("rb") as file:
            is_parquet = file.read(len(MAGIC)) == MAGIC
        table: Table = ParquetTable(path, tuple(COLUMNS), REQUIRED) if is_parquet else CsvTable(path)
    except (OSError, ValueError, TableUnreadable) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise _invalid(path, f"it cannot be read: {why}") from error
    columns = list(table.columns)
    missing = [name for name in REQUIRED if name not in columns]
    if missing:
        raise _invalid(
            path,
            f"it has no column {' and no column '.join(missing)}; it has "
            f"{', '.join(_told(columns)) or 'none'}. Known columns: {', '.join(COLUMNS)}",
        )
    twice = sorted({name for name in columns if name in COLUMNS and columns.count(name) > 1})
    if twice:
        raise _invalid(path, f"it has several columns {', '.join(twice)}")
    return Manifest(path, _told([name for name in columns if name not in COLUMNS]), table)


def _told(names: Sequence[str]) -> tuple[str, ...]:
    """Names of columns as they can be written and shown anywhere, whatever the file has there."""
    shown = tuple(
        _writable(name if len(name) <= _NAME_CHARS else f"{name[:_NAME_CHARS]}...")
        for name in names[:_NAMES_TOLD]
    )
    return shown if len(names) <= _NAMES_TOLD else (*shown, f"and {len(names) - _NAMES_TOLD:,} more")


def _writable(text: str) -> str:
    """Without control characters, and with the bytes spelt out that are no UTF-8."""
    return plain(text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"))


def _invalid(path: Path, why: str) -> InvalidInput:
    return InvalidInput(
        f"the manifest {_writable(str(path))}: {plain(why)}", code="MANIFEST_INVALID", field="manifest"
    )


def _used(line: int, places: Mapping[str, int], values: Cells | Unread) -> Row | BadRow:
    if isinstance(values, Unread):
        return BadRow(line, "", values.why)
    given: dict[str, str] = {}
    wrong: tuple[str, str] | None = None  # a column, and why
    for name, at in places.items():
        value = values[at]
        if isinstance(value, Unread):
            wrong = wrong or (name, value.why)
        else:
            given[name] = value
    photo = given["photo"] = _normal(given.get("photo", ""))
    if wrong is None:
        try:
            return _row(line, given)
        except InvalidInput as error:
            column = error.details.get("field", "").partition(".")[0]
            wrong = column, error.message.removeprefix(f"{error.details.get('field', '')}: ")
    return BadRow(line, *wrong, photo[:_PHOTO_CHARS])


def _normal(name: str) -> str:
    """A photo's name without steps that lead nowhere, as sources name their members: `./A//1.png` is
    `A/1.png`. A URI is no path."""
    if _URI.match(name):
        return name
    return normal_name(name)


def _row(line: int, given: Mapping[str, str]) -> Row:
    def value(name: str) -> str:
        return given.get(name, "").strip()

    photo = given["photo"]
    _check_bytes(given)
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


def _check_bytes(given: Mapping[str, str]) -> None:
    """A photo's name is its file's, which need not be text; all else is for people."""
    for name, value in given.items():
        found = None if name == "photo" else _SURROGATES.search(value)
        if found:
            byte = f"0x{ord(found[0]) - 0xDC00:02X}"
            raise InvalidInput(
                f"holds the byte {byte}, which is no UTF-8: save the table as UTF-8", field=name
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
