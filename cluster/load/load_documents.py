"""The documents of a load beside the photos: its parts while they wait, its outcomes when they are done."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import replace

from cluster.load.members import Member
from cluster.load.outcome_file import forget, read_outcome, write_outcome
from cluster.load.outcome_types import OTHER_VERSION, RECORD_DELETED, PartOutcome
from cluster.load.parts import read_part, write_part
from cluster.load.plan_types import Part, PlannedPhoto
from homeward.errors import Corrupt, NotFound
from homeward.ids import record_id
from photos.documents import DocumentStore

AREA = "loads"

_logger = logging.getLogger(__name__)


class LoadDocuments:
    """Parts and outcomes of the loads in one document store. Calls block; thread-safe, as the store is."""

    def __init__(self, documents: DocumentStore) -> None:
        self._documents = documents

    def put_part(self, load: str, fence: int, part: Part) -> None:
        """Keep what is to be loaded. Planners of different fences write different documents: one that was
        taken for dead cannot change what is loaded."""
        self._documents.put_document(_part_name(load, fence, part.number), write_part(part))

    def get_part(self, load: str, fence: int, part: int) -> Part:
        """What the planner of this fence has laid ready. Raises `NotFound` when it was done and cleared
        away."""
        return read_part(self._documents.get_document(_part_name(load, fence, part)))

    def drop_part(self, load: str, part: int) -> None:
        """The part is done: what it names is in its outcome."""
        for name in self._documents.list_documents(_parts(load, part)):
            self._documents.delete_document(name)

    def put_outcome(self, load: str, fence: int, outcome: PartOutcome) -> str:
        """Keep what became of a part; the document's name, for the ledger. Drivers of different fences write
        different documents: one that was taken for dead cannot replace what was committed since."""
        name = f"{_outcomes(load, outcome.part)}{fence}.parquet"
        self._documents.put_document(name, write_outcome(outcome))
        return name

    def get_outcome(self, name: str) -> PartOutcome:
        """What became of a part. Raises `Corrupt` or `NotFound`."""
        return read_outcome(self._documents.get_document(name))

    def drop(self, name: str) -> None:
        """Remove a document that does not count."""
        self._documents.delete_document(name)

    def sweep_outcomes(self, load: str, counted: Collection[str]) -> int:
        """Remove outcomes that no ledger names: what was written and never committed. How many."""
        stray = [
            name for name in self._documents.list_documents(f"{AREA}/{load}/outcomes/") if name not in counted
        ]
        for name in stray:
            self._documents.delete_document(name)
        return len(stray)

    def drop_parts(self, load: str, fence: int | None = None) -> int:
        """Remove all parts that still wait, or those of one planner alone; how many."""
        names = [
            name
            for name in self._documents.list_documents(f"{AREA}/{load}/parts/")
            if fence is None or name.endswith(_by(fence))
        ]
        for name in names:
            self._documents.delete_document(name)
        return len(names)

    def forget(self, load: str, part: int, record_ids: frozenset[str]) -> None:
        """Take deleted records out of everything that is kept of a part. A damaged document goes whole:
        nobody can say what it names. Raises `Corrupt` for one that another version wrote."""
        for name in self._documents.list_documents(_outcomes(load, part)):
            try:
                outcome = self.get_outcome(name)
            except NotFound:
                continue
            except Corrupt as error:
                self._drop_damaged(name, error)
                continue
            self._documents.put_document(name, write_outcome(forget(outcome, record_ids)))
        for name in self._documents.list_documents(_parts(load, part)):
            try:
                waiting = read_part(self._documents.get_document(name))
            except NotFound:
                continue
            except Corrupt as error:
                self._drop_damaged(name, error)
                continue
            self._documents.put_document(name, write_part(_without(waiting, record_ids)))

    def _drop_damaged(self, name: str, error: Corrupt) -> None:
        if error.code == OTHER_VERSION:  # whoever wrote it can also take them out
            raise error
        _logger.error("removed %s, which names deleted records and cannot be read: %s", name, error.message)
        self._documents.delete_document(name)


def _without(part: Part, record_ids: frozenset[str]) -> Part:
    photos = tuple(
        _nobody(photo) if photo.reference and record_id(part.key(photo.reference)) in record_ids else photo
        for photo in part.photos
    )
    return replace(part, photos=photos)


def _nobody(photo: PlannedPhoto) -> PlannedPhoto:
    return PlannedPhoto(photo.number, photo.source, Member("", 0), line=photo.line, code=RECORD_DELETED)


def _part_name(load: str, fence: int, part: int) -> str:
    return f"{_parts(load, part)}{_by(fence)[1:]}"


def _parts(load: str, part: int) -> str:
    return f"{AREA}/{load}/parts/{part:07d}."


def _by(fence: int) -> str:
    return f".{fence}.json"


def _outcomes(load: str, part: int) -> str:
    return f"{AREA}/{load}/outcomes/{part:07d}."
