"""A load's outcomes, summed up: what became of every photo and record, and what a person should look at.

The parts are read one by one into a temporary SQLite database without a name, which ends with the report: the
memory that it takes does not grow with the archive, but for the hashes of its pictures.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from types import TracebackType
from typing import Any, Self

from cluster.load.outcome_types import RECORD_DELETED, Became, PartOutcome
from cluster.load.report_pictures import find_same_pictures
from cluster.load.report_types import (
    LISTED,
    CommonPicture,
    Numbers,
    PhotoRow,
    SamePicture,
    SharedPicture,
    Sums,
    SuspectedDouble,
    Unaccounted,
    WithoutFace,
)

_CACHE_KIB = 65_536
_NAMES = [one.name for one in fields(PhotoRow)]
_COLUMNS = ", ".join(_NAMES)
_TABLES = f"""
pragma journal_mode = off; pragma synchronous = off; pragma cache_size = -{_CACHE_KIB};
create table photos (
    number integer, photo text, reference text, record_id text, became text, code text, message text,
    line integer, source integer, sha256 text, bytes integer, width integer, height integer, of integer,
    kept integer, faces integer, picture blob, milliseconds real
);
create table parts_records (
    record_id text, reference text, created integer, searchable integer, attributes_kept integer
);
"""
# Of a photo's copies in several parts the first in the input is the one that was enrolled, whichever part was
# done first. A record that one part created is there for the next, whose word on its attributes is void.
_SETTLED = f"""
create index photos_by_number on photos (number);
create index photos_by_bytes on photos (record_id, sha256);
create index photos_by_reason on photos (became, code, number);
create index photos_by_reference on photos (reference);
create table copies as
    select record_id, sha256, min(number) as first, max(faces) as faces,
        max(became = '{Became.ENROLLED}') as enrolled
    from photos
    where became in ('{Became.ENROLLED}', '{Became.ALREADY_THERE}') and sha256 <> '' and record_id <> ''
    group by record_id, sha256 having count(distinct number) > 1;
update photos set became = '{Became.DUPLICATE}', of = copies.first, faces = 0 from copies
    where photos.record_id = copies.record_id and photos.sha256 = copies.sha256
        and became <> '{Became.REJECTED}' and number <> copies.first;
update photos set became = '{Became.ENROLLED}', faces = copies.faces from copies
    where photos.record_id = copies.record_id and photos.sha256 = copies.sha256
        and became = '{Became.ALREADY_THERE}' and number = copies.first and copies.enrolled;
create table records as
    select reference, max(record_id) as record_id, max(created) as created, max(searchable) as searchable,
        max(attributes_kept) and not max(created) as attributes_kept
    from parts_records group by reference;
create unique index records_by_reference on records (reference);
create table faceless as
    select reference, max(record_id) as record_id, count(*) as photos from photos
    where reference <> '' and reference not in (select reference from records where searchable)
    group by reference having max(code <> '{RECORD_DELETED}')
    union all
    select reference, record_id, 0 from records
    where not searchable and reference not in (select reference from photos);
"""  # noqa: S608


class LoadReport:
    """What a load did. A context, for one thread at a time; what its methods give is read as they go.

    `sums`: the load in numbers.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self.sums = _sums(db)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it; what it knew is gone."""
        self._db.close()

    def rejected(self, code: str | None = None) -> Iterator[PhotoRow]:
        """Rejected photos by number, of all reasons or of one."""
        one = "" if code is None else "and code = ?"
        query = f"select {_COLUMNS} from photos where became = ? {one} order by number"  # noqa: S608
        return map(_row, self._all(query, Became.REJECTED, *([] if code is None else [code])))

    def duplicates(self) -> Iterator[PhotoRow]:
        """The same bytes under the same record again, by number; `of` is the photo that was enrolled."""
        query = f"select {_COLUMNS} from photos where became = ? order by number"  # noqa: S608
        return map(_row, self._all(query, Became.DUPLICATE))

    def without_face(self) -> Iterator[WithoutFace]:
        """Records that no search can find, by reference."""
        for reference, record_id, photos in self._all("select * from faceless order by reference"):
            said = self._all(
                "select iif(code <> '', code, became) as why, count(*) from photos where reference = ?"
                " group by why order by count(*) desc, why",
                reference,
            )
            yield WithoutFace(reference, record_id, photos, dict(said))

    def same_pictures(self) -> Iterator[SamePicture]:
        """Within each record the photos that are one picture, by reference."""
        for key in self._all("select reference, one from alike group by reference, one"):
            numbers = self._all(
                "select number from alike where reference = ? and one = ? order by number", *key
            )
            yield SamePicture(key[0], tuple(self._photo(number, key[0]) for (number,) in numbers))

    def doubles(self) -> Iterator[SuspectedDouble]:
        """Pairs of records that share pictures, those that share most first."""
        found = self._all("select reference, other, shared from doubles order by shared desc, 1, 2")
        for reference, other, shared in found:
            closest = self._all(
                "select number, other_number, bits from pairs where reference = ? and other = ?"
                " order by number, bits, other_number",
                reference,
                other,
            )
            pictures: dict[int, SharedPicture] = {}
            for number, other_number, bits in closest:
                if number not in pictures:
                    pictures[number] = SharedPicture(
                        self._photo(number, reference), self._photo(other_number, other), bits
                    )
            yield SuspectedDouble(reference, other, shared, tuple(pictures.values()))

    def common(self) -> Iterator[CommonPicture]:
        """Pictures under more than `MANY_RECORDS` records, those of most records first. They count for no
        suspected double."""
        found = self._all(
            "select min(shown.number), count(distinct shown.number), count(distinct shown.reference)"
            " from common join shown using (picture) group by leader order by 3 desc, 1"
        )
        for number, photos, records in found:
            yield CommonPicture(self._photo(number), photos, records)

    def unaccounted(self, total_photos: int) -> Unaccounted:
        """Whether each number from 0 to `total_photos` - 1 has exactly one outcome."""
        doubled = "select number from photos group by number having count(*) > 1"
        seen = f"select distinct number from photos where number < {int(total_photos)}"  # noqa: S608
        beyond = f"select distinct number from photos where number >= {int(total_photos)}"  # noqa: S608
        gaps = (
            f"with seen as (select -1 as number union all {seen} union all select {int(total_photos)}),"  # noqa: S608
            " ahead as (select number + 1 as first, lead(number) over (order by number) - 1 as last"
            " from seen) select first, last from ahead where last >= first order by first"
        )
        return Unaccounted(
            _numbers(self._all(gaps)),
            _numbers(_stretches(self._all(f"{doubled} order by number"))),
            _numbers(_stretches(self._all(f"{beyond} order by number"))),
        )

    def _photo(self, number: int, reference: str | None = None) -> PhotoRow:
        """The photo of that number. Should several rows have it, the one of that record."""
        query = f"select {_COLUMNS} from photos where number = ? order by reference = ? desc, photo limit 1"  # noqa: S608
        return _row(next(iter(self._all(query, number, reference))))

    def _all(self, query: str, *values: object) -> Iterator[Any]:
        """Rows of a query, while others are under way."""
        return iter(self._db.cursor().execute(query, values))


def summarise(outcomes: Iterable[PartOutcome]) -> LoadReport:
    """The report of these parts, in whatever order they come. Close it."""
    # Without a name the file is SQLite's own and gone with the process; what does not fit lies in TMPDIR.
    db = sqlite3.connect("", check_same_thread=False)
    try:
        db.executescript(_TABLES)
        for outcome in outcomes:
            _add(db, outcome)
        db.executescript(_SETTLED)
        find_same_pictures(db)
        return LoadReport(db)
    except BaseException:
        db.close()
        raise


def _add(db: sqlite3.Connection, outcome: PartOutcome) -> None:
    db.executemany(
        f"insert into photos values ({','.join('?' * 18)})",  # noqa: S608
        [
            (
                one.number,
                one.photo,
                one.reference,
                one.record_id,
                one.became,
                one.code,
                one.message,
                one.line,
                one.source,
                one.sha256,
                one.size,
                one.width,
                one.height,
                one.of,
                one.kept,
                len(one.face_ids),
                one.picture,
                one.milliseconds,
            )
            for one in outcome.photos
        ],
    )
    db.executemany(
        "insert into parts_records values (?, ?, ?, ?, ?)",
        [
            (one.record_id, one.reference, one.created, one.searchable, one.attributes_kept)
            for one in outcome.records
        ],
    )


def _row(values: Sequence[Any]) -> PhotoRow:
    given = dict(zip(_NAMES, values, strict=True))
    return PhotoRow(**{**given, "became": Became(given["became"]), "kept": bool(given["kept"])})


def _sums(db: sqlite3.Connection) -> Sums:
    def one(query: str) -> Sequence[Any]:
        found: Sequence[Any] = db.execute(query).fetchone()
        return found

    became = dict(db.execute("select became, count(*) from photos group by became"))
    photos, size, faces, milliseconds = one(
        "select count(*), total(bytes), total(faces), total(milliseconds) from photos"
    )
    records, created, searchable, kept = one(
        "select count(*), total(created), total(searchable), total(attributes_kept) from records"
    )
    codes = db.execute(
        "select code, count(*) from photos where became = ? group by code order by count(*) desc, code",
        (Became.REJECTED,),
    )
    return Sums(
        photos=photos,
        bytes=int(size),
        became={kind: became.get(kind, 0) for kind in Became},
        codes=dict(codes.fetchall()),
        faces=int(faces),
        records=records,
        created=int(created),
        searchable=int(searchable),
        attributes_kept=int(kept),
        without_face=one("select count(*) from faceless")[0],
        same_pictures=one("select count(*) from (select 1 from alike group by reference, one)")[0],
        doubles=one("select count(*) from doubles")[0],
        common=one("select count(distinct leader) from common")[0],
        milliseconds=milliseconds,
    )


def _stretches(numbers: Iterable[Sequence[int]]) -> Iterator[tuple[int, int]]:
    """Ascending numbers as first and last of each run of them."""
    first = last = None
    for (number,) in numbers:
        if first is None or last is None or number != last + 1:
            if first is not None and last is not None:
                yield first, last
            first = number
        last = number
    if first is not None and last is not None:
        yield first, last


def _numbers(stretches: Iterable[Sequence[int]]) -> Numbers:
    count = 0
    listed: list[tuple[int, int]] = []
    for first, last in stretches:
        count += last - first + 1
        if len(listed) < LISTED:
            listed.append((first, last))
    return Numbers(count, tuple(listed))
