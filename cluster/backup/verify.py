"""Reads a whole backup and says whether it can be restored."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator

import pyarrow as pa

from cluster.backup import columns
from cluster.backup.create import Progress
from cluster.backup.key import BackupKey
from cluster.backup.manifest import Head, Manifest, Piece, check_piece, read_head, read_manifest
from cluster.backup.sealing import Sealer, damaged
from homeward.errors import NotFound
from photos.documents import DocumentStore


class Backup:
    """A backup that says it is whole. Raises, when opened, what `read_head` and `read_manifest` raise."""

    def __init__(self, place: DocumentStore, key: BackupKey) -> None:
        self._place = place
        self.head: Head = read_head(place)
        self.manifest: Manifest = read_manifest(place, self.head, key)
        self._sealer = Sealer(key, self.head.backup)

    def read(self, piece: Piece) -> pa.Table:
        """Its rows. Raises `Corrupt` (BACKUP_DAMAGED) unless they are what was written."""
        try:
            sealed = self._place.get_document(piece.name)
        except NotFound as error:
            raise damaged(piece.name, "it is missing") from error
        check_piece(piece, sealed)
        data = self._sealer.open(piece.name, sealed)
        del sealed
        try:
            rows = columns.from_parquet(data)
        except pa.ArrowException as error:
            raise damaged(piece.name, "it is no table") from error
        if len(rows) != piece.rows:
            raise damaged(piece.name, f"it has {len(rows)} rows instead of {piece.rows}")
        return rows

    def kind(self, kind: str) -> list[Piece]:
        """The pieces of one kind, in order."""
        return [piece for piece in self.manifest.pieces if piece.kind == kind]

    def verify(self, progress: Progress = lambda *_: None) -> None:
        """Read every piece. Raises `Corrupt` (BACKUP_DAMAGED) naming the first that cannot be restored."""
        rows: Counter[str] = Counter()
        done = 0
        for piece in self.manifest.pieces:
            found = self.read(piece)
            if piece.kind == "photos":
                _check_photos(piece, found)
            rows[piece.kind] += len(found)
            done += piece.bytes
            progress("verify", done, self.manifest.bytes)
        for table, count in self.manifest.tables.items():
            if rows[f"catalogue/{table}"] != count:
                raise damaged(table, f"it has {rows[f'catalogue/{table}']} rows instead of {count}")


def photos_of(rows: pa.Table) -> Iterator[tuple[str, str, bytes]]:
    """Agency, SHA-256 and bytes of each photo of a piece."""
    for start in range(len(rows)):  # one at a time: as Python's they lie in memory once more
        row = rows.slice(start, 1).to_pylist()[0]
        yield row["agency"], row["sha256"], row["content"]


def _check_photos(piece: Piece, rows: pa.Table) -> None:
    for _, sha256, content in photos_of(rows):
        if hashlib.sha256(content).hexdigest() != sha256:
            raise damaged(piece.name, f"photo {sha256} has other bytes")
