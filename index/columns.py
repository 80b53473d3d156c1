"""Rows of the gallery as columns: one array per field, so that filters and scores run over arrays.

Ids are kept as unsigned 64-bit words, most significant first: comparing the words in turn orders
rows exactly as comparing the hex strings does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from homeward.errors import InvalidInput, TemplateInvalid
from homeward.ids import check_id, check_sha256
from homeward.types import FaceRow, Float32

Int32 = npt.NDArray[np.int32]
UInt64 = npt.NDArray[np.uint64]
Bool = npt.NDArray[np.bool_]
Index = npt.NDArray[np.int64]

INTEGER_COLUMNS = (
    "ordinal",
    "agency",
    "gallery",
    "load",
    "sex",
    "born_from",
    "born_to",
    "event_from",
    "event_to",
    "taken_from",
    "taken_to",
    "place",
)


@dataclass(frozen=True, slots=True)
class Columns:
    """n face rows. Arrays are read-only by convention; ranges are verified day numbers."""

    face: UInt64  # (n, 2) face id
    record: UInt64  # (n, 2) record id
    photo: UInt64  # (n, 4) SHA-256 of the photo
    ordinal: Int32  # (n,), as all below
    agency: Int32
    gallery: Int32
    load: Int32
    sex: Int32
    born_from: Int32
    born_to: Int32
    event_from: Int32
    event_to: Int32
    taken_from: Int32
    taken_to: Int32
    place: Int32
    template: Float32  # (n, d) unit rows

    def __len__(self) -> int:
        return len(self.face)

    @property
    def dimension(self) -> int:
        """Components of a template."""
        return int(self.template.shape[1])

    def take(self, rows: slice | Index | Bool) -> Columns:
        """The chosen rows: views for a slice, copies for an index or a mask."""
        return Columns(*(getattr(self, name)[rows] for name in COLUMN_NAMES))

    def face_rows(self) -> Iterator[FaceRow]:
        """Each row as a `FaceRow`, in order."""
        faces, records, photos = hex_ids(self.face), hex_ids(self.record), hex_ids(self.photo)
        numbers = [getattr(self, name).tolist() for name in INTEGER_COLUMNS]
        for row, values in enumerate(zip(*numbers, strict=True)):
            yield FaceRow(
                face_id=faces[row],
                record_id=records[row],
                photo_sha256=photos[row],
                template=self.template[row],
                **dict(zip(INTEGER_COLUMNS, values, strict=True)),
            )


COLUMN_NAMES = tuple(field.name for field in fields(Columns))


def empty(dimension: int, capacity: int = 0) -> Columns:
    """Columns of `capacity` rows whose values are yet undefined."""
    return Columns(
        face=np.empty((capacity, 2), np.uint64),
        record=np.empty((capacity, 2), np.uint64),
        photo=np.empty((capacity, 4), np.uint64),
        template=np.empty((capacity, dimension), np.float32),
        **{name: np.empty(capacity, np.int32) for name in INTEGER_COLUMNS},
    )


def from_rows(rows: Sequence[FaceRow], dimension: int) -> Columns:
    """Columns of the rows, in order. Raises `InvalidInput` on an id or a number that does not fit, and
    `TemplateInvalid` on a template of another size; norms are not looked at here."""
    for row in rows:
        check_id(row.face_id, "face_id")
        check_id(row.record_id, "record_id")
        check_sha256(row.photo_sha256, "photo_sha256")
        if row.template.shape != (dimension,):
            raise TemplateInvalid(
                f"face {row.face_id} has a template of shape {row.template.shape}; expected ({dimension},)"
            )
    template = np.empty((len(rows), dimension), np.float32)
    for position, row in enumerate(rows):
        template[position] = row.template
    try:
        numbers = {
            name: np.array([getattr(row, name) for row in rows], dtype=np.int32) for name in INTEGER_COLUMNS
        }
    except OverflowError as error:
        raise InvalidInput("a filter column does not fit 32 bits", code="COLUMN_RANGE") from error
    return Columns(
        face=id_words([row.face_id for row in rows]),
        record=id_words([row.record_id for row in rows]),
        photo=id_words([row.photo_sha256 for row in rows], 4),
        template=template,
        **numbers,
    )


def concatenate(parts: Sequence[Columns], dimension: int) -> Columns:
    """All rows of all parts, in order."""
    if not parts:
        return empty(dimension)
    return Columns(*(np.concatenate([getattr(part, name) for part in parts]) for name in COLUMN_NAMES))


def id_words(ids: Sequence[str], words: int = 2) -> UInt64:
    """Hex ids as (n, words) unsigned 64-bit words, most significant first."""
    raw = np.frombuffer(bytes.fromhex("".join(ids)), dtype=">u8")
    return raw.astype(np.uint64).reshape(len(ids), words)


def hex_ids(words: UInt64) -> list[str]:
    """The inverse of `id_words`."""
    text = words.astype(">u8").tobytes().hex()
    width = words.shape[1] * 16
    return [text[start : start + width] for start in range(0, len(text), width)]


def member(words: UInt64, ids: frozenset[str]) -> Bool:
    """(n,) whether the row's id is one of `ids` (hex of the same width)."""
    found = np.zeros(len(words), dtype=np.bool_)
    if not ids or not len(words):
        return found
    wanted = id_words(sorted(ids), words.shape[1])
    # The first word decides nearly always; the few rows it lets through are compared in full.
    rows = np.flatnonzero(np.isin(words[:, 0], wanted[:, 0]))
    keys = {tuple(key) for key in wanted.tolist()}
    found[rows] = [tuple(key) in keys for key in words[rows].tolist()]
    return found
