"""An `Embedding` without a model: templates and faces follow from the photo's bytes alone.

A fake photo is `b"FAKE"`, the number of faces as one digit, and anything: the bytes decide the
templates, so that one photo always gives the same ones and two photos different ones.
"""

from __future__ import annotations

import asyncio
import hashlib

import numpy as np

from homeward.errors import PhotoReason, PhotoRejected
from homeward.ids import photo_sha256
from homeward.types import Box, Face, Float32, PhotoFaces, Quality

MODEL_ID = "fake-16"
DIMENSION = 16


def fake_photo(name: str, faces: int = 1) -> bytes:
    """Bytes that `FakeEmbedding` takes for a photo of that many faces, up to 9."""
    filler = hashlib.shake_256(name.encode()).digest(512)
    return b"FAKE%d" % faces + name.encode() + b"\0" + filler


def fake_template(photo: bytes, ordinal: int) -> Float32:
    """(DIMENSION,) float32 unit row."""
    seed = int.from_bytes(hashlib.sha256(photo + bytes([ordinal])).digest()[:8], "big")
    row = np.random.default_rng(seed).standard_normal(DIMENSION)
    return (row / np.linalg.norm(row)).astype(np.float32)


def fake_face(photo: bytes, ordinal: int) -> Face:
    """Faces stand side by side, 100 pixels apart."""
    left = 100.0 * ordinal
    points = np.array([[30, 40], [70, 40], [50, 60], [35, 80], [65, 80]], np.float32)
    points[:, 0] += left
    return Face(
        ordinal=ordinal,
        box=Box(left, 10.0, 90.0, 100.0),
        landmarks=points,
        detector_score=0.99,
        quality=Quality(80.0, {"sharpness": 90.0}, ()),
        template=fake_template(photo, ordinal),
    )


class FakeEmbedding:
    """`workers.embedding.Embedding`; `gate`, when set, is awaited before every answer."""

    model_id = MODEL_ID
    dimension = DIMENSION
    device = "none"

    def __init__(self) -> None:
        self.embedded = 0
        self.gate: asyncio.Event | None = None

    async def embed(self, photo: bytes) -> PhotoFaces:
        """Faces by the digit after FAKE; anything else is refused like a broken photo."""
        await asyncio.sleep(0)
        if self.gate is not None:
            await self.gate.wait()
        if photo[:4] != b"FAKE" or not photo[4:5].isdigit():
            raise PhotoRejected(PhotoReason.FORMAT_UNKNOWN, "no photo")
        self.embedded += 1
        count = int(photo[4:5])
        faces = tuple(fake_face(photo, ordinal) for ordinal in range(count))
        return PhotoFaces(photo_sha256(photo), "image/png", 100 * max(count, 1), 120, MODEL_ID, faces)

    async def crop(self, photo: bytes, landmarks: Float32) -> bytes:
        """Bytes that name the photo and the place."""
        return b"\x89PNG\r\n\x1a\n" + hashlib.sha256(photo + landmarks.tobytes()).digest()

    async def close(self) -> None:
        """Nothing to free."""
