"""An archive of many photos from few: jittered crops, as one tar file of folders."""

from __future__ import annotations

import io
import random
import tarfile
from pathlib import Path

from PIL import Image, ImageEnhance

_PHOTOS_A_RECORD = 3
_QUALITY = 88


def jittered(archive: Path, made: Path, count: int, *, seed: int = 7) -> None:
    """Write `count` photos, each a random crop and brightness of one of the archive's, three a folder."""
    chance = random.Random(seed)
    with tarfile.open(archive) as opened:
        files = (opened.extractfile(member) for member in opened if member.name.endswith(".jpg"))
        photos = [file.read() for file in files if file is not None]
    with tarfile.open(made, "w") as out:
        for number in range(count):
            data = jitter(photos[number % len(photos)], chance)
            entry = tarfile.TarInfo(f"record-{number // _PHOTOS_A_RECORD:06d}/{number:06d}.jpg")
            entry.size = len(data)
            out.addfile(entry, io.BytesIO(data))


def jitter(photo: bytes, chance: random.Random) -> bytes:
    """A random crop and brightness of a photo, as a JPEG."""
    with Image.open(io.BytesIO(photo)) as image:
        rgb = image.convert("RGB")
    keep = chance.uniform(0.8, 0.97)
    width, height = (round(side * keep) for side in rgb.size)
    left, top = chance.randint(0, rgb.width - width), chance.randint(0, rgb.height - height)
    cropped = rgb.crop((left, top, left + width, top + height))
    stream = io.BytesIO()
    ImageEnhance.Brightness(cropped).enhance(chance.uniform(0.85, 1.15)).save(
        stream, "JPEG", quality=_QUALITY
    )
    return stream.getvalue()
