"""Restores a backup into an empty system.

The whole backup is verified before anything is written. Then the tables are written in one transaction, with
a mark that keeps everybody else out: until templates and photos are there too, the catalogue would promise
what no search can find. The mark says how far the restore is, and goes at its end.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

import pyarrow as pa
import sqlalchemy as sa

from catalogue.restoring import RESTORING
from catalogue.rows import Values
from catalogue.snapshot import KEPT
from cluster.backup import columns
from cluster.backup.create import Progress
from cluster.backup.stores import Stores
from cluster.backup.verify import Backup, photos_of
from homeward.errors import Conflict, NotSupported
from homeward.types import FaceRow, Float32
from index.gallery import MilvusGallery
from photos.documents import DocumentStore

_PUTTERS = 8
_AHEAD = 16  # photos that are written at a time
_FACES = 1000
_SNAPSHOTS = "snapshots/"


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore brought."""

    records: int
    photos: int
    faces: int
    tombstones: int
    deleted_again: int  # records of the backup that were deleted after its rev
    rev: int


def restore(
    backup: Backup, stores: Stores, model_id: str | None, progress: Progress = lambda *_: None
) -> Restored:
    """Restore, or go on with a restore of the same backup that was cut short.

    `model_id`: whose templates this system makes; None: any. Raises, before anything was changed, `Corrupt`
    (BACKUP_DAMAGED), `NotSupported` (BACKUP_SCHEMA, BACKUP_MODEL), `Conflict` (RESTORE_NOT_EMPTY,
    RESTORE_IN_USE, RESTORE_UNFINISHED), and what the stores raise: then run it again."""
    check_fits(backup, stores, model_id)
    done = _done_before(backup, stores)
    if done is None:
        stores.catalogue.check_empty()
        backup.verify(progress)
        tables = _tables(backup, progress)
        manifest = backup.manifest
        mark = _mark(backup, 0)
        stores.catalogue.restore(tables, rev=manifest.rev, gone=manifest.gone, mark=mark)
    _drop_snapshots(stores.documents)
    _Restoring(backup, stores, progress).restore(done or 0)
    stores.catalogue.drop_meta(RESTORING)
    counts = stores.catalogue.counts()
    return Restored(
        records=counts.records,
        photos=counts.photos,
        faces=counts.faces,
        tombstones=counts.tombstones,
        deleted_again=backup.manifest.tables["records"] - counts.records,
        rev=counts.rev,
    )


def check_fits(backup: Backup, stores: Stores, model_id: str | None) -> None:
    """Raise `NotSupported` unless this version and this model can use the backup."""
    manifest = backup.manifest
    with stores.catalogue.snapshot() as snapshot:
        schema = snapshot.schema
    if manifest.schema != schema or set(manifest.tables) != {table.name for table in KEPT}:
        raise NotSupported(
            f"this backup has the catalogue's tables of revision {manifest.schema}, this Homeward has "
            f"{schema}: restore it with version {manifest.version}, and upgrade then",
            code="BACKUP_SCHEMA",
        )
    models = [model.model_id for model in manifest.models]
    if models and model_id is not None and model_id not in models:
        raise NotSupported(
            f"this backup is of {' and '.join(models)}, and this system makes templates of {model_id}, which "
            "would find nobody in it: set workers.bundle to the model of the backup",
            code="BACKUP_MODEL",
        )


def _done_before(backup: Backup, stores: Stores) -> int | None:
    """How many pieces an earlier restore of this backup has finished; None if there was none."""
    noted = stores.catalogue.get_meta(RESTORING)
    if noted is None:
        return None
    state = json.loads(noted)
    if state["backup"] != backup.head.backup:
        raise Conflict(
            f"the restore of another backup ({state['backup']}) has not ended here: go on with that one, or "
            "empty this system",
            code="RESTORE_UNFINISHED",
        )
    return int(state["done"])


def _mark(backup: Backup, done: int) -> str:
    return json.dumps({"backup": backup.head.backup, "done": done})


def _tables(backup: Backup, progress: Progress) -> Iterator[tuple[sa.Table, list[Values]]]:
    total = sum(backup.manifest.tables.values())
    done = 0
    for table in KEPT:
        for piece in backup.kind(f"catalogue/{table.name}"):
            for part in backup.read(piece).to_batches(max_chunksize=_FACES):
                yield table, columns.to_values(table, pa.Table.from_batches([part]))
                done += len(part)
                progress("restore catalogue", done, total)


def _drop_snapshots(documents: DocumentStore) -> None:
    """The index's snapshots of what was here before would bring it back; they only save time."""
    for name in documents.list_documents(_SNAPSHOTS):
        documents.delete_document(name)


class _Restoring:
    """Everything beside the tables, piece by piece; each may be written again."""

    def __init__(self, backup: Backup, stores: Stores, progress: Progress) -> None:
        self._backup = backup
        self._stores = stores
        self._progress = progress

    def restore(self, done: int) -> None:
        pieces = [one for one in self._backup.manifest.pieces if not one.kind.startswith("catalogue/")]
        total = sum(piece.bytes for piece in pieces)
        size = sum(piece.bytes for piece in pieces[:done])
        for number, piece in enumerate(pieces[done:], done + 1):
            rows = self._backup.read(piece)
            kind, _, of = piece.kind.partition("/")
            if kind == "templates":
                self._templates(int(of), rows)
            elif kind == "photos":
                self._photos(rows)
            else:
                self._documents(rows)
            self._stores.catalogue.set_meta(RESTORING, _mark(self._backup, number))
            size += piece.bytes
            self._progress("restore templates and photos", size, total)

    def _templates(self, number: int, rows: pa.Table) -> None:
        model = self._backup.manifest.models[number]
        face_ids, templates = columns.to_templates(rows, model.dimension)
        with self._stores.gallery(model) as gallery:
            for start in range(0, len(face_ids), _FACES):
                part = slice(start, start + _FACES)
                self._upsert(gallery, face_ids[part], templates[part])
            gallery.flush()

    def _upsert(self, gallery: MilvusGallery, face_ids: Sequence[str], templates: Float32) -> None:
        """Filter columns are the catalogue's; what it does not have any more stays away."""
        catalogue = self._stores.catalogue
        faces = catalogue.faces(face_ids)
        records = catalogue.get_many({face.record_id for face in faces.values()})
        sources = {
            (record.record_id, photo.sha256): (record.key, record.attributes, photo.note, photo.load)
            for record in records.values()
            for photo in record.photos
        }
        facts = dict(zip(sources, catalogue.columns(list(sources.values())), strict=True))
        rows = [
            FaceRow(
                face_id=face_id,
                record_id=face.record_id,
                photo_sha256=face.sha256,
                ordinal=face.ordinal,
                template=template,
                **asdict(facts[face.record_id, face.sha256]),
            )
            for face_id, template in zip(face_ids, templates, strict=True)
            if (face := faces.get(face_id)) is not None
        ]
        if rows:
            gallery.upsert(rows)

    def _photos(self, rows: pa.Table) -> None:
        def put(agency: str, sha256: str, content: bytes) -> None:
            if self._stores.catalogue.photo_referenced(agency, sha256):
                self._stores.photos.put(agency, content)

        with ThreadPoolExecutor(_PUTTERS, thread_name_prefix="photo") as pool:
            for start in range(0, len(rows), _AHEAD):
                some = rows.slice(start, _AHEAD)
                for written in [pool.submit(put, *photo) for photo in photos_of(some)]:
                    written.result()

    def _documents(self, rows: pa.Table) -> None:
        for row in rows.to_pylist():
            self._stores.documents.put_document(row["name"], row["content"])
