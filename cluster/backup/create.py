"""Makes a backup: one state of the catalogue, and everything in the other stores that it speaks of.

Servers go on meanwhile. The tables are copied in one transaction; what templates, photos and documents they
need is read from the copy, without one. What a store no longer has then went with its record, or is missing:
the catalogue of now tells which. What was deleted before the end is noted, and deleted again by a restore.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import pyarrow as pa

from catalogue.restoring import UNFINISHED, Gone
from catalogue.snapshot import KEPT
from catalogue.tables import faces, load_parts, loads, meta, photos, record_photos
from cluster.backup import columns
from cluster.backup.key import BackupKey
from cluster.backup.manifest import (
    Head,
    Manifest,
    Missing,
    Model,
    Piece,
    new_head,
    read_head,
    write_head,
    write_manifest,
)
from cluster.backup.place import clear, pieces_of
from cluster.backup.sealing import Sealer
from cluster.backup.stores import Stores
from cluster.erasing import REWRITE_DUE
from homeward.clock import Clock, SystemClock
from homeward.errors import Conflict, Corrupt, NotFound
from index.columns import hex_ids
from photos.documents import DocumentStore

Progress = Callable[[str, int, int], object]  # of what, done, of how many

# Settings that belong to processes, or to the files of this system.
_NOT_KEPT = (
    *("shard_map/", "shard_entry/", "shard_leaving/", "embedding_worker/", "upgrade_server/"),
    REWRITE_DUE,
)
_READERS = 8
_AHEAD = 64  # photos that are read at a time, if they are not too large
_PAGE = 4096  # changes
_FACES = 1000


def create(
    stores: Stores,
    place: DocumentStore,
    key: BackupKey,
    progress: Progress = lambda *_: None,
    *,
    clock: Clock | None = None,
) -> Manifest:
    """Make a backup in a place that has none; what one that died has left there goes.

    Raises `Conflict` (BACKUP_EXISTS, BACKUP_TAKEN_OVER) and what the stores raise: then there is none."""
    now = (clock or SystemClock()).now()
    clear(place)
    head = new_head(key)
    write_head(place, head)
    sealer = Sealer(key, head.backup)
    manifest = _Making(stores, place, head, sealer, progress).make(now)
    if read_head(place) != head:
        raise _taken_over()
    write_manifest(place, sealer, manifest)
    return manifest


class _Making:
    """One backup in the making."""

    def __init__(
        self, stores: Stores, place: DocumentStore, head: Head, sealer: Sealer, progress: Progress
    ) -> None:
        self._stores = stores
        self._place = place
        self._area = pieces_of(head)
        self._sealer = sealer
        self._progress = progress
        self._most = stores.settings.backup.piece_bytes
        self._pieces: list[Piece] = []
        self._rev = 0

    def make(self, now: datetime) -> Manifest:
        with self._stores.catalogue.snapshot() as snapshot:
            tables: dict[str, int] = {}
            for table in KEPT:
                rows = (columns.from_values(table, _kept(table.name, part)) for part in snapshot.rows(table))
                tables[table.name] = self._write(f"catalogue/{table.name}", rows, snapshot.count(table))
            named, schema = snapshot.models(), snapshot.schema
            self._rev = snapshot.rev
        found = [(one, self._stores.model(one)) for one in named]
        models = [model for _, model in found if model is not None]
        nowhere = [name for name, model in found if model is None]
        templates = sum(self._missing_faces(asked) for name in nowhere for asked in self._faces(name))
        for number, model in enumerate(models):
            templates += self._write_templates(number, model)
        missing = Missing(templates, self._write_photos(tables["photos"]), self._write_documents())
        return Manifest(
            version=importlib.metadata.version("homeward"),
            schema=schema,
            created_at=now,
            rev=self._rev,
            tables=tables,
            models=models,
            missing=missing,
            gone=self._gone(),
            pieces=self._pieces,
        )

    def _write(self, kind: str, parts: Iterator[pa.Table], total: int) -> int:
        done = 0
        for rows in columns.gathered(parts, self._most):
            if not len(rows):
                continue
            name = f"{self._area}{len(self._pieces):07d}"
            sealed = self._sealer.seal(name, columns.to_parquet(rows))
            self._place.put_document(name, sealed)
            digest = hashlib.sha256(sealed).hexdigest()
            self._pieces.append(Piece(name, kind, len(rows), len(sealed), digest))
            done += len(rows)
            self._progress(kind, done, max(done, total))
        return done

    def _written(self, table: str) -> Iterator[pa.Table]:
        """What was copied of a table."""
        for piece in [piece for piece in self._pieces if piece.kind == f"catalogue/{table}"]:
            try:
                sealed = self._place.get_document(piece.name)
            except NotFound as error:
                raise _taken_over() from error
            yield columns.from_parquet(self._sealer.open(piece.name, sealed))

    def _faces(self, model_id: str) -> Iterator[dict[str, str]]:
        """Face rows of a model with their records, some at a time."""
        for rows in self._written(faces.name):
            named = (rows[name].to_pylist() for name in ("face_id", "record_id", "model_id"))
            found = [(face, record) for face, record, model in zip(*named, strict=True) if model == model_id]
            for start in range(0, len(found), _FACES):
                yield dict(found[start : start + _FACES])

    def _undeleted(self, records: Iterable[str]) -> set[str]:
        """Those of the snapshot's records that were not deleted since."""
        found = self._stores.catalogue.get_many(records)
        return {record for record, one in found.items() if one.created_rev <= self._rev}

    def _missing_faces(self, absent: dict[str, str]) -> int:
        alive = self._undeleted(set(absent.values()))
        return sum(record in alive for record in absent.values())

    def _write_templates(self, number: int, model: Model) -> int:
        """How many are missing."""
        missing = 0

        def read() -> Iterator[pa.Table]:
            nonlocal missing
            for asked in self._faces(model.model_id):
                rows = gallery.get(list(asked))
                there = hex_ids(rows.face)
                absent = asked.keys() - set(there)
                missing += self._missing_faces({face: asked[face] for face in absent})
                yield columns.from_templates(there, rows.template)

        total = sum(len(asked) for asked in self._faces(model.model_id))
        with self._stores.gallery(model) as gallery:
            self._write(f"templates/{number}", read(), total)
        return missing

    def _write_photos(self, total: int) -> int:
        """How many are missing."""
        absent: set[tuple[str, str]] = set()

        def read(named: tuple[str, str]) -> bytes | None:
            try:
                return self._stores.photos.get(*named)
            except (NotFound, Corrupt):
                return None

        def read_all() -> Iterator[pa.Table]:
            for named in self._photos():
                content = dict(zip(named, pool.map(read, named), strict=True))
                absent.update(photo for photo, data in content.items() if data is None)
                rows = [
                    {"agency": agency, "sha256": sha256, "content": data}
                    for (agency, sha256), data in content.items()
                    if data is not None
                ]
                yield pa.Table.from_pylist(rows, columns.PHOTOS)

        with ThreadPoolExecutor(_READERS, thread_name_prefix="photo") as pool:
            self._write("photos", read_all(), total)
        missing: set[tuple[str, str]] = set()
        for rows in self._written(record_photos.name) if absent else ():
            named = (rows[name].to_pylist() for name in ("record_id", "agency", "sha256"))
            held = [one for one in zip(*named, strict=True) if one[1:] in absent]
            alive = self._undeleted({record for record, _, _ in held})
            missing.update((agency, sha256) for record, agency, sha256 in held if record in alive)
        return len(missing)

    def _photos(self) -> Iterator[list[tuple[str, str]]]:
        """Photos to be read side by side: no more than fit into memory."""
        held: list[tuple[str, str]] = []
        size = 0
        for rows in self._written(photos.name):
            for agency, sha256, length in zip(
                *(rows[name].to_pylist() for name in ("agency", "sha256", "bytes")), strict=True
            ):
                held.append((agency, sha256))
                size += length
                if len(held) == _AHEAD or size >= self._most:
                    yield held
                    held, size = [], 0
        if held:
            yield held

    def _write_documents(self) -> int:
        """The outcome files of loads that have ended. Those of loads under way are made again with them."""
        lost = 0

        def read() -> Iterator[pa.Table]:
            nonlocal lost
            for load, part, name in self._outcomes():
                try:
                    content = self._stores.documents.get_document(name)
                except NotFound:
                    lost += self._stores.catalogue.loads.document_of(load, part) == name
                else:
                    yield pa.Table.from_pylist([{"name": name, "content": content}], columns.DOCUMENTS)

        self._write("documents", read(), 0)
        return lost

    def _outcomes(self) -> Iterator[tuple[str, int, str]]:
        ended: set[str] = set()
        for rows in self._written(loads.name):
            states = zip(rows["name"].to_pylist(), rows["state"].to_pylist(), strict=True)
            ended.update(name for name, state in states if state not in UNFINISHED)
        for rows in self._written(load_parts.name):
            named = (rows[name].to_pylist() for name in ("load", "part", "document"))
            yield from (one for one in zip(*named, strict=True) if one[0] in ended)

    def _gone(self) -> list[Gone]:
        """What was deleted, or taken back with its load, since the snapshot."""
        catalogue = self._stores.catalogue
        gone: dict[str, datetime] = {}
        rev = self._rev
        while changes := catalogue.changes_since(rev, _PAGE):
            gone |= {change.record_id: change.at for change in changes if change.deleted}
            rev = changes[-1].rev
        stones = catalogue.tombstones(gone)
        return [
            Gone(record, stones[record].at, stones[record].reason, stones[record].requester)
            if record in stones
            else Gone(record, at, "", "", tombstone=False)
            for record, at in sorted(gone.items())
        ]


def _taken_over() -> Conflict:
    return Conflict("another backup was begun in this place meanwhile", code="BACKUP_TAKEN_OVER")


def _kept(table: str, rows: Sequence[dict[str, object]]) -> list[dict[str, object]]:
    if table != meta.name:
        return list(rows)
    return [row for row in rows if not str(row["key"]).startswith(_NOT_KEPT)]
