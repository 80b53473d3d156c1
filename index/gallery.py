"""The Milvus gallery: the system of record for templates with their filter columns.

One collection per model: templates of different models never meet. Milvus Lite is one process's
folder and takes one call at a time; a server takes the same calls.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np

from homeward.errors import Corrupt
from homeward.ids import check_id
from homeward.types import CandidateList, FaceRow, Query
from index.columns import Columns, concatenate, from_rows, hex_ids
from index.fallback import search_milvus
from index.lite import LiteFolder
from index.milvus import Connection, check_collection, create_collection, entities, read_columns, translated
from index.score import check_templates

_WRITE_ROWS = 4_096  # of one call: far below the 64 MB that a message may have
_NAMED_IDS = 1_000  # of one expression
_READ_ROWS = 16_383  # Milvus answers one more at once, and one more tells that there are more
_FLUSH_S = 300.0  # a flush writes and indexes all that came since the last
# A server keeps the messages that carried a template for three days (rocksmq.retentionTimeInMinutes),
# and the files of what is compacted away for three hours (dataCoord.gc.dropTolerance), looked for every
# hour; these are its defaults, its operator may set others.
SERVER_KEEPS = timedelta(days=3, hours=5)

_ID_END = 1 << 128


@dataclass(frozen=True, slots=True)
class ErasureState:
    """Whether deleted templates are out of every file; if not, until when they may stay."""

    erased: bool
    pending_until: datetime | None = None


class MilvusGallery:
    """The rows of one model. Blocking and thread-safe; opened by `index.open.open_gallery`.

    A write has reached the disk when its call returns (Milvus Lite: the write-ahead log is synced), and
    every later read sees it. All methods raise `StoreUnavailable` when Milvus does not answer.
    """

    def __init__(self, connection: Connection, base: str, model_id: str, dimension: int) -> None:
        self._connection = connection
        self._base = base
        self._description = f"Homeward, {dimension}-d templates of model {model_id}"
        self._dimension = dimension
        self._timeout_s = connection.timeout_s
        self._fields: dict[str, Any]
        # A folder's galleries of one model take turns: a rewrite concerns all that are open.
        self._writing = threading.Lock() if connection.lite is None else connection.lite.turn_of(base)
        with self._writing, translated("opening the collection"), connection.guard():
            if connection.lite is not None:
                connection.lite.recover(base)
            create_collection(connection, self._collection, dimension, self._description)
            self._fields = check_collection(connection, self._collection, dimension)
        described = str(self._fields["description"])
        if described not in ("", self._description):  # Lite keeps no description
            raise Corrupt(f"collection {base} is of another model: {described!r}; name another prefix")

    @property
    def _collection(self) -> str:
        """The collection in use."""
        lite = self._connection.lite
        return self._base if lite is None else lite.in_use(self._base)

    def upsert(self, rows: Sequence[FaceRow] | Columns) -> None:
        """Add rows, or replace those of the same face id (of several in one call, the last counts).

        Raises `TemplateInvalid` or `InvalidInput`, and writes nothing, when any row is not fit to keep.
        """
        columns = self._checked(rows)
        with self._writing, translated("writing templates"):
            self._put(self._collection, columns, self._connection.client._get_connection().upsert)
            self._settle()

    def insert_new(self, rows: Sequence[FaceRow] | Columns) -> None:
        """Add rows whose face ids are surely not there yet: faster than `upsert`, but doubles what is."""
        columns = self._checked(rows)
        with self._writing, translated("writing templates"):
            self._put(self._collection, columns, self._connection.client._get_connection().batch_insert)
            self._settle()

    def delete(self, face_ids: Sequence[str]) -> None:
        """Remove rows; unknown ids are none."""
        ids = [check_id(one, "face_id") for one in face_ids]
        with self._writing, translated("deleting templates"):
            self._delete(ids)
            self._settle()

    def delete_record(self, record_id: str) -> int:
        """Remove all rows of a record; how many there were. `delete` is faster where ids are known."""
        with self._writing:
            ids = hex_ids(self.of_records([record_id]).face)
            with translated("deleting templates"):
                self._delete(ids)
                self._settle()
        return len(ids)

    def get(self, face_ids: Sequence[str]) -> Columns:
        """The rows of these faces, those that there are, in no particular order."""
        ids = [check_id(one, "face_id") for one in face_ids]
        with translated("reading templates"):
            parts = [
                self._read(f"face_id in [{_quoted(ids[start : start + _NAMED_IDS])}]")
                for start in range(0, len(ids), _NAMED_IDS)
            ]
        return concatenate(parts, self._dimension)

    def of_records(self, record_ids: Sequence[str]) -> Columns:
        """All rows of these records."""
        ids = [check_id(one, "record_id") for one in record_ids]
        parts: list[Columns] = []
        for start in range(0, len(ids), _NAMED_IDS):
            named = f"record_id in [{_quoted(ids[start : start + _NAMED_IDS])}]"
            parts += self._pages(named, [(0, _ID_END)], _READ_ROWS)
        return concatenate(parts, self._dimension)

    def iterate(self, batch: int = 8_192, *, where: str = "") -> Iterator[Columns]:
        """All rows (that an expression of `index.fallback` lets through) in face id order, up to `batch` at
        a time. Rows there all the while come once; rows written or deleted meanwhile may come or not."""
        limit = min(batch, _READ_ROWS)
        # Hashed ids spread evenly: ranges that expect two thirds of a page rarely need cutting again.
        count = self.matching(where) if where else self.count()
        pieces = max(1, 3 * count // (2 * limit) + 1)
        edges = [_ID_END * piece // pieces for piece in range(pieces + 1)]
        yield from self._pages(where, list(pairwise(edges)), limit)

    def count(self) -> int:
        """How many rows there are."""
        with translated("counting templates"), self._connection.guard():
            return self._count(self._collection)

    def matching(self, where: str) -> int:
        """How many rows an expression of `index.fallback` lets through."""
        with translated("counting templates"), self._connection.guard():
            return self._count(self._collection, where)

    def search(self, query: Query, *, rev: int = 0) -> CandidateList:
        """The exact list, found by Milvus and scored by the one function; method "milvus".

        Slower than the resident index: for slots without one, and for checking it.
        """
        return search_milvus(self, query, rev=rev)

    def nearest(self, query: Query, where: str, limit: int) -> list[dict[str, tuple[str, float]]]:
        """Per probe template, up to `limit` rows by Milvus's own product: face id to record id and product.

        `where` is an expression of `index.fallback`.
        """
        with translated("searching"), self._connection.guard():
            answers = self._connection.client.search(
                self._collection,
                data=[template.tolist() for template in query.templates],
                anns_field="template",
                filter=where,
                limit=limit,
                output_fields=["face_id", "record_id"],  # a 2.3 server does not name the primary key
                search_params={"metric_type": "IP"},
                consistency_level="Strong",
                timeout=self._timeout_s,
            )
        return [
            {
                str(hit["entity"]["face_id"]): (str(hit["entity"]["record_id"]), float(hit["distance"]))
                for hit in hits
            }
            for hits in answers
        ]

    def flush(self) -> None:
        """Seal what was written: after bulk writes, never on the search path."""
        with self._writing, translated("flushing"):
            self._flush(self._collection)

    def erase(self) -> ErasureState:
        """Make sure that no deleted template stays in a file; writes wait meanwhile, reads do not.

        Milvus Lite keeps deleted rows in its files even after compaction, so the live rows are copied
        to a new collection and every file of the old one is removed. A server does this in its own
        time: the answer says until when, by its default settings.
        """
        lite = self._connection.lite
        with self._writing, translated("rewriting the gallery"):
            if lite is not None:
                self._rewrite(lite)
                return ErasureState(True)
            self._flush(self._collection)
            self._connection.client.compact(self._collection, timeout=self._timeout_s)
        return ErasureState(False, datetime.now(UTC) + SERVER_KEEPS)

    def close(self) -> None:
        """Let the connection, or the folder, go."""
        with self._writing, translated("closing"):
            self._connection.close()

    def _rewrite(self, lite: LiteFolder) -> None:
        """Copy, make durable, switch, remove: at every moment one whole collection is in use."""
        old, new = self._collection, lite.next_name(self._base)
        with lite.guard():
            lite.remove(new)
            create_collection(self._connection, new, self._dimension, self._description)
        copied = 0
        for columns in self.iterate(_READ_ROWS):
            self._put(new, columns, self._connection.client._get_connection().batch_insert)
            copied += len(columns)
        self._flush(new)
        if not copied == self._count(new) == self._count(old):
            with lite.guard():
                lite.remove(new)
            raise Corrupt(f"the rewrite copied {copied} of {self.count()} templates; nothing was changed")
        with lite.guard():
            lite.use(self._base, new)
            lite.remove(old)

    def _checked(self, rows: Sequence[FaceRow] | Columns) -> Columns:
        columns = rows if isinstance(rows, Columns) else from_rows(rows, self._dimension)
        check_templates(columns.template, self._dimension)
        # A server keeps both of two rows with one id in one call.
        last = {face: row for row, face in enumerate(hex_ids(columns.face))}
        if len(last) < len(columns):
            columns = columns.take(np.array(sorted(last.values()), dtype=np.int64))
        return columns

    def _put(self, collection: str, columns: Columns, write: Callable[..., object]) -> None:
        for start in range(0, len(columns), _WRITE_ROWS):
            part = entities(columns.take(slice(start, start + _WRITE_ROWS)))
            with self._connection.guard():
                write(collection, part, timeout=self._timeout_s, schema=self._fields)

    def _delete(self, ids: Sequence[str]) -> None:
        for start in range(0, len(ids), _NAMED_IDS):
            with self._connection.guard():
                self._connection.client.delete(
                    self._collection, ids=list(ids[start : start + _NAMED_IDS]), timeout=self._timeout_s
                )

    def _settle(self) -> None:
        """What was written stays written, even when the power fails."""
        if self._connection.lite is not None:
            self._connection.lite.sync_writes(self._collection)

    def _flush(self, collection: str) -> None:
        with self._connection.guard():
            self._connection.client.flush(collection, timeout=max(self._timeout_s, _FLUSH_S))
        if self._connection.lite is not None:
            self._connection.lite.sync_files(collection)

    def _count(self, collection: str, where: str = "") -> int:
        with self._connection.guard():
            answer = self._connection.client.query(
                collection,
                filter=where,
                output_fields=["count(*)"],
                consistency_level="Strong",
                timeout=self._timeout_s,
            )
        return int(answer[0]["count(*)"])

    def _read(self, where: str, limit: int | None = None) -> Columns:
        with self._connection.guard():  # a rewrite changes the collection in use
            return read_columns(self._connection, self._collection, where, self._dimension, limit)

    def _pages(self, where: str, ranges: list[tuple[int, int]], limit: int) -> Iterator[Columns]:
        """Rows by ranges [low, high) of face id, halved until each range's rows fit in one answer.

        Milvus neither sorts nor pages beyond 16,384 rows.
        """
        waiting = ranges[::-1]
        while waiting:
            low, high = waiting.pop()
            bounds = f'face_id >= "{low:032x}"'
            if high < _ID_END:
                bounds += f' and face_id < "{high:032x}"'
            with translated("reading templates"):
                rows = self._read(f"{where} and {bounds}" if where else bounds, limit + 1)
            if len(rows) > limit:
                middle = (low + high) // 2
                waiting += [(middle, high), (low, middle)]
            elif rows:
                yield rows.take(np.lexsort((rows.face[:, 1], rows.face[:, 0])))


def _quoted(ids: Sequence[str]) -> str:
    return ", ".join(f'"{one}"' for one in ids)
