"""Outcomes of parts, made up, and pictures with hashes to put into them."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from cluster.load.outcome_types import Became, PartOutcome, PhotoOutcome, RecordOutcome
from homeward.ids import record_id
from homeward.types import RecordKey, UInt8


def id_of(reference: str) -> str:
    """The record id of a reference, in one agency's gallery."""
    return record_id(RecordKey("agency", "gallery", reference))


def photo(number: int, reference: str = "A", content: str = "", **other: Any) -> PhotoOutcome:
    """An enrolled photo of a record, unless said otherwise. `content` names its bytes."""
    sha256 = hashlib.sha256((content or f"photo {number}").encode()).hexdigest()
    given: dict[str, Any] = {
        "photo": f"{reference}/{number}.jpg",
        "record_id": id_of(reference) if reference else "",
        "became": Became.ENROLLED,
        "sha256": sha256,
        "size": 1000 + number,
        "width": 200,
        "height": 300,
        "faces_seen": 1,
        "picture": hashlib.sha256(b"picture " + sha256.encode()).digest(),
        "kept": True,
        "milliseconds": 1.25,
    }
    given |= other
    if given["became"] is Became.ENROLLED:
        given.setdefault("face_ids", (f"{number:032x}",))
    return PhotoOutcome(number=number, reference=reference, **given)


def rejected(number: int, code: str, reference: str = "A", **other: Any) -> PhotoOutcome:
    """A photo that was rejected and never decoded, unless said otherwise."""
    given: dict[str, Any] = {
        "became": Became.REJECTED,
        "code": code,
        "message": f"{code}: do something about it",
        "width": 0,
        "height": 0,
        "faces_seen": 0,
        "picture": b"",
    }
    return photo(number, reference, **given | other)


def record(
    reference: str, *, created: bool = True, searchable: bool = True, kept: bool = False
) -> RecordOutcome:
    """A record that a part wrote."""
    return RecordOutcome(id_of(reference), reference, created, searchable, kept)


def part(number: int, photos: list[PhotoOutcome], records: list[RecordOutcome] | None = None) -> PartOutcome:
    """A part of these photos; of the enrolled ones the records are there and new."""
    if records is None:
        names = dict.fromkeys(one.reference for one in photos if one.became is Became.ENROLLED)
        records = [record(name) for name in names]
    return PartOutcome(number, tuple(photos), tuple(records))


def flipped(picture: bytes, bits: int, seed: int = 0) -> bytes:
    """The hash with so many other bits."""
    places = np.random.default_rng(seed).permutation(len(picture) * 8)[:bits]
    mask = np.zeros(len(picture) * 8, np.uint8)
    mask[places] = 1
    return bytes(np.frombuffer(picture, np.uint8) ^ np.packbits(mask))


def scene(seed: int, width: int = 400, height: int = 300) -> UInt8:
    """(H, W, 3) uint8: soft shapes of every size, another picture for every seed, of the same size alike."""
    random = np.random.default_rng(seed)
    total = np.zeros((height, width, 3))
    for cells in (3, 6, 12, 24):
        coarse = Image.fromarray(random.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        total += np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), float) / cells**0.5
    total -= total.min()
    image = Image.fromarray((total * (255 / total.max())).astype(np.uint8))
    return np.array(image.filter(ImageFilter.GaussianBlur(1)))


def never(row: object) -> None:
    """A source of thumbnails that has none."""
    return
