"""An archive for `benchmarks.kills`: a tar file of jittered crops with the table that says who is who.

Records of a few photos and some of more than a part can be; the same bytes twice under one record, near each
other and far apart; photos that are cut off, damaged, empty, or show nobody; names that are not there.
"""

from __future__ import annotations

import csv
import io
import random
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks.common import shared_photos
from benchmarks.load_archive import jitter
from homeward.errors import NotFound

_FEW = (1, 5)  # photos of most records
_LONG_EVERY = 14  # every so many records one is longer than a part
_LONG = (20, 40)
_BROKEN = 0.04
_DOUBLE = 0.05
_COLUMNS = ("photo", "record", "born", "born_verified", "sex", "event", "event_place", "taken", "face")


@dataclass(frozen=True, slots=True)
class Archive:
    """What is loaded."""

    tar: Path
    manifest: Path
    rows: int  # of the manifest: each is a photo to be accounted for
    records: int
    source: str


@dataclass(slots=True)
class _Drawing:
    """An archive under way."""

    chance: random.Random
    photos: list[bytes]
    files: dict[str, bytes] = field(default_factory=dict)
    rows: list[dict[str, str]] = field(default_factory=list)
    records: int = 0


def draw_archive(folder: Path, count: int, seed: int) -> Archive:
    """Write an archive of about so many photos to the folder: of the same seed the same."""
    photos, source = _originals()
    drawing = _Drawing(random.Random(seed), photos)
    while len(drawing.rows) < count:
        _draw_record(drawing)
    tar, manifest = folder / "archive.tar", folder / "archive.csv"
    with tarfile.open(tar, "w") as out:
        for name, data in drawing.files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            out.addfile(entry, io.BytesIO(data))
    with manifest.open("w", encoding="utf-8", newline="") as out_rows:
        writer = csv.DictWriter(out_rows, _COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(drawing.rows)
    return Archive(tar, manifest, len(drawing.rows), drawing.records, source)


def _draw_record(drawing: _Drawing) -> None:
    chance, number = drawing.chance, drawing.records
    drawing.records += 1
    length = chance.randint(*(_LONG if number % _LONG_EVERY == _LONG_EVERY - 1 else _FEW))
    year = chance.randint(2005, 2020)
    said = {
        "record": f"case {number:05d}",
        "born": str(year),
        "born_verified": chance.choice(("yes", "no", "")),
        "sex": chance.choice(("f", "m", "")),
        "event": f"{year + chance.randint(2, 12)}-0{chance.randint(1, 9)}",
        "event_place": chance.choice(("the north", "the coast", "")),
    }
    own: list[bytes] = []
    for place in range(length):
        name = f"photos/{number:05d}/{place:03d}.jpg"
        data = _draw_photo(drawing, own)
        if data is not None:
            drawing.files[name] = data
            own.append(data)
        taken = f"{year + chance.randint(1, 3)}" if chance.random() < 0.5 else ""
        face = "central" if chance.random() < 0.7 else ""
        drawing.rows.append({**said, "photo": name, "taken": taken, "face": face})


def _draw_photo(drawing: _Drawing, own: list[bytes]) -> bytes | None:
    """One photo of a record that has these already; None: the archive is to lack it."""
    chance = drawing.chance
    drawn = chance.random()
    if own and drawn < _DOUBLE:
        return chance.choice(own)
    good = jitter(chance.choice(drawing.photos), chance)
    if drawn > 1 - _BROKEN:
        kinds = (
            good[: len(good) // 2],
            good[:40] + bytes(200),
            b"",
            b"no photo at all",
            _nobody(chance),
            None,
        )
        return chance.choice(kinds)
    return good


def _nobody(chance: random.Random) -> bytes:
    """A photo without a face."""
    rows: npt.NDArray[np.uint8] = np.linspace(chance.randint(0, 90), 200, 160, dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(np.repeat(rows[:, None], 160, axis=1)).convert("RGB").save(stream, "JPEG")
    return stream.getvalue()


def _originals() -> tuple[list[bytes], str]:
    """Photos to draw from, and where they are from."""
    try:
        archive = shared_photos() / "lfw_dev.tar"
    except NotFound:
        archive = Path()
    if archive.is_file():
        with tarfile.open(archive) as opened:
            files = (opened.extractfile(member) for member in opened if member.name.endswith(".jpg"))
            return [file.read() for file in files if file is not None], archive.name
    import skimage.data

    stream = io.BytesIO()
    Image.fromarray(skimage.data.astronaut()).crop((60, 0, 400, 340)).save(stream, "JPEG", quality=95)  # type: ignore[no-untyped-call]
    return [stream.getvalue()], "scikit-image's astronaut"
