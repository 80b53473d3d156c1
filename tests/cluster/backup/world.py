"""Small Homewards over real stores, with everything that a backup has to keep; and what is in them."""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from catalogue.load_types import DonePart, LoadState
from catalogue.snapshot import KEPT
from catalogue.tables import meta
from catalogue.types import Deletion, FaceWrite, Item, PhotoWrite, RecordWrite, Request, Store, WriteResult
from cluster.backup.key import BackupKey
from cluster.backup.manifest import Model
from cluster.backup.stores import Stores, open_stores
from cluster.rows import face_row
from homeward.config import BackupSettings, Settings
from homeward.ids import face_id, photo_sha256, record_id
from homeward.types import Attributes, DateRange, PhotoNote, RecordKey, Sex
from tests.cluster.children import rows_of
from tests.cluster.fakes import DIMENSION, MODEL_ID, fake_face, fake_photo
from tests.photos.test_s3 import new_bucket
from tests.servers.milvus import Milvus
from tests.servers.postgres import Postgres
from tests.servers.seaweed import Seaweed

AGENCY = "agency ä"
SECRET = hashlib.sha256(b"the operator's key").digest()
KEY = BackupKey(SECRET)
PIECE_BYTES = 64 * 1024
CHILDREN = 14
MODEL = Model(MODEL_ID, DIMENSION)


def embedded(folder: Path) -> Settings:
    """SQLite, a folder and Milvus Lite."""
    return Settings(data_dir=folder, backup=backup_settings())


def on_servers(folder: Path, postgres: Postgres, milvus: Milvus, seaweed: Seaweed) -> Settings:
    """PostgreSQL, S3 and Milvus: empty ones."""
    return Settings(
        data_dir=folder,
        catalogue=postgres.settings(postgres.new_database()),
        gallery=milvus.settings(f"b{secrets.token_hex(6)}"),
        photos=seaweed.settings(new_bucket(), "archive"),
        backup=backup_settings(),
    )


def backup_settings() -> BackupSettings:
    """Small pieces, so that there are several."""
    return BackupSettings(
        key=SecretStr(base64.b64encode(SECRET).decode()), piece_bytes=PIECE_BYTES, s3_secure=False
    )


def large_photo(name: str, faces: int = 1) -> bytes:
    """As `fake_photo`, of some kilobytes."""
    return fake_photo(name, faces) + hashlib.shake_256(name.encode()).digest(10_000)


def enrol(stores: Stores, name: str, photos: Sequence[bytes], *, faces_most: int = 9, **more: Any) -> str:
    """One record straight into the stores, in their order; its id."""
    key = RecordKey(AGENCY, "missing", name)
    record = record_id(key)
    note = PhotoNote(DateRange(date(2010, 1, 1), date(2010, 12, 31), verified=True), provenance="mother")
    attributes = Attributes(
        born=DateRange(date(2001, 2, 3), date(2001, 2, 4), verified=len(name) % 2 == 0),
        sex=Sex.FEMALE,
        sex_verified=True,
        event_place=f"place {len(name)}",
        case_reference="「案件」",
    )
    columns = stores.catalogue.columns([(key, attributes, note, "")])[0]
    rows, writes = [], []
    for photo in photos:
        sha256 = stores.photos.put(AGENCY, photo)
        faces = [fake_face(photo, ordinal) for ordinal in range(min(faces_most, int(photo[4:5])))]
        rows += [
            face_row(face, record=record, photo=sha256, model=MODEL_ID, columns=columns) for face in faces
        ]
        writes.append(
            PhotoWrite(
                sha256,
                "image/png",
                100,
                120,
                len(photo),
                note,
                faces_seen=len(faces),
                faces=tuple(
                    FaceWrite(
                        face_id(record, sha256, MODEL_ID, face.ordinal),
                        face.ordinal,
                        face.box,
                        face.landmarks,
                        face.detector_score,
                        face.quality,
                    )
                    for face in faces
                ),
            )
        )
    with stores.gallery(MODEL) as gallery:
        gallery.upsert(rows)
    write = RecordWrite(key, attributes, tuple(writes), MODEL_ID, **more)
    (result,) = stores.catalogue.apply([write])
    assert isinstance(result, WriteResult), result
    return record


def delete(stores: Stores, record: str) -> None:
    """As the server does."""
    stores.catalogue.delete(Deletion(record, "the family asked", "officer 7"))
    stores.catalogue.erase(Store.GALLERY, partial(erase_rows, stores), record_id=record)
    stores.catalogue.erase(Store.PHOTOS, partial(_delete_photos, stores), record_id=record)


def erase_rows(stores: Stores, items: Sequence[Item]) -> None:
    """From the gallery."""
    with stores.gallery(MODEL) as gallery:
        gallery.delete([one.item for one in items])


def _delete_photos(stores: Stores, items: Sequence[Item]) -> None:
    for one in items:
        stores.photos.delete(one.agency, one.item)


def fill(stores: Stores, children: int = CHILDREN) -> list[str]:
    """Children, one of them deleted, one whose erasure is pending; a load that has ended, and settings."""
    found = []
    with stores.gallery(MODEL):  # opened once
        for number in range(children):
            name = f"request {number}"
            request = Request(name, "Enrol", "digest", response=lambda result: b"%d" % result.rev)
            photos = [large_photo(f"{number}"), large_photo(f"{number}-2", number % 3)]
            found.append(enrol(stores, f"child {number}", photos, request=request))
    delete(stores, found.pop())
    stores.catalogue.delete(Deletion(found.pop(), "case closed", "officer 7"))
    stores.catalogue.set_meta("active_model", MODEL_ID)
    add_load(stores, "march", LoadState.DONE)
    return found


def add_load(stores: Stores, name: str, state: LoadState) -> None:
    """A load with one part that has an outcome, as far as the ledger knows."""
    ledger = stores.catalogue.loads
    lease = ledger.create(name, "{}", "somebody")
    ledger.planned(lease, parts=1, photos=1, spec="{}")
    document = f"loads/{name}/outcomes/0000000.{lease.fence}.parquet"
    stores.documents.put_document(document, f"what became of {name}".encode())
    ledger.commit_part(lease, DonePart(0, document, 1, 1, 0))
    ledger.release(lease, state)


def contents(stores: Stores) -> dict[str, Any]:
    """Everything that is true: rows of all tables, templates with their columns, photos, outcome files."""
    found: dict[str, Any] = {}
    with stores.catalogue.snapshot() as snapshot:
        found["rev"] = snapshot.rev
        for table in KEPT:
            rows = [row for part in snapshot.rows(table) for row in part]
            if table is meta:
                rows = [row for row in rows if row["key"] == "active_model"]
            found[table.name] = sorted(
                rows, key=lambda row: [str(row[one.name]) for one in table.primary_key]
            )
    with stores.gallery(MODEL) as gallery:
        found["gallery"] = {
            face: {**asdict(row), "template": row.template.tobytes()}
            for face, row in rows_of(gallery.iterate()).items()
        }
    found["photo bytes"] = {
        (agency, sha256): photo_sha256(stores.photos.get(agency, sha256))
        for agency in stores.photos.agencies()
        for sha256 in stores.photos.list(agency, None, 10_000)
    }
    documents = stores.documents.list_documents("loads/")
    found["documents"] = {name: stores.documents.get_document(name) for name in documents}
    return found


@contextmanager
def opened(settings: Settings) -> Iterator[Stores]:
    """The stores as a restore opens them."""
    with open_stores(settings, restoring=True) as stores:
        yield stores
