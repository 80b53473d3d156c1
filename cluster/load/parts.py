"""Cutting a plan into parts, and a part as a document.

A part is what is loaded together: one actor reads, embeds, writes and commits it, and it alone is done again
when something dies. Batches never cross parts, so that doing one again gives the same bits.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import groupby
from typing import Any

from pydantic import TypeAdapter

from cluster.load.members import Member, Refusal
from cluster.load.outcome_types import OTHER_VERSION
from cluster.load.plan_types import Part, PlannedPhoto
from homeward.errors import Corrupt
from homeward.types import Attributes, PhotoNote

_ATTRIBUTES = TypeAdapter(Attributes)
_NOTE = TypeAdapter(PhotoNote)
_FORMAT = 1


def cut(photos: Iterable[PlannedPhoto], most: int, most_bytes: int) -> Iterator[Part]:
    """Parts of at most so many photos and bytes; of more bytes only where one photo has them.

    `photos` come record by record. A record is cut only where it is more than a part can be.
    """
    number = 0
    held: list[PlannedPhoto] = []
    size = 0
    for piece in _pieces(photos, most, most_bytes):
        more = sum(map(_bytes, piece))
        if held and (len(held) + len(piece) > most or size + more > most_bytes):
            yield Part(number, tuple(held))
            number += 1
            held, size = [], 0
        held += piece
        size += more
    if held:
        yield Part(number, tuple(held))


def _pieces(photos: Iterable[PlannedPhoto], most: int, most_bytes: int) -> Iterator[list[PlannedPhoto]]:
    """What stays together: a record, or as much of it as a part can be."""
    for reference, record in groupby(photos, key=lambda photo: photo.reference):
        piece: list[PlannedPhoto] = []
        size = 0
        for photo in record:
            more = _bytes(photo)
            if piece and (not reference or len(piece) == most or size + more > most_bytes):
                yield piece
                piece, size = [], 0
            piece.append(photo)
            size += more
        yield piece


def _bytes(photo: PlannedPhoto) -> int:
    return 0 if photo.code else photo.member.size


def write_part(part: Part) -> bytes:
    """The part as a document: one line of ASCII, in which a name that is no text keeps its bytes."""
    photos = [
        {
            "number": photo.number,
            "source": photo.source,
            "member": {name: value for name, value in asdict(photo.member).items() if value},
            "reference": photo.reference,
            "line": photo.line,
            "attributes": _ATTRIBUTES.dump_python(photo.attributes, mode="json", exclude_defaults=True),
            "note": _NOTE.dump_python(photo.note, mode="json", exclude_defaults=True),
            "code": photo.code,
            "why": photo.why,
        }
        for photo in part.photos
    ]
    header = {"format": _FORMAT, "number": part.number, "agency": part.agency, "gallery": part.gallery}
    return json.dumps({**header, "photos": photos}).encode("ascii")


def read_part(document: bytes) -> Part:
    """The part of a document. Raises `Corrupt` for what `write_part` did not write."""
    try:
        found = json.loads(document)
        if found["format"] == _FORMAT:
            photos = tuple(map(_photo, found["photos"]))
            return Part(int(found["number"]), photos, str(found["agency"]), str(found["gallery"]))
    except (ValueError, KeyError, TypeError) as error:
        raise Corrupt(f"this is no part of a load: {error}", code="LOAD_PART_INVALID") from error
    raise Corrupt("this part of a load was written by another version", code=OTHER_VERSION)


def _photo(found: dict[str, Any]) -> PlannedPhoto:
    member = dict(found["member"])
    refusal = member.pop("refusal", None)
    return PlannedPhoto(
        number=found["number"],
        source=found["source"],
        member=Member(
            **{"name": "", "size": 0, **member}, refusal=None if refusal is None else Refusal(refusal)
        ),
        reference=found["reference"],
        line=found["line"],
        attributes=_ATTRIBUTES.validate_python(found["attributes"]),
        note=_NOTE.validate_python(found["note"]),
        code=found["code"],
        why=found["why"],
    )
