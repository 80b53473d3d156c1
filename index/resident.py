"""The resident index: every template in memory as float32, searched exactly by one matrix product.

Rows lie in blocks of fixed size that are only ever appended to; a search reads a `Snapshot`, whose
views end where the block ended when it was published. A delete replaces the block's liveness mask
(bytes, not templates) by a changed copy. So a write copies its own rows and little else, a search
never waits for a write, and sees each write whole or not at all.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from homeward.ids import check_id
from homeward.types import CandidateList, FaceRow, Query
from index.columns import Columns, Int32, UInt64, from_rows, hex_ids, id_words
from index.reference import check_query
from index.scan import scan
from index.score import check_templates
from index.snapshot import Block, Snapshot, gather

BLOCK_ROWS = 16_384


class ResidentIndex:
    """The exact index of one model's templates. Thread-safe; one writer at a time, any readers."""

    def __init__(self, dimension: int, *, rev: int = 0, block_rows: int = BLOCK_ROWS) -> None:
        self.dimension = dimension
        self._block_rows = block_rows
        self._writing = threading.Lock()
        self._blocks: dict[int, Block] = {}
        self._next_block = 0
        self._tail: Block | None = None
        self._place: dict[bytes, tuple[Block, int]] = {}  # face id -> where its live row is
        self._code_of: dict[bytes, int] = {}  # record id -> code
        self._record_of_code: list[bytes] = []
        self._rows_of_code: list[int] = []  # live rows of the record
        self._free_codes: list[int] = []
        self._snapshot = Snapshot((), 0, 0, 0, rev, dimension)

    @property
    def rows(self) -> int:
        """Live rows."""
        return self._snapshot.rows

    @property
    def records(self) -> int:
        """Records with a live row."""
        return self._snapshot.records

    @property
    def rev(self) -> int:
        """The catalogue's rev up to which its changes are contained."""
        return self._snapshot.rev

    def face_ids(self) -> set[str]:
        """Ids of all live rows, for comparing with the catalogue."""
        with self._writing:
            words = np.frombuffer(b"".join(self._place), np.uint64).reshape(-1, 2)
        return set(hex_ids(words))

    def record_rows(self, record_id: str) -> Columns:
        """Copies of the record's live rows, by face id; empty for a record without any."""
        wanted = id_words([check_id(record_id, "record_id")])[0]
        parts = []
        for segment in self._snapshot.segments:
            of_record = (segment.columns.record == wanted).all(axis=1)
            rows = np.flatnonzero(of_record if segment.live is None else of_record & segment.live)
            parts.append((segment, rows))
        columns, _ = gather(parts, self.dimension)
        return columns.take(np.lexsort((columns.face[:, 1], columns.face[:, 0])))

    def search(self, query: Query) -> CandidateList:
        """The certified candidate list: equal to the reference over the same rows; method "exact"."""
        return self.search_many([query])[0]

    def search_many(self, queries: Sequence[Query]) -> list[CandidateList]:
        """As `search` of each query, in order, sharing one scan over one state of the index.

        Raises `TemplateInvalid` or `InvalidInput` if any of the queries makes no sense: callers that
        batch strangers' queries check each with `check_query` beforehand.
        """
        snapshot = self._snapshot
        probes = [check_query(query, self.dimension) for query in queries]
        return scan(snapshot, queries, probes)

    def upsert(self, rows: Sequence[FaceRow], *, rev: int | None = None) -> None:
        """Add rows, or replace those of the same face id. Raises `TemplateInvalid` and changes nothing."""
        self.apply(upserts=from_rows(rows, self.dimension), rev=rev)

    def delete_faces(self, face_ids: Iterable[str], *, rev: int | None = None) -> int:
        """Take rows out; unknown ids are none. Returns how many there were."""
        return self.apply(delete_faces=face_ids, rev=rev)

    def delete_record(self, record_id: str, *, rev: int | None = None) -> int:
        """Take all rows of a record out. When it returns, no search begun later sees one."""
        return self.apply(delete_records=(record_id,), rev=rev)

    def replace_record(self, record_id: str, rows: Sequence[FaceRow], *, rev: int | None = None) -> None:
        """Make `rows` all the rows of the record; no search sees it without or with both."""
        self.apply(upserts=from_rows(rows, self.dimension), delete_records=(record_id,), rev=rev)

    def apply(
        self,
        *,
        upserts: Columns | None = None,
        delete_faces: Iterable[str] = (),
        delete_records: Iterable[str] = (),
        rev: int | None = None,
    ) -> int:
        """Deletes, then upserts, as one change that searches see whole. Returns the rows deleted.

        `rev` is the catalogue's rev that this change brings the index to; it never runs backwards.
        """
        faces = id_words([check_id(one, "face_id") for one in delete_faces])
        records = id_words([check_id(one, "record_id") for one in delete_records])
        if upserts is not None:
            check_templates(upserts.template, self.dimension)
        with self._writing:
            edit = _Edit()
            deleted = 0
            for key in _keys(records):
                deleted += self._delete_code(self._code_of.get(key), edit)
            for key in _keys(faces):
                deleted += self._delete_face(key, edit)
            if upserts is not None and len(upserts):
                self._append(upserts, edit)
            self._retire(edit)
            for block in list(edit.thinned):
                if block.alive * 2 < block.used == self._block_rows:
                    self._evacuate(block)
            self._publish(rev)
        return deleted

    def advance(self, rev: int) -> None:
        """Say that the index contains the catalogue's changes up to `rev` without changing rows."""
        self.apply(rev=rev)

    def _delete_face(self, key: bytes, edit: _Edit) -> int:
        place = self._place.pop(key, None)
        if place is None:
            return 0
        block, row = place
        if block not in edit.thinned:
            edit.thinned[block] = None
            block.live = block.live.copy()
        block.kill(row)
        code = int(block.codes[row])
        self._rows_of_code[code] -= 1
        if not self._rows_of_code[code]:
            edit.emptied.add(code)
        return 1

    def _delete_code(self, code: int | None, edit: _Edit) -> int:
        if code is None:
            return 0
        deleted = 0
        for block in self._blocks.values():
            rows = np.flatnonzero((block.codes[: block.used] == code) & block.live[: block.used])
            for key in _keys(block.columns.face[rows]):
                deleted += self._delete_face(key, edit)
        return deleted

    def _append(self, columns: Columns, edit: _Edit) -> None:
        last = {key: row for row, key in enumerate(_keys(columns.face))}  # of equal ids the last counts
        if len(last) < len(columns):
            columns = columns.take(np.array(sorted(last.values()), dtype=np.int64))
        keys = _keys(columns.face)
        for key in keys:
            self._delete_face(key, edit)
        codes = np.array([self._code(key) for key in _keys(columns.record)], dtype=np.int32)
        for code in codes.tolist():
            self._rows_of_code[code] += 1
        self._store(columns, codes, keys)

    def _store(self, columns: Columns, codes: Int32, keys: list[bytes]) -> None:
        start = 0
        while start < len(columns):
            tail = self._tail
            if tail is None or tail.used == self._block_rows:
                tail = self._tail = self._blocks[self._next_block] = Block(
                    self._next_block, self.dimension, self._block_rows
                )
                self._next_block += 1
            stop = min(len(columns), start + self._block_rows - tail.used)
            first = tail.append(columns.take(slice(start, stop)), codes[start:stop])
            for row in range(start, stop):
                self._place[keys[row]] = (tail, first + row - start)
            start = stop

    def _code(self, record: bytes) -> int:
        code = self._code_of.get(record)
        if code is None:
            if self._free_codes:
                code = self._free_codes.pop()
            else:
                code = len(self._rows_of_code)
                self._rows_of_code.append(0)
                self._record_of_code.append(record)
            self._code_of[record] = code
            self._record_of_code[code] = record
        return code

    def _retire(self, edit: _Edit) -> None:
        """Free the codes of records without a live row (not of those that came back in this edit)."""
        for code in sorted(edit.emptied):
            if not self._rows_of_code[code]:
                del self._code_of[self._record_of_code[code]]
                self._free_codes.append(code)

    def _evacuate(self, block: Block) -> None:
        """Move the rows of a block that is mostly dead to the tail, and let the block go."""
        rows = np.flatnonzero(block.live[: block.used])
        columns = block.columns.take(rows)
        del self._blocks[block.number]
        self._store(columns, block.codes[rows], _keys(columns.face))

    def _publish(self, rev: int | None) -> None:
        self._snapshot = Snapshot(
            segments=tuple(block.segment() for block in self._blocks.values() if block.used),
            codes=len(self._rows_of_code),
            rows=len(self._place),
            records=len(self._code_of),
            rev=self._snapshot.rev if rev is None else max(rev, self._snapshot.rev),
            dimension=self.dimension,
        )


@dataclass(slots=True)
class _Edit:
    """What one change has touched so far."""

    thinned: dict[Block, None] = field(default_factory=dict)  # blocks whose liveness was copied, in order
    emptied: set[int] = field(default_factory=set)  # codes that lost their last live row


def _keys(words: UInt64) -> list[bytes]:
    raw = np.ascontiguousarray(words).tobytes()
    return [raw[start : start + 16] for start in range(0, len(raw), 16)]
