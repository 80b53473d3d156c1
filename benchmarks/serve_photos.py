"""Photos of 1024 x 768 with a face, each another, and the embedder alone: for searches by photo."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

from benchmarks.common import shared_photos
from homeward.config import Settings
from homeward.errors import NotFound
from workers.embedding import Embedding
from workers.open import open_embedding

WIDTH, HEIGHT = 1024, 768
_SEED = 5
_QUALITY = 90
_GRAIN = 4.0
_GREY = (128, 128, 128)


def probe_photos(count: int) -> tuple[list[bytes], str]:
    """JPEGs, and what they show. People of the shared photos in turns, else scikit-image's astronaut; each
    is turned, moved and lit a little, so that no two are alike."""
    sources, what = _sources()
    generator = np.random.default_rng(_SEED)
    made = []
    for number in range(count):
        with Image.open(sources[number % len(sources)]) as photo:
            made.append(_variant(photo.convert("RGB"), generator))
    return made, what


def _sources() -> tuple[Sequence[Path | io.BytesIO], str]:
    try:
        photos = sorted((shared_photos() / "london").glob("*/*.jpg"))
    except NotFound:
        photos = []
    if photos:
        return photos, f"{len(photos)} photos of the Face Research Lab London Set"
    from skimage import data

    held = io.BytesIO()
    Image.fromarray(data.astronaut()).save(held, "PNG")  # type: ignore[no-untyped-call]
    return [held], "scikit-image's astronaut"


def _variant(photo: Image.Image, generator: np.random.Generator) -> bytes:
    side = int(generator.integers(HEIGHT - 60, HEIGHT + 1))
    width, height = (side * photo.width // max(photo.size), side * photo.height // max(photo.size))
    turned = photo.rotate(float(generator.uniform(-5, 5)), Image.Resampling.BILINEAR, fillcolor=_GREY)
    small = turned.resize((width, height), Image.Resampling.LANCZOS)
    lit = ImageEnhance.Brightness(small).enhance(float(generator.uniform(0.9, 1.1)))
    # Blurred beyond recognition, and grainy: it costs the decoder what a real background costs.
    behind = photo.resize((8, 6), Image.Resampling.BOX).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    grain = generator.normal(0.0, _GRAIN, (HEIGHT, WIDTH, 1))
    canvas = Image.fromarray((np.asarray(behind) + grain).clip(0, 255).astype(np.uint8))
    left, top = generator.integers(0, (WIDTH - width + 1, HEIGHT - height + 1)).tolist()
    canvas.paste(lit, (left, top))
    held = io.BytesIO()
    canvas.save(held, "JPEG", quality=_QUALITY)
    return held.getvalue()


class Embedder:
    """The embedder alone, as the server has it, in this process. For one event loop; `close` it."""

    def __init__(self, embedding: Embedding) -> None:
        self._embedding = embedding

    @classmethod
    async def open(cls) -> Embedder:
        """With the settings that a server has without any."""
        return cls(await open_embedding(Settings.load()))

    async def with_one_face(self, photos: Sequence[bytes]) -> list[bytes]:
        """Those of the photos in which it sees one face."""
        seen = await asyncio.gather(*(self._embedding.embed(photo) for photo in photos))
        return [photo for photo, faces in zip(photos, seen, strict=True) if len(faces.faces) == 1]

    async def rate(self, photos: Sequence[bytes], in_flight: int, budget_s: float) -> float:
        """Photos per second for about so many seconds, of callers that each wait for their answer."""
        done = 0
        numbers = iter(range(1 << 40))
        started = time.perf_counter()

        async def caller() -> None:
            nonlocal done
            while time.perf_counter() < started + budget_s:
                await self._embedding.embed(photos[next(numbers) % len(photos)])
                done += 1

        async with asyncio.TaskGroup() as group:
            for _ in range(in_flight):
                group.create_task(caller())
        return done / (time.perf_counter() - started)

    async def close(self) -> None:
        """Free the model."""
        await self._embedding.close()
