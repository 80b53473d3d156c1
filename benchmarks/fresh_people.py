"""Small real photos of many people with the template of each: to enrol, and to search for."""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance

from benchmarks.common import shared_photos
from homeward.config import Settings
from homeward.errors import HomewardError, NotFound
from homeward.types import Float32
from workers.labelled import most_central
from workers.open import open_embedding

_SIDE = 250
_SEED = 3
_SPARE = 1.05  # so many photos are looked at for each that is wanted: some have no face


@dataclass(frozen=True, slots=True)
class Person:
    """A photo, and the template of its most central face."""

    photo: bytes
    template: Float32


async def people(count: int) -> tuple[list[Person], str]:
    """So many photos, no two alike, and what they show: the first photos of lfw_dev's people, else
    scikit-image's astronaut cut out in many ways. Fewer when there are no more."""
    photos, what = _photos(int(count * _SPARE) + 1)
    embedding = await open_embedding(Settings.load())
    found: list[Person] = []
    try:
        for photo in photos:
            try:
                face = most_central(await embedding.embed(photo))
            except HomewardError:
                continue
            if face is not None:
                found.append(Person(photo, face.template))
            if len(found) == count:
                break
    finally:
        await embedding.close()
    return found, what


def _photos(count: int) -> tuple[list[bytes], str]:
    try:
        archive = shared_photos() / "lfw_dev.tar"
    except NotFound:
        return _astronauts(count), "scikit-image's astronaut, cut out in many ways"
    found = []
    with tarfile.open(archive) as tar:
        for member in tar:
            file = tar.extractfile(member) if member.name.endswith("_0001.jpg") else None
            if file is not None:
                found.append(file.read())
            if len(found) == count:
                break
    return found, "first photos of people of LFW, 250 x 250"


def _astronauts(count: int) -> list[bytes]:
    from skimage import data

    pixels = data.astronaut()  # type: ignore[no-untyped-call]
    whole = Image.fromarray(pixels).crop((100, 0, 400, 300))
    generator = np.random.default_rng(_SEED)
    made = []
    for _ in range(count):
        left, top, cut = generator.integers(0, (40, 40, 40)).tolist()
        turned = whole.rotate(float(generator.uniform(-12, 12)), Image.Resampling.BICUBIC)
        small = turned.crop((left, top, 260 + cut, 260 + cut)).resize((_SIDE, _SIDE))
        lit = ImageEnhance.Brightness(small).enhance(float(generator.uniform(0.7, 1.3)))
        held = io.BytesIO()
        lit.save(held, "JPEG", quality=92)
        made.append(held.getvalue())
    return made
