"""Writes synthetic children into a PostgreSQL catalogue through COPY, as if each had been enrolled.

What the rows say is decided by `catalogue.plan`, as for any enrolment, once for each kind of child; only
names, ids and revs are put in for each child.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from typing import Any

import psycopg
import sqlalchemy as sa

from benchmarks.filled_children import KINDS, Batch, kinds, record_write
from catalogue.plan import Plan, RecordState
from catalogue.rows import Values
from catalogue.tables import changes, faces, photos, record_photos, records
from homeward.ids import record_id
from homeward.shown import as_candidate

TABLES = (records, photos, record_photos, faces, changes)  # each after those that it refers to
_NAMES = {
    "record_id": "{record}",
    "external_reference": "{reference}",
    "sha256": "{photo}",
    "face_id": "{face}",
    "as_candidate": r"\\x{candidate}",
    **dict.fromkeys(("rev", "version", "created_rev", "updated_rev"), "{rev}"),
}
_ESCAPES = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r", "{": "{{", "}": "}}"})

Line = Callable[..., str]


class CatalogueFiller:
    """Copies batches through a connection of its own that may do anything; the catalogue is migrated, and
    nobody else writes to it."""

    def __init__(self, connection: psycopg.Connection, model_id: str) -> None:
        self._connection = connection
        now = datetime.now(UTC)
        self._lines = [_lines_of(number, model_id, now) for number in range(KINDS)]
        # What is copied refers to nothing that is not there, and a check for each row takes as long as the
        # row.
        connection.execute("SET session_replication_role = replica")

    def copy(self, batch: Batch) -> None:
        """Commit the children of a batch, each with the next rev, in order."""
        with self._connection.transaction():
            row = self._connection.execute("SELECT rev FROM counter FOR UPDATE").fetchone()
            assert row is not None
            start = int(row[0])
            text = self._text(batch, start)
            for table in TABLES:
                with self._connection.cursor().copy(_copy(table)) as copy:
                    copy.write(text[table.name])
            last = start + len(batch.records)
            self._connection.execute("UPDATE counter SET rev = %s", (last,))

    def settle(self) -> None:
        """Let the planner know what there is, as it would after a while."""
        for table in TABLES:
            self._connection.execute(f"VACUUM (ANALYZE) {table.name}")

    def _text(self, batch: Batch, start: int) -> dict[str, str]:
        text: dict[str, list[str]] = {table.name: [] for table in TABLES}
        row = 0
        for offset, (record, photo) in enumerate(zip(batch.records, batch.photos, strict=True)):
            number = batch.first + offset
            lines = self._lines[number % KINDS]
            names = {"record": record, "photo": photo, "rev": start + offset + 1}
            kind = kinds()[number % KINDS]
            names["reference"] = kind.key(number).external_reference
            names["candidate"] = as_candidate(kind.key(number), kind.attributes).hex()
            for table in (records, photos, record_photos, changes):
                text[table.name].append(lines[table.name][0](**names))
            for line in lines[faces.name]:
                text[faces.name].append(line(face=batch.faces[row], **names))
                row += 1
        return {name: "".join(some) for name, some in text.items()}


def _lines_of(number: int, model_id: str, now: datetime) -> dict[str, list[Line]]:
    """Per table what makes the lines of a child of that kind, out of its names."""
    write = record_write(number, model_id)
    record = record_id(write.key)
    plan = Plan(0, now, {record: RecordState()}, {})
    plan.enrol(record, write)
    made = {
        records: list(plan.records.values()),
        photos: list(plan.photos.values()),
        record_photos: list(plan.record_photos.values()),
        faces: list(plan.faces.values()),
        changes: plan.changes,
    }
    return {table.name: [_line(table, row).format for row in rows] for table, rows in made.items()}


def _line(table: sa.Table, row: Values) -> str:
    names = [column.name for column in table.columns]
    if set(row) != set(names):
        raise RuntimeError(
            f"{table.name} has columns that an enrolment does not write: {set(names) ^ set(row)}"
        )
    return "\t".join(_NAMES.get(name) or _field(table, name, row) for name in names) + "\n"


def _field(table: sa.Table, name: str, row: Mapping[str, Any]) -> str:
    """A value as COPY reads it, with braces doubled."""
    value = row[name]
    if value is None:
        return r"\N"
    if isinstance(table.columns[name].type, sa.JSON):
        value = json.dumps(value)
    elif isinstance(value, bytes):
        value = rf"\x{value.hex()}"
    elif isinstance(value, bool):
        value = "t" if value else "f"
    elif isinstance(value, date):  # and datetime
        value = value.isoformat()
    return str(value).translate(_ESCAPES)


def _copy(table: sa.Table) -> str:
    columns = ", ".join(f'"{column.name}"' for column in table.columns)
    return f"COPY {table.name} ({columns}) FROM STDIN"
