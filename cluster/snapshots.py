"""Snapshots of the exact index beside the photos: a start reads them, and the changes since, in place of the
whole gallery.

A document holds one writer's slots of one group at one rev (`cluster.snapshot_format.Pack`). Snapshots only
ever save time: one that is missing, damaged or of no use is left out, and its slots come from the gallery.

No document keeps what was said of a deleted child. A pack is written without the records whose deletion the
change log has after its rev, and the log is read again after it was written, until there is no deletion that
it could contain: so a deletion is either seen by the writer, or its `forget` sees the document. A document
whose writer died between the two is found by `sweep`, and by the `SnapshotWriter` that starts in its place.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import numpy as np
import numpy.typing as npt

from catalogue.store import Catalogue
from cluster.snapshot_format import (
    GROUP_SLOTS,
    HEAD_BYTES,
    Pack,
    PackHead,
    check_model,
    decode,
    encode,
    read_head,
)
from cluster.snapshot_loading import AHEAD, Stored, choose, load
from homeward.errors import Corrupt, InvalidInput, NotFound, StoreUnavailable
from homeward.ids import check_id
from homeward.telemetry import Operation, emit
from index.columns import Bool, Columns, member
from index.placement import SLOTS, slot_of
from photos.documents import DocumentStore

_AREA = "snapshots/"
_THREADS = 8
_PAGE = 4096  # changes read at a time
_HALF_WRITTEN_S = 60.0
_LEFT = timedelta(days=1)

_logger = logging.getLogger(__name__)

Int64 = npt.NDArray[np.int64]


class Snapshots:
    """The snapshots of one model. Blocking; every method is thread-safe."""

    def __init__(self, documents: DocumentStore, catalogue: Catalogue, model_id: str, dimension: int) -> None:
        self._documents = documents
        self._catalogue = catalogue
        self._model_id = model_id
        self._dimension = dimension
        self._area = f"{_AREA}{hashlib.sha256(model_id.encode()).hexdigest()[:16]}/"
        self._writing = threading.Lock()

    def name(self, group: int, writer: str) -> str:
        """The document of one writer's slots of a group."""
        if "/" in writer:
            raise InvalidInput(f"no writer of snapshots is called {writer!r}", field="writer")
        return f"{self._area}{group:02d}/{writer}"

    def names(self) -> Sequence[str]:
        """All documents of this model, sorted."""
        return self._documents.list_documents(self._area)

    def stored(self) -> list[Stored]:
        """What there is of this model, as far as it can be read; the rest is logged and left out."""
        return [one for one in self._heads(self.names()) if self._is_mine(one)]

    def revs(self) -> Int64:
        """(SLOTS,) the highest rev at which there is a slot; -1 without one."""
        revs = np.full(SLOTS, -1, np.int64)
        for one in self.stored():
            revs[one.head.slots] = np.maximum(revs[one.head.slots], one.head.rev)
        return revs

    def write(self, pack: Pack, writer: str) -> None:
        """Write a pack, without records that were deleted since its rev; it replaces the writer's last one.

        Raises `InvalidInput` for another model's pack, one that contradicts itself, or a writer whose
        name no document can have; `StoreUnavailable` if a store does not answer."""
        if (pack.model_id, pack.dimension) != (self._model_id, self._dimension):
            raise InvalidInput(
                f"a pack of model {pack.model_id!r} among {self._model_id!r}", code="SNAPSHOT_INVALID"
            )
        with self._writing:
            self._put(self.name(pack.group, writer), pack)

    def read(self, group: int) -> list[Pack]:
        """All packs of a group that can be read, by writer. Raises `StoreUnavailable`."""
        names = self._documents.list_documents(self.name(group, ""))
        with ThreadPoolExecutor(AHEAD, thread_name_prefix="snapshot") as pool:
            return [pack for pack in pool.map(self._read, names) if pack is not None]

    def load(self, wanted: Bool) -> Iterator[tuple[Bool, int, Columns]]:
        """All rows of these slots (SLOTS,), as far as there are snapshots: slots, the rev they are of, and
        their rows, from which the changes after that rev lead to what is true now.

        Each slot comes once, from the pack with the highest rev that can be read. If the documents' store
        fails, those that came are all. At most four packs are in memory."""
        try:
            stored = self.stored()
            newest = self._catalogue.rev()  # a later pack is from before the catalogue was restored
            yield from load(choose(wanted, [one for one in stored if one.head.rev <= newest]), self._read)
        except StoreUnavailable as error:
            _logger.warning("the snapshots, or the rest of them, are not used: %s", error.message)

    def forget(self, record_ids: Iterable[str]) -> int:
        """Take deleted records out of every document, of other models too; how many were changed.

        To be called when the tombstones are committed. Then no document holds a template of theirs, apart
        from one that another process is writing at this very moment, which that process cleans. Of a record
        that was reinstated, what was written after that stays. A document that cannot be read is deleted:
        nobody can say what is in it. Raises `StoreUnavailable`; then it must be called again."""
        by_group: defaultdict[int, set[str]] = defaultdict(set)
        for record in record_ids:
            by_group[slot_of(check_id(record, "record_id")) // GROUP_SLOTS].add(record)
        if not by_group:
            return 0
        with self._writing:
            deleted = self._catalogue.deleted(set().union(*by_group.values()))
            changed = 0
            for name in self._documents.list_documents(_AREA):
                records = by_group.get(_group_of(name))
                if records:
                    changed += self._take_out(name, frozenset(records), deleted)
        return changed

    def drop(self) -> int:
        """Delete every document of this model; how many. Raises `StoreUnavailable`; then call it again."""
        with self._writing:
            return sum(self._documents.delete_document(name) for name in self.names())

    def sweep(self) -> int:
        """Find what crashes left in the documents of every model; how many were changed or removed.

        Deletions that a writer died before seeing are obeyed. What is of no use goes: documents that cannot
        be read, those from after the moment to which the catalogue was restored, and those that lack the
        changes of a day and are of another model, or have no slot that another document has not later (who
        writes them nevertheless does so again). Raises `StoreUnavailable`; then it must be called again."""
        changed = self._documents.sweep(_HALF_WRITTEN_S)
        names = self._documents.list_documents(_AREA)
        stored = self._heads(names)
        newest = self._catalogue.rev()
        by_model: defaultdict[str, list[Stored]] = defaultdict(list)
        for one in stored:
            if one.head.rev <= newest:
                by_model[one.head.model_id].append(one)
        useful: list[Stored] = []
        for model, some in by_model.items():
            mine = choose(np.ones(SLOTS, np.bool_), some) if model == self._model_id else ()
            loaded = {choice.stored.name for choice in mine}
            useful += [one for one in some if one.name in loaded or not self._is_left(one, newest)]
        for name in sorted(set(names) - {one.name for one in useful}):
            changed += self._documents.delete_document(name)
        gone, _ = self._deleted_since(min((one.head.rev for one in useful), default=newest))
        return changed + self.forget(gone)

    def _put(self, name: str, pack: Pack) -> None:
        seen = pack.rev
        written = False
        while True:
            gone, seen = self._deleted_since(seen)
            dead = member(pack.columns.record, gone)
            if written and not dead.any():
                return
            if dead.any():
                pack = replace(pack, columns=pack.columns.take(~dead))
            begun = time.perf_counter()
            self._documents.put_document(name, encode(pack))
            emit(Operation("snapshot write", "OK", time.perf_counter() - begun))
            written = True

    def _take_out(self, name: str, records: frozenset[str], deleted: frozenset[str]) -> int:
        slots = np.zeros(SLOTS, np.bool_)
        slots[[slot_of(record) for record in records]] = True
        try:
            if not (slots & _head(name, self._documents.get_document(name, HEAD_BYTES)).slots).any():
                return 0
            pack = decode(self._documents.get_document(name))
        except NotFound:
            return 0
        except Corrupt as error:
            _complain(name, error)
            return int(self._documents.delete_document(name))
        if not member(pack.columns.record, records).any():
            return 0
        since, _ = self._deleted_since(pack.rev)
        dead = member(pack.columns.record, records & (deleted | since))
        if not dead.any():
            return 0
        self._put(name, replace(pack, columns=pack.columns.take(~dead)))
        return 1

    def _is_left(self, one: Stored, newest: int) -> bool:
        """Whether its writer seems to be no more: it lacks the changes of a day."""
        missed = self._catalogue.changes_since(one.head.rev, 1)
        last = self._catalogue.changes_since(newest - 1, 1)
        return bool(missed and last) and last[0].at - missed[0].at > _LEFT

    def _deleted_since(self, rev: int) -> tuple[frozenset[str], int]:
        """Records with a deletion after `rev`, also of those that are back, and the rev read up to."""
        gone: set[str] = set()
        while changes := self._catalogue.changes_since(rev, _PAGE):
            gone.update(change.record_id for change in changes if change.deleted)
            rev = changes[-1].rev
        return frozenset(gone), rev

    def _read(self, name: str) -> Pack | None:
        """A pack of this model; None if it is gone or cannot be used, which is logged."""
        begun = time.perf_counter()
        try:
            data = self._documents.get_document(name)
            _head(name, data)
            pack = decode(data, self._model_id, self._dimension)
        except NotFound:
            return None
        except Corrupt as error:
            _complain(name, error)
            return None
        emit(Operation("snapshot read", "OK", time.perf_counter() - begun))
        return pack

    def _heads(self, names: Sequence[str]) -> list[Stored]:
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="snapshot") as pool:
            return [one for one in pool.map(self._stored, names) if one is not None]

    def _stored(self, name: str) -> Stored | None:
        try:
            head = _head(name, self._documents.get_document(name, HEAD_BYTES))
        except NotFound:
            return None
        except Corrupt as error:
            _complain(name, error)
            return None
        return Stored(name, name.rpartition("/")[2], head)

    def _is_mine(self, one: Stored) -> bool:
        try:
            check_model(one.head, self._model_id, self._dimension)
        except Corrupt as error:
            _complain(one.name, error)
            return False
        return True


def _head(name: str, data: bytes) -> PackHead:
    """What the document is. Raises `Corrupt`, also if it lies under another group's name."""
    head = read_head(data)
    if head.group != _group_of(name):
        raise Corrupt(
            f"a snapshot lies in the wrong place: it is of group {head.group}", code="SNAPSHOT_CORRUPT"
        )
    return head


def _group_of(name: str) -> int:
    """The group of a document; -1 if the name is none of ours."""
    parts = name.split("/")
    return int(parts[2]) if len(parts) == 4 and parts[2].isascii() and parts[2].isdigit() else -1


def _complain(name: str, error: Corrupt) -> None:
    _logger.error("%s: %s", name, error.message)
    emit(Operation("snapshot read", "DATA_LOSS", 0.0, reason=error.code))
