"""The reading half of the catalogue."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime

import sqlalchemy as sa

from catalogue import coding, deleting, erasing, reading
from catalogue.checks import check_request_name
from catalogue.engine import Database
from catalogue.plan import check_same
from catalogue.rows import Values
from catalogue.showing import read_shown
from catalogue.sql import select_in
from catalogue.tables import counter, faces, intents, meta, requests
from catalogue.tokens import page_after, page_token
from catalogue.types import (
    Counts,
    FacePlace,
    Item,
    RecordPage,
    Request,
    RowColumns,
    ShownRecord,
    Store,
    StoredFace,
    StoredRecord,
    Tombstone,
)
from homeward.errors import HomewardError, InvalidInput, NotFound, RecordDeleted
from homeward.ids import check_id, check_sha256
from homeward.types import Attributes, Change, PhotoNote, RecordKey

_PAGE = 1000
_PAGE_MAX = 1000
_ALL = 2**31 - 1


class CatalogueReader:
    """What can be asked of a catalogue. Thread-safe; each call sees one state of the database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._coder = coding.Coder(database)

    def get(self, record_id: str) -> StoredRecord:
        """One record. `RecordDeleted` if it was deleted, `NotFound` if there never was one."""
        check_id(record_id, "record_id")
        with self._database.reading() as connection:
            found = reading.read_records(connection, [record_id])
            stone = None if found else deleting.tombstone_of(connection, record_id)
        if stone is not None:
            raise RecordDeleted("this record was deleted", record_id=record_id)
        if not found:
            raise NotFound("there is no such record", record_id=record_id)
        return found[record_id]

    def get_many(self, record_ids: Iterable[str]) -> dict[str, StoredRecord]:
        """Those of the records that exist, by id."""
        with self._database.reading() as connection:
            return reading.read_records(connection, record_ids)

    def list_records(
        self,
        *,
        agency: str | None = None,
        gallery: str | None = None,
        searchable: bool | None = None,
        token: str = "",
        page_size: int = 100,
    ) -> RecordPage:
        """One page of records, in record id order, with the token of the next.

        Tokens survive inserts and deletions between pages: no record that stays is skipped or
        repeated. `InvalidInput` for a token that was altered or belongs to other filters, and for a
        page size outside of 1..1000."""
        if not 1 <= page_size <= _PAGE_MAX:
            raise InvalidInput(f"a page has 1 to {_PAGE_MAX} records", field="page_size")
        filters = [agency, gallery, searchable]
        after = page_after(token, filters) if token else ""
        if any(text is not None and "\x00" in text for text in (agency, gallery)):
            return RecordPage((), "")
        with self._database.reading() as connection:
            found = reading.list_records(
                connection,
                agency=agency,
                gallery=gallery,
                searchable=searchable,
                after=after,
                limit=page_size + 1,
            )
        page = tuple(found[:page_size])
        more = len(found) > page_size
        return RecordPage(page, page_token(page[-1].record_id, filters) if more else "")

    def face(self, face_id: str) -> StoredFace:
        """One face row, or `NotFound`."""
        found = self.faces([check_id(face_id, "face_id")])
        if not found:
            raise NotFound("there is no such face", face_id=face_id)
        return found[face_id]

    def faces(self, face_ids: Iterable[str]) -> dict[str, StoredFace]:
        """Those of the face rows that exist, by id."""
        with self._database.reading() as connection:
            found = reading.read_faces(connection, faces.c.face_id, face_ids)
        return {face.face_id: face for face in found}

    def shown(self, face_ids: Iterable[str]) -> dict[str, ShownRecord]:
        """The records, by id, of those of the faces that exist, with these faces, in one query."""
        return self._database.read(lambda connection: read_shown(connection, face_ids))

    def faces_of(self, record_ids: Iterable[str]) -> list[StoredFace]:
        """All face rows of some records, in order of record, photo, model, ordinal."""
        with self._database.reading() as connection:
            return reading.read_faces(connection, faces.c.record_id, record_ids)

    def all_faces(self) -> Iterator[FacePlace]:
        """Every face row in face id order, read in pages: rows written meanwhile may be missing."""
        after = ""
        while True:
            with self._database.reading() as connection:
                page = reading.face_places(connection, after, _PAGE)
            yield from page
            if len(page) < _PAGE:
                return
            after = page[-1].face_id

    def agencies(self) -> list[str]:
        """Agencies that have records, sorted."""
        with self._database.reading() as connection:
            return sorted(reading.read_agencies(connection))

    def referenced_photos(self, agency: str) -> Iterator[str]:
        """The sha256 of every photo that a record of the agency refers to, ascending, in pages."""
        after = ""
        while True:
            with self._database.reading() as connection:
                page = reading.referenced_photos(connection, agency, after, _PAGE)
            yield from page
            if len(page) < _PAGE:
                return
            after = page[-1]

    def photo_referenced(self, agency: str, sha256: str) -> bool:
        """Whether a record of the agency refers to the photo. To remove one safely see `erase`."""
        item = Item(Store.PHOTOS, "", check_sha256(sha256, "sha256"), agency)
        with self._database.reading() as connection:
            return not erasing.without_live(connection, [item])

    def recall_many(self, wanted: Sequence[Request]) -> list[bytes | HomewardError | None]:
        """The response each request got before, None if it is new; in order, in one query per scope.

        An error is the result of its own request: `InvalidInput` for a name that can be none,
        `RequestIdReused` if the id named another request, `RecordDeleted` if the answer went with its
        record."""
        errors = [_name_error(request) for request in wanted]
        ids: dict[str, set[str]] = defaultdict(set)
        for request, error in zip(wanted, errors, strict=True):
            if error is None:
                ids[request.scope].add(request.request_id)
        found: dict[tuple[str, str], Values] = {}
        with self._database.reading() as connection:
            for scope, names in ids.items():
                query = sa.select(requests).where(requests.c.scope == scope)
                rows = select_in(connection, query, requests.c.request_id, names)
                found |= {(scope, row["request_id"]): row for row in rows}
        return [
            error or _recalled(found.get((request.scope, request.request_id)), request)
            for request, error in zip(wanted, errors, strict=True)
        ]

    def rev(self) -> int:
        """The rev of the latest committed write; 0 before the first."""
        with self._database.reading() as connection:
            return int(connection.execute(sa.select(counter.c.rev)).scalar_one())

    def changes_since(self, rev: int, limit: int = 1000) -> list[Change]:
        """Up to `limit` changes after `rev`, oldest first. A record may occur often."""
        with self._database.reading() as connection:
            return reading.read_changes(connection, rev, limit)

    def counts(self) -> Counts:
        """How much there is."""
        with self._database.reading() as connection:
            return reading.read_counts(connection)

    def tombstone(self, record_id: str) -> Tombstone | None:
        """What is left of a deleted record."""
        check_id(record_id, "record_id")
        with self._database.reading() as connection:
            return deleting.tombstone_of(connection, record_id)

    def deleted(self, record_ids: Iterable[str]) -> frozenset[str]:
        """Those of the records that have a tombstone: loads, snapshots and restores obey them."""
        with self._database.reading() as connection:
            return frozenset(reading.read_deleted(connection, record_ids))

    def tombstones(self, record_ids: Iterable[str]) -> dict[str, Tombstone]:
        """Those of the records that have a tombstone, with it."""
        with self._database.reading() as connection:
            return deleting.tombstones_of(connection, record_ids)

    def pending_erasures(
        self, store: Store | None = None, record_id: str | None = None, limit: int = _ALL
    ) -> list[Item]:
        """What must still go from the other stores, oldest first. To remove it see `erase`."""
        with self._database.reading() as connection:
            return erasing.pending(connection, store, record_id, limit)

    def intended(self, store: Store, before: datetime | None = None) -> frozenset[tuple[str, str]]:
        """(agency, item) of what writers are about to store now (that began before a time): no orphan, but
        not committed yet."""
        query = sa.select(intents.c.agency, intents.c.item).where(intents.c.store == store.value)
        if before is not None:
            query = query.where(intents.c.at < before)
        with self._database.reading() as connection:
            return frozenset((agency, item) for agency, item in connection.execute(query))

    def codes(self, kind: str, values: Iterable[str]) -> dict[str, int]:
        """The code of each value of a kind (`catalogue.coding`), new ones made; "" has 0."""
        return self._coder.codes(kind, values)

    def find_codes(self, kind: str, values: Iterable[str]) -> dict[str, int]:
        """The codes of those values that have one: for filters, which must not make any."""
        return self._coder.find(kind, values)

    def code_values(self, kind: str) -> dict[int, str]:
        """All codes of a kind with what they stand for."""
        return self._coder.values(kind)

    def columns(self, sources: Sequence[tuple[RecordKey, Attributes, PhotoNote, str]]) -> list[RowColumns]:
        """The gallery's filter columns for (key, attributes, photo's note, load), to be written."""
        return self._coder.columns(sources)

    def row_source(self, record_id: str) -> dict[str, RowColumns]:
        """The gallery's filter columns of each photo (sha256) of a committed record."""
        record = self.get(record_id)
        made = self._coder.columns(
            [(record.key, record.attributes, photo.note, photo.load) for photo in record.photos]
        )
        return {photo.sha256: columns for photo, columns in zip(record.photos, made, strict=True)}

    def shared_now(self) -> datetime:
        """The database's time, which all its processes share whatever their machines' clocks say."""
        if self._database.is_sqlite:  # a file of one machine
            return datetime.now(UTC)
        with self._database.reading() as connection:
            now: datetime = connection.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
        return now.astimezone(UTC)

    def list_meta(self, prefix: str) -> dict[str, str]:
        """All settings whose names begin so."""
        with self._database.reading() as connection:
            query = sa.select(meta.c.key, meta.c.value).where(meta.c.key.startswith(prefix, autoescape=True))
            return {str(key): str(value) for key, value in connection.execute(query)}

    def get_meta(self, key: str) -> str | None:
        """A setting that belongs to the data, such as the model id that is active."""
        with self._database.reading() as connection:
            found = connection.execute(sa.select(meta.c.value).where(meta.c.key == key)).scalar_one_or_none()
        return None if found is None else str(found)


def _name_error(request: Request) -> InvalidInput | None:
    try:
        check_request_name(request.request_id, request.scope)
    except InvalidInput as error:
        return error
    return None


def _recalled(row: Values | None, request: Request) -> bytes | HomewardError | None:
    if row is None:
        return None
    try:
        check_same(row, request.method, request.digest)
    except HomewardError as error:
        return error
    return bytes(row["response"])
