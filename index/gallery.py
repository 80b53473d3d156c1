"""The Milvus gallery: the system of record for templates with their filter columns.

One collection per model: templates of different models never meet. Milvus Lite is one process's
file and wants its writes one after the other; a server takes the same calls.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from pymilvus import MilvusClient

from homeward.errors import Corrupt
from homeward.ids import check_id
from homeward.types import CandidateList, FaceRow, Query
from index.columns import INTEGER_COLUMNS, Columns, concatenate, from_rows
from index.fallback import search_milvus
from index.milvus import check_collection, create_collection, translated

_WRITE_ROWS = 1_000  # of one call: far below the 64 MB that a message may have
_READ_ROWS = 16_384  # Milvus answers no more at once
_STAGING = "_rewrite"  # suffix of a collection that is being rewritten
# How long Milvus keeps files of dropped collections and deleted rows, by its defaults
# (dataCoord.gc.dropTolerance 3 h, after compaction); a server's operator may set another.
SERVER_KEEPS = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class ErasureState:
    """Whether deleted templates are out of every file; if not, until when they may stay."""

    erased: bool
    pending_until: datetime | None = None


class MilvusGallery:
    """The rows of one model. Blocking and thread-safe; opened by `index.open.open_gallery`.

    A write is durable when its call returns (it survives kill -9), and every later read sees it.
    All methods raise `StoreUnavailable` when Milvus does not answer.
    """

    def __init__(
        self,
        client: MilvusClient,
        collection: str,
        model_id: str,
        dimension: int,
        *,
        lite: bool,
        timeout_s: float,
    ) -> None:
        self._client = client
        self._collection = collection
        self._model_id = model_id
        self._dimension = dimension
        self._lite = lite
        self._timeout_s = timeout_s
        self._writing = threading.Lock()
        with translated("opening the collection"):
            self._recover()

    def upsert(self, rows: Sequence[FaceRow]) -> None:
        """Add rows, or replace those of the same face id."""
        data = [_fields(row) for row in rows]
        with self._writing, translated("writing templates"):
            self._put(self._collection, data)

    def delete(self, face_ids: Sequence[str]) -> None:
        """Remove rows; unknown ids are none."""
        ids = [check_id(one, "face_id") for one in face_ids]
        with self._writing, translated("deleting templates"):
            for start in range(0, len(ids), _WRITE_ROWS):
                self._client.delete(
                    self._collection, ids=ids[start : start + _WRITE_ROWS], timeout=self._timeout_s
                )

    def delete_record(self, record_id: str) -> None:
        """Remove all rows of a record."""
        expression = f'record_id == "{check_id(record_id, "record_id")}"'
        with self._writing, translated("deleting templates"):
            self._client.delete(self._collection, filter=expression, timeout=self._timeout_s)

    def get(self, face_ids: Sequence[str]) -> Columns:
        """The rows of these faces, those that there are, in no particular order."""
        ids = [check_id(one, "face_id") for one in face_ids]
        found: list[FaceRow] = []
        with translated("reading templates"):
            for start in range(0, len(ids), _WRITE_ROWS):
                found += map(_row, self._read(ids=ids[start : start + _WRITE_ROWS]))
        return from_rows(found, self._dimension)

    def of_records(self, record_ids: Sequence[str]) -> Columns:
        """All rows of these records."""
        ids = [check_id(one, "record_id") for one in record_ids]
        parts = []
        for start in range(0, len(ids), 256):
            names = ", ".join(f'"{one}"' for one in ids[start : start + 256])
            parts += list(self._pages(f"record_id in [{names}]", _READ_ROWS))
        return concatenate(parts, self._dimension)

    def iterate(self, batch: int = 8_192) -> Iterator[Columns]:
        """All rows in face id order, up to `batch` at a time. Rows written meanwhile may be missing."""
        yield from self._pages("", min(batch, _READ_ROWS))

    def count(self) -> int:
        """How many rows there are."""
        with translated("counting templates"):
            answer = self._client.query(
                self._collection, filter="", output_fields=["count(*)"], timeout=self._timeout_s
            )
        return int(answer[0]["count(*)"])

    def search(self, query: Query, *, rev: int = 0) -> CandidateList:
        """The exact list, found by Milvus and scored by the one function; method "milvus".

        Slower than the resident index: for slots without one, and for checking it.
        """
        with translated("searching"):
            return search_milvus(self._client, self._collection, self, query, rev=rev)

    def flush(self) -> None:
        """Seal what was written: after bulk writes, never on the search path."""
        with self._writing, translated("flushing"):
            self._client.flush(self._collection, timeout=max(self._timeout_s, 300.0))

    def erase(self) -> ErasureState:
        """Make sure that no deleted template stays in a file; writes wait meanwhile.

        Milvus Lite keeps deleted rows in its files even after compaction, so the live rows are copied
        to a new collection and the old one is dropped, which removes its files. A server does this in
        its own time: the answer says until when, by its default settings.
        """
        if not self._lite:
            with self._writing, translated("compacting"):
                self._client.flush(self._collection, timeout=max(self._timeout_s, 300.0))
                self._client.compact(self._collection)
            return ErasureState(False, datetime.now(UTC) + SERVER_KEEPS)
        with self._writing, translated("rewriting the gallery"):
            self._rewrite()
        return ErasureState(True)

    def close(self) -> None:
        """Let the connection, or the file, go."""
        with self._writing, translated("closing"):
            self._client.close()

    def _recover(self) -> None:
        """Open the collection; finish or undo a rewrite that a crash interrupted.

        The old collection is dropped only once the new one is whole. So with both, the new one is the
        unfinished one; with the new one alone, only its name is missing.
        """
        staging = self._collection + _STAGING
        if self._client.has_collection(staging):
            if self._client.has_collection(self._collection):
                self._client.drop_collection(staging)
            else:
                self._client.rename_collection(staging, self._collection)
        if not self._client.has_collection(self._collection):
            create_collection(
                self._client, self._collection, self._dimension, f"Homeward, model {self._model_id}"
            )
        check_collection(self._client, self._collection, self._dimension)
        self._client.load_collection(self._collection)

    def _rewrite(self) -> None:
        staging = self._collection + _STAGING
        if self._client.has_collection(staging):
            self._client.drop_collection(staging)
        create_collection(self._client, staging, self._dimension, f"Homeward, model {self._model_id}")
        copied = 0
        for columns in self._pages("", 8_192):
            self._put(staging, [_fields(row) for row in columns.face_rows()])
            copied += len(columns)
        self._client.flush(staging)
        if copied != self.count():
            self._client.drop_collection(staging)
            raise Corrupt(f"the rewrite copied {copied} of {self.count()} templates; nothing was changed")
        self._client.drop_collection(self._collection)
        self._client.rename_collection(staging, self._collection)
        self._client.load_collection(self._collection)

    def _put(self, collection: str, data: list[dict[str, Any]]) -> None:
        for start in range(0, len(data), _WRITE_ROWS):
            self._client.upsert(collection, data[start : start + _WRITE_ROWS], timeout=self._timeout_s)

    def _read(self, **what: Any) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self._client.query(
            self._collection,
            output_fields=["*"],
            consistency_level="Strong",
            timeout=self._timeout_s,
            **what,
        )
        return rows

    def _pages(self, expression: str, batch: int) -> Iterator[Columns]:
        """Rows by ranges of face id, narrowed until each range fits in one answer.

        Milvus neither sorts nor pages beyond 16,384 rows; hashed ids spread evenly over ranges.
        """
        waiting = [(0, 1 << 128)]
        while waiting:
            low, high = waiting.pop()
            bounds = f'face_id >= "{low:032x}"'
            if high < 1 << 128:
                bounds += f' and face_id < "{high:032x}"'
            where = f"{expression} and {bounds}" if expression else bounds
            with translated("reading templates"):
                # The client's list fills its vectors in by position, lazily: it must not be sorted.
                rows = [_row(row) for row in self._read(filter=where, limit=batch)]
            if len(rows) >= batch:
                middle = (low + high) // 2
                waiting += [(middle, high), (low, middle)]
            elif rows:
                rows.sort(key=lambda row: row.face_id)
                yield from_rows(rows, self._dimension)


def collection_name(prefix: str, model_id: str) -> str:
    """The collection of one model."""
    return f"{prefix}_{hashlib.sha256(model_id.encode('utf-8')).hexdigest()[:16]}"


def _fields(row: FaceRow) -> dict[str, Any]:
    return {
        "face_id": row.face_id,
        "record_id": row.record_id,
        "photo_sha256": row.photo_sha256,
        "template": row.template,
        **{name: getattr(row, name) for name in INTEGER_COLUMNS},
    }


def _row(data: dict[str, Any]) -> FaceRow:
    return FaceRow(
        face_id=data["face_id"],
        record_id=data["record_id"],
        photo_sha256=data["photo_sha256"],
        template=np.asarray(data["template"], dtype=np.float32),
        **{name: int(data[name]) for name in INTEGER_COLUMNS},
    )
