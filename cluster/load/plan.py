"""From sources and a manifest to parts: which photos there are, whose each is, and in what order.

The order is by record, then by place in the input: a record's photos come together, so that one part holds
them all unless they are more than a part can be. It depends on the input alone. All of it lies in an SQLite
file while it is sorted: the memory that a plan takes does not grow with the archive.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic import TypeAdapter

from cluster.load.manifest import BadRow, Manifest, Row
from cluster.load.members import Member, Refusal, Source
from cluster.load.plan_types import PlannedPhoto, Totals, Unplanned
from cluster.rpc.fields import key_text
from homeward.errors import InvalidInput
from homeward.types import Attributes, PhotoNote

_NOT_UTF8 = "the folder's name is not UTF-8: rename it, or name its record in a manifest"
_ATTRIBUTES = TypeAdapter(Attributes)
_NOTE = TypeAdapter(PhotoNote)

# Names are kept as bytes: a file's need not be text.
_TABLES = """
create table members (
    number integer primary key, source integer, name blob, size integer, offset integer, packed integer,
    method integer, checksum integer, refusal text, why text, version text
);
create table rows (
    line integer primary key, name blob, reference text, note text, code text, why text
);
create table records (reference text primary key, line integer, attributes text);
create table planned (
    number integer primary key, member integer, name blob, reference text, line integer, code text, why text
);
"""
_INDICES = """
create index members_by_name on members (name);
create index rows_by_name on rows (name);
create unique index planned_once on planned (member, reference) where code = '';
"""


class Plan:
    """What a load is to do. A context; `path` is a file of its own, which must not exist."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path)
        self._db.executescript("pragma journal_mode = off; pragma synchronous = off;" + _TABLES)
        self._unknown: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._db.close()

    def make(
        self,
        sources: Sequence[Source],
        manifest: Manifest | None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """List the opened sources, read the manifest, and settle what becomes of each photo. Once. `check` is
        called now and then, and raises to end it."""
        columns = ",".join("?" * 11)
        self._db.executemany(f"insert into members values ({columns})", _listed(sources, check))  # noqa: S608
        if manifest is None:
            self._db.executescript(_INDICES)
            self._by_folder()
        else:
            self._unknown = manifest.unknown
            self._read(manifest, check)
            self._db.executescript(_INDICES)
            self._by_manifest()
        self._db.commit()

    def photos(self) -> Iterator[PlannedPhoto]:
        """All of them, each once: by record, then by place in the input."""
        found = self._db.execute(
            "select planned.number, planned.name, planned.reference, planned.line, planned.code, planned.why,"
            " records.attributes, rows.note, source, size, offset, packed, method, checksum, refusal,"
            " members.why, version from planned"
            " left join members on members.number = planned.member"
            " left join rows on rows.line = planned.line"
            " left join records on records.reference = planned.reference"
            " order by planned.reference, planned.number"
        )
        return map(_photo, found)

    def totals(self) -> Totals:
        """How much there is to do, and what is left out."""
        photos, size, records = self._db.execute(
            "select count(*), coalesce(sum(size), 0), count(distinct reference) from planned"
            " join members on members.number = member where code = ''"
        ).fetchone()
        left_out = self._db.execute("select code, count(*) from planned where code <> '' group by code")
        return Totals(photos, size, records, Counter(dict(left_out.fetchall())), self._unknown)

    def _read(self, manifest: Manifest, check: Callable[[], None]) -> None:
        def said() -> Iterator[tuple[object, ...]]:
            for row in manifest.rows():
                check()
                yield self._said(row)

        self._db.executemany("insert into rows values (?, ?, ?, ?, ?, ?)", said())

    def _said(self, row: Row | BadRow) -> tuple[object, ...]:
        """What is kept of a row; the first of a record's rows says what is known of the record."""
        if isinstance(row, BadRow):
            why = f"column {row.column}: {row.why}" if row.column else row.why
            return row.line, _bytes(row.photo), "", "", Unplanned.ROW_INVALID, why
        attributes = _ATTRIBUTES.dump_json(row.attributes).decode()
        record = (row.reference, row.line, attributes)
        self._db.execute("insert or ignore into records values (?, ?, ?)", record)
        line, known = self._db.execute(
            "select line, attributes from records where reference = ?", record[:1]
        ).fetchone()
        code, why = "", ""
        if known != attributes:
            code = Unplanned.ROW_DIFFERS
            why = f"line {line} says other things of record {row.reference}: make both say the same"
        return row.line, _bytes(row.photo), row.reference, _NOTE.dump_json(row.note).decode(), code, why

    def _by_folder(self) -> None:
        """Each photo's record is the folder that it lies in."""
        for number, name, refusal, why in self._all("select number, name, refusal, why from members"):
            folder, slash, _ = _name(name).rpartition("/")
            reference, wrong = "", "it lies in no folder: put it in one named for its record"
            if slash:
                try:
                    reference = key_text(folder, "folder")
                except InvalidInput as error:
                    wrong = error.message if _is_text(folder) else _NOT_UTF8
            said = (refusal, why) if refusal or reference else (Unplanned.NO_RECORD, wrong)
            new = self._add(number, name, reference, 0, *said)
            assert new  # every member comes once

    def _by_manifest(self) -> None:
        rows = self._all("select line, name, reference, code, why from rows order by line")
        for line, name, reference, *said in rows:
            named = self._db.execute(
                "select number, refusal, why from members where name = ? limit 2", (name,)
            ).fetchall()
            number = named[0][0] if len(named) == 1 else None
            if said[0]:
                code, why = said
            elif not named:
                code, why = Refusal.MISSING, f"no source has a photo of this name (line {line})"
            elif number is None:
                code, why = Unplanned.SEVERAL, f"more than one photo has this name (line {line})"
            else:
                _, code, why = named[0]
            if not self._add(number, name, reference, line, code, why):
                self._add(number, name, reference, line, Unplanned.TWICE, f"line {line} says it again")
        unnamed = self._all(
            "select number, name, refusal, why from members where name not in (select name from rows)"
        )
        for number, name, refusal, why in unnamed:
            unlisted = (refusal, why) if refusal else (Unplanned.NOT_LISTED, "no row names it")
            self._add(number, name, "", 0, *unlisted)

    def _add(self, *values: object) -> bool:
        """A row of `planned` but for its number. Whether it is new: of one photo and record the first is
        loaded."""
        made = self._db.execute("insert or ignore into planned values (null, ?, ?, ?, ?, ?, ?)", values)
        return made.rowcount == 1

    def _all(self, query: str) -> Iterable[Any]:
        """Rows of a query that may take long, while others are written."""
        return self._db.cursor().execute(query)


def _is_text(name: str) -> bool:
    return not any("\udc80" <= one <= "\udcff" for one in name)


def _listed(sources: Sequence[Source], check: Callable[[], None]) -> Iterator[tuple[object, ...]]:
    number = 0
    for source, opened in enumerate(sources):
        for one in opened.members():
            check()
            yield (
                number,
                source,
                _bytes(one.name),
                one.size,
                one.offset,
                one.packed,
                one.method,
                one.checksum,
                one.refusal or "",
                one.why,
                one.version,
            )
            number += 1


def _photo(row: Sequence[Any]) -> PlannedPhoto:
    number, name, reference, line, code, why, attributes, note, source, *place, refusal, wrong, version = row
    size, offset, packed, method, checksum = (value or 0 for value in place)
    return PlannedPhoto(
        number=number - 1,
        source=source or 0,
        member=Member(
            _name(name),
            size,
            offset,
            packed,
            method,
            checksum,
            Refusal(refusal) if refusal else None,
            wrong or "",
            version or "",
        ),
        reference=reference,
        line=line,
        attributes=_ATTRIBUTES.validate_json(attributes) if attributes else Attributes(),
        note=_NOTE.validate_json(note) if note else PhotoNote(),
        code=code,
        why=why,
    )


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _name(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")
