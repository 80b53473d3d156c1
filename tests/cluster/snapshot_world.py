"""A small gallery with a real catalogue, a real shard and documents in a folder, for tests of snapshots."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import numpy as np

from catalogue.open import FILE, open_catalogue
from catalogue.store import Catalogue
from catalogue.types import Deletion
from cluster.follow import Follower
from cluster.gallery_rows import GalleryRows
from cluster.snapshot_format import GROUP_SLOTS, Pack, group_slots
from cluster.snapshot_writer import SnapshotWriter
from cluster.snapshots import Snapshots
from homeward.config import CatalogueSettings, IndexSettings
from homeward.types import Candidate, FaceRow, Float32, Query
from index.columns import Bool, Columns, concatenate, empty, from_rows
from index.placement import SLOTS, slot_of, slots_of
from index.shard import Shard
from index.synthetic import unit_rows
from photos.documents import DocumentStore
from photos.folder_documents import FolderDocuments
from tests.catalogue.builders import MODEL, done, rid, write
from tests.cluster.leftovers import files_with_template
from tests.index.rows import face_row

DIMENSION = 16
ALL: Bool = np.ones(SLOTS, np.bool_)


@dataclass
class ManualClock:
    """Time as the test says."""

    at: float = 1000.0

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.at, UTC)

    def monotonic(self) -> float:
        return self.at


class Documents:
    """The documents of another store, with something happening before or after each is written."""

    def __init__(self, inner: DocumentStore) -> None:
        self.inner = inner
        self.before: Callable[[str], None] = lambda name: None
        self.after: Callable[[str], None] = lambda name: None
        self.read: list[str] = []  # names of documents that were read to their end

    def put_document(self, name: str, data: bytes) -> None:
        self.before(name)
        self.inner.put_document(name, data)
        self.after(name)

    def get_document(self, name: str, limit: int | None = None) -> bytes:
        if limit is None:
            self.read.append(name)
        return self.inner.get_document(name, limit)

    def list_documents(self, prefix: str = "") -> Sequence[str]:
        return self.inner.list_documents(prefix)

    def delete_document(self, name: str) -> bool:
        return self.inner.delete_document(name)

    def sweep(self, older_than_s: float = 3600.0) -> int:
        return self.inner.sweep(older_than_s)


@dataclass
class SnapshotWorld:
    """Enrols and deletes as a server does: in the catalogue, then in the index."""

    folder: Path
    catalogue: Catalogue
    documents: Documents
    index: Shard
    rows: dict[str, list[FaceRow]] = field(default_factory=dict)  # by record: what the gallery has
    numbers: Iterator[int] = field(default_factory=count)
    clock: ManualClock = field(default_factory=ManualClock)
    chance: np.random.Generator = field(default_factory=lambda: np.random.default_rng(7))

    def snapshots(self, model_id: str = MODEL) -> Snapshots:
        return Snapshots(self.documents, self.catalogue, model_id, DIMENSION)

    def enrol(self, reference: str, faces: int = 2, *, reinstate: bool = False) -> str:
        """Write a record anew with that many faces; its id."""
        record = rid(reference)
        number = next(self.numbers)
        result = done(
            self.catalogue.apply([write(reference, {f"photo{number}": faces}, reinstate=reinstate)])[0]
        )
        templates = unit_rows(self.chance.standard_normal((faces, DIMENSION)) + 1.0)
        self.rows[record] = [
            replace(face_row(record, number, ordinal, template), record_id=record)
            for ordinal, template in enumerate(templates)
        ]
        self.index.replace_record(record, self.rows[record], rev=result.rev)
        return record

    def enrol_in(self, group: int, faces: int = 2) -> str:
        """Enrol a record whose slot is in a group."""
        return self.enrol(next(name for name in self.names() if group_of(rid(name)) == group), faces)

    def names(self) -> Iterator[str]:
        return (f"child{next(self.numbers)}" for _ in count())

    def bury(self, record: str) -> Float32:
        """Delete a record in the catalogue alone; the template that must be nowhere."""
        self.catalogue.delete(Deletion(record, "resolved", "officer 7"))
        return self.rows.pop(record)[0].template

    def delete(self, record: str) -> Float32:
        """Delete a record in catalogue and index."""
        template = self.bury(record)
        self.index.delete_record(record, rev=self.catalogue.rev())
        return template

    def pack(self, group: int, slots: Bool | None = None, model_id: str = MODEL) -> Pack:
        """What the index has now of some slots of a group, all by default."""
        mask = np.zeros(SLOTS, np.bool_)
        mask[group_slots(group)] = True
        mask &= ALL if slots is None else slots
        rev = self.index.rev
        columns = concatenate(list(self.index.pages(mask)), DIMENSION)
        return Pack(group, mask, rev, columns, model_id, DIMENSION)

    def writer(
        self,
        name: str = "server",
        *,
        held: Callable[[], Bool] = lambda: ALL,
        clock: ManualClock | None = None,
        share: Callable[[], Bool] | None = None,
        **settings: float,
    ) -> SnapshotWriter:
        return SnapshotWriter(
            self.snapshots(),
            self.index,
            self.catalogue,
            held,
            name,
            model_id=MODEL,
            settings=IndexSettings(**settings),
            clock=clock or self.clock,
            share=share,
        )

    def files_with(self, template: Float32) -> set[Path]:
        """Files below the documents' store that hold the template."""
        while True:
            try:
                return files_with_template(self.folder / "photos", template)
            except FileNotFoundError:  # a file that was being written has got its name meanwhile
                continue

    def follower(self, index: Shard, snapshots: Snapshots) -> tuple[Follower, Gallery]:
        """Who fills an index as a starting process does, and the gallery it takes the rest from."""
        gallery = Gallery(self)
        return Follower(self.catalogue, cast("GalleryRows", gallery), index, snapshots), gallery


class Gallery:
    """The gallery's rows that the catalogue says there are."""

    def __init__(self, world: SnapshotWorld) -> None:
        self._world = world
        self.dimension = DIMENSION
        self.asked: Bool = np.zeros(SLOTS, np.bool_)  # of which slots all rows were read
        self.records: set[str] = set()  # whose rows were read

    def of_slots(self, wanted: Bool) -> Iterator[Columns]:
        self.asked = self.asked | wanted
        rows = [row for rows in self._world.rows.values() for row in rows if wanted[slot_of(row.record_id)]]
        yield from_rows(rows, DIMENSION)

    def current(self, record_ids: Iterable[str]) -> Columns:
        found = list(record_ids)
        self.records.update(found)
        rows = [row for record in found for row in self._world.rows.get(record, ())]
        return from_rows(rows, DIMENSION) if rows else empty(DIMENSION)


@cache
def migrated() -> bytes:
    """The file of a catalogue with tables and nothing in them."""
    with TemporaryDirectory() as folder:
        open_catalogue(CatalogueSettings(), Path(folder)).close()
        return Path(folder, FILE).read_bytes()


def open_world(folder: Path) -> SnapshotWorld:
    """An empty one."""
    (folder / FILE).write_bytes(migrated())
    clock = ManualClock()
    return SnapshotWorld(
        folder,
        open_catalogue(CatalogueSettings(), folder, clock=clock),
        Documents(FolderDocuments(folder / "photos")),
        Shard(DIMENSION, block_rows=256),
        clock=clock,
    )


def group_of(record: str) -> int:
    """The group of a record's slot."""
    return slot_of(record) // GROUP_SLOTS


def slots_found(columns: Columns) -> set[int]:
    """The slots that have rows."""
    return set(slots_of(columns.record).tolist())


def answers(index: Shard, seed: int = 1) -> list[tuple[Candidate, ...]]:
    """What some searches of an index find, evidence and scores among it."""
    probes = unit_rows(np.random.default_rng(seed).standard_normal((8, DIMENSION)) + 1.0)
    queries = [Query(probe[np.newaxis], k=50) for probe in probes]
    return [found.candidates for found in index.search_many(queries)]
