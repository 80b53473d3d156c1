"""Answered searches over again, from the system of record: the reference over rows read from Milvus.

Which faces there are the catalogue says, so no orphan in Milvus is a row. Their rows are read by id, in
slices in the order of face ids, so a record's rows lie in any of them, and a slice is let go before the next
is read. A row whose score reaches what is kept so far sends its whole record to the reference: all its rows,
read from Milvus by id. So a kept candidate is final, evidence and all, the moment it is kept.

Why no record is lost: a candidate ranks by one of its rows. When the slice with that row comes, either its
score reaches the list, and the record is judged, or the list already holds as many as it can that rank
before it. Facts exclude row by row (`index.plausibility`): a row that they leave alone counts against the
plausible candidates, one that they exclude against plausible and implausible ones together, for an
implausible record concerns the answer only there; the reference decides which of the two a record is.
Memory holds one slice, one batch of records and the kept candidates, whatever the gallery's size.

Why only what did not change is compared: the answer is of its `rev`, Milvus of now. A record that the change
log names after that rev, or whose rows a writer has announced and not finished, is left out of both sides.
Writers announce rows before they write them and log the change before they take the notice down, so the
announced are read before the first slice, and after the last one before the log.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from catalogue.store import Catalogue
from catalogue.types import Store, StoredRecord
from cluster.best import Best
from homeward.types import Candidate, CandidateList, Float64, Implausible, Query
from index import plausibility
from index.columns import Columns, hex_ids
from index.filters import admits_all, admitted
from index.gallery import MilvusGallery
from index.merge import Partial, merge
from index.reference import partial
from index.score import score

MARGIN = 64  # candidates kept beyond k, to take the places of those that are left out
AT_ONCE = 256  # records judged at a time
_PAGE = 1000  # changes read at a time

Pause = Callable[[float], None]  # called after each slice with the seconds it took


@dataclass(frozen=True, slots=True)
class Recomputed:
    """What Milvus says of one query now, without the records that are left out."""

    candidates: tuple[Candidate, ...]  # at most k
    whole: bool  # False: more may follow the candidates, which of them is not known
    excluded: dict[Implausible, int] | None  # None: something changed, so it cannot be compared
    implausible: frozenset[str]  # records that `excluded` counts


class Recomputation:
    """The queries of one search. Blocking, for one thread.

    All methods raise `StoreUnavailable` when catalogue or Milvus does not answer.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        gallery: MilvusGallery,
        model_id: str,
        queries: Sequence[Query],
        served: Sequence[CandidateList],
    ) -> None:
        self._catalogue = catalogue
        self._gallery = gallery
        self._model_id = model_id
        self._rev = min(one.rev for one in served)
        self._lists = [
            _List(query, frozenset(each.record_id for each in one.candidates))
            for query, one in zip(queries, served, strict=True)
        ]
        self._announced: AbstractSet[str] = frozenset()
        self._quiet = True
        self._left_out: set[str] = set()
        self.rows_read = 0

    @property
    def left_out(self) -> AbstractSet[str]:
        """Records that reached a list, here or there, and changed after the answer's rev."""
        return self._left_out

    def read(self, slice_rows: int, pause: Pause) -> None:
        """Read every enrolled face's row once, `slice_rows` at a time."""
        self._announced = self._announced_faces()
        started = time.monotonic()
        for faces in self._slices(slice_rows):
            columns = self._gallery.get(faces)
            self.rows_read += len(columns)
            for one in self._lists:
                self._reach(one, columns)
            del columns
            pause(time.monotonic() - started)
            started = time.monotonic()
        self._settle()

    def read_again(self) -> None:
        """Judge anew every record that is kept here or was served: rows that a writer was changing, or had
        to change back, while they were read, are what they should be by then."""
        for one in self._lists:
            records = sorted(one.served | set(one.plain.records) | set(one.all.records))
            one.forget(records)
            for start in range(0, len(records), AT_ONCE):
                self._judge(one, records[start : start + AT_ONCE])
        self._settle()

    def results(self) -> list[Recomputed]:
        """Per query."""
        return [one.result(compare_excluded=self._quiet and not self._left_out) for one in self._lists]

    def _reach(self, one: _List, columns: Columns) -> None:
        """Judge the records of those rows that reach the list, best rows first."""
        query = one.query
        if not admits_all(query):
            columns = columns.take(admitted(query, columns))
        if not len(columns):
            return
        scores: Float64 = np.stack([score(columns.template, probe) for probe in query.templates]).max(axis=0)
        against = plausibility.reasons(query.facts, columns) != 0
        rows = np.flatnonzero(scores >= np.where(against, one.all.floor, one.plain.floor))
        if query.min_score is not None:
            rows = rows[scores[rows] >= query.min_score]
        rows = rows[np.argsort(-scores[rows], kind="stable")]
        known = {*one.plain.records, *one.all.records}
        batch: list[str] = []
        records = hex_ids(columns.record[rows])
        for record, reached, excluded in zip(records, scores[rows].tolist(), against[rows], strict=True):
            if record in known or not (one.all if excluded else one.plain).takes((-reached, record)):
                continue
            known.add(record)
            batch.append(record)
            if len(batch) == AT_ONCE:
                self._judge(one, batch)
                batch = []
        self._judge(one, batch)

    def _judge(self, one: _List, records: Sequence[str]) -> None:
        """Let the reference say what becomes of these records, from all their rows."""
        if not records:
            return
        stored = self._catalogue.get_many(records).values()
        changed = {record.record_id for record in stored if self._has_changed(record)}
        self._left_out |= changed
        faces = [
            face.face_id
            for record in stored
            if record.record_id not in changed
            for photo in record.photos
            for face in photo.faces
            if face.model_id == self._model_id
        ]
        part = partial(replace(one.query, k=len(records)), self._gallery.get(faces))
        for candidate in part.plausible:
            one.plain.add(candidate)
        for candidate in (*part.plausible, *part.implausible):
            one.all.add(candidate)

    def _has_changed(self, record: StoredRecord) -> bool:
        """What is known of it so far; the change log decides in the end. So a bulk load's new records do not
        crowd out those that are compared."""
        return record.updated_rev > self._rev or any(
            face.face_id in self._announced for photo in record.photos for face in photo.faces
        )

    def _settle(self) -> None:
        """Leave out what changed since the answer, up to now."""
        self._announced |= self._announced_faces()
        concerned = {
            record for one in self._lists for record in (*one.served, *one.plain.records, *one.all.records)
        }
        rev = self._rev
        while changes := self._catalogue.changes_since(rev, _PAGE):
            self._quiet = False
            self._left_out |= concerned & {change.record_id for change in changes}
            rev = changes[-1].rev
        if self._announced:
            self._quiet = False
            stored = self._catalogue.get_many(concerned)
            self._left_out |= {one.record_id for one in stored.values() if self._has_changed(one)}
        for one in self._lists:
            one.plain.drop(self._left_out)
            one.all.drop(self._left_out)

    def _slices(self, size: int) -> Iterator[list[str]]:
        """Ids of all faces of the model, so many at a time."""
        faces = (face.face_id for face in self._catalogue.all_faces() if face.model_id == self._model_id)
        while some := list(islice(faces, size)):
            yield some

    def _announced_faces(self) -> frozenset[str]:
        return frozenset(face for _, face in self._catalogue.intended(Store.GALLERY))


class _List:
    """One query's candidates so far."""

    def __init__(self, query: Query, served: frozenset[str]) -> None:
        self.query = query
        self.served = served
        self.plain = Best(query.k + MARGIN)  # plausible ones
        self.all = Best(query.k + MARGIN)  # and implausible ones

    def forget(self, records: Sequence[str]) -> None:
        """Drop what is to be judged anew."""
        self.plain.drop(records)
        self.all.drop(records)

    def result(self, *, compare_excluded: bool) -> Recomputed:
        """The list as far as it is known."""
        query = self.query
        listed = self.all if query.include_implausible else self.plain
        part = Partial(
            plausible=tuple(one for one in listed.ranked() if not one.implausible),
            implausible=tuple(one for one in self.all.ranked() if one.implausible),
            rows=0,
            records=0,
        )
        made = merge([part], query, rev=0, method="recomputed")
        return Recomputed(
            candidates=made.candidates,
            whole=listed.is_whole or len(made.candidates) == query.k,
            excluded=made.excluded if compare_excluded else None,
            implausible=frozenset(one.record_id for one in self.all.ranked()[: query.k] if one.implausible),
        )
