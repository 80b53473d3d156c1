"""What a backup says of itself.

`head` is plain: the format, and which key it needs. `manifest` is sealed, written last, and names every
file with its SHA-256: without it there is no backup, and nothing that it does not name is read.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime

from pydantic import TypeAdapter, ValidationError

from catalogue.restoring import Gone
from cluster.backup.key import BackupKey
from cluster.backup.sealing import Sealer, damaged
from homeward.errors import Conflict, NotFound, NotSupported, PermissionRefused
from photos.documents import DocumentStore

FORMAT = 1
HEAD = "head"
MANIFEST = "manifest"
PIECES = "pieces/"


@dataclass(frozen=True, slots=True)
class Head:
    """How to read the rest."""

    format: int
    backup: str  # 32 hex digits, random
    key: str  # `BackupKey.name`


@dataclass(frozen=True, slots=True)
class Piece:
    """One file: some rows as Parquet, sealed."""

    name: str
    kind: str  # catalogue/TABLE, templates/N (of `models`), photos, documents
    rows: int
    bytes: int  # as sealed
    sha256: str  # as sealed


@dataclass(frozen=True, slots=True)
class Model:
    """One gallery."""

    model_id: str
    dimension: int


@dataclass(frozen=True, slots=True)
class Missing:
    """What the catalogue had of undeleted records, and the stores did not: lost, or replaced while the backup
    was made."""

    templates: int = 0
    photos: int = 0
    documents: int = 0


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything in a backup."""

    version: str  # of the Homeward that made it
    schema: str  # revision of the catalogue's tables
    created_at: datetime
    rev: int  # of the catalogue, whose state this is
    tables: dict[str, int]  # rows of each
    models: list[Model]
    missing: Missing
    gone: list[Gone]  # deleted after `rev`, while the backup was made
    pieces: list[Piece]

    @property
    def bytes(self) -> int:
        """Of all pieces."""
        return sum(piece.bytes for piece in self.pieces)


_HEAD: TypeAdapter[Head] = TypeAdapter(Head)
_MANIFEST: TypeAdapter[Manifest] = TypeAdapter(Manifest)


def new_head(key: BackupKey) -> Head:
    """Of a backup to be."""
    return Head(FORMAT, secrets.token_hex(16), key.name)


def write_head(place: DocumentStore, head: Head) -> None:
    """From now on the place is that of a backup."""
    place.put_document(HEAD, _HEAD.dump_json(head))


def read_head(place: DocumentStore) -> Head:
    """Raises `NotFound` (BACKUP_NOT_FOUND), `NotSupported` (BACKUP_FORMAT), `Corrupt`."""
    try:
        data = place.get_document(HEAD)
    except NotFound as error:
        raise NotFound("there is no backup in this place", code="BACKUP_NOT_FOUND") from error
    try:
        head = _HEAD.validate_json(data)
        bytes.fromhex(head.backup)
    except ValueError as error:
        raise damaged(HEAD, "it is not one of a backup") from error
    if head.format != FORMAT:
        raise NotSupported(
            f"this backup has format {head.format}, this Homeward reads format {FORMAT}: use the version "
            "that made it",
            code="BACKUP_FORMAT",
        )
    return head


def write_manifest(place: DocumentStore, sealer: Sealer, manifest: Manifest) -> None:
    """Make the backup one."""
    place.put_document(MANIFEST, sealer.seal(MANIFEST, _MANIFEST.dump_json(manifest)))


def read_manifest(place: DocumentStore, head: Head, key: BackupKey) -> Manifest:
    """What the backup holds, once it is sure who made it.

    Raises `PermissionRefused` (BACKUP_KEY_WRONG), `Conflict` (BACKUP_INCOMPLETE), `Corrupt` (BACKUP_DAMAGED).
    """
    if head.key != key.name:
        raise PermissionRefused(
            f"this backup needs key {head.key}, and the settings give key {key.name}", code="BACKUP_KEY_WRONG"
        )
    try:
        sealed = place.get_document(MANIFEST)
    except NotFound as error:
        raise Conflict(
            "this backup was never finished, or is being made now: use another one", code="BACKUP_INCOMPLETE"
        ) from error
    data = Sealer(key, head.backup).open(MANIFEST, sealed)
    try:
        return _MANIFEST.validate_json(data)
    except ValidationError as error:
        raise damaged(MANIFEST, "it is not one of this format") from error


def check_piece(piece: Piece, sealed: bytes) -> None:
    """Raise `Corrupt` (BACKUP_DAMAGED) unless these are the bytes that the manifest names."""
    if len(sealed) != piece.bytes:
        raise damaged(piece.name, f"it has {len(sealed)} bytes instead of {piece.bytes}")
    if hashlib.sha256(sealed).hexdigest() != piece.sha256:
        raise damaged(piece.name, "its SHA-256 is not that of the manifest")
