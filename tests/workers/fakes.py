"""A pipeline and a decoder with hooks, for what batching and transport do around them."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence

import numpy as np

from homeward.errors import HomewardError, PhotoReason, PhotoRejected, WorkerUnavailable
from homeward.types import Box, Face, Float32, PhotoFaces, Quality
from workers.decode import DecodedPhoto

MODEL_ID = "fake/1"
DIMENSION = 8


def template_of(photo: bytes) -> Float32:
    """(8,) float32, unit length, a function of the bytes alone."""
    values = np.frombuffer(hashlib.sha256(photo).digest()[:DIMENSION], np.uint8).astype(np.float32) + 1
    return (values / np.linalg.norm(values)).astype(np.float32)


def faces_of(photo: bytes) -> PhotoFaces:
    """What the fake pipeline says of a photo: one face whose numbers are no round ones."""
    third = float(np.float32(1) / np.float32(3))
    face = Face(
        ordinal=0,
        box=Box(x=-third, y=10.5, width=40 + third, height=50.25),
        landmarks=np.arange(10, dtype=np.float32).reshape(5, 2) / np.float32(3),
        detector_score=third,
        quality=Quality(score=50.5, components={"size": third}, reasons=("head size too small",)),
        template=template_of(photo),
    )
    sha256 = hashlib.sha256(photo).hexdigest()
    return PhotoFaces(sha256, "image/png", 640, 480, MODEL_ID, (face,))


class FakePool:
    """Decodes to the bytes themselves. Photos that begin with `bad` are refused."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.closed = False

    def decode_many(self, photos: Sequence[bytes]) -> list[DecodedPhoto | PhotoRejected]:
        self.batches.append(len(photos))
        return [self._decode(photo) for photo in photos]

    def close(self) -> None:
        self.closed = True

    def _decode(self, photo: bytes) -> DecodedPhoto | PhotoRejected:
        if photo.startswith(b"bad"):
            return PhotoRejected(PhotoReason.FORMAT_UNKNOWN, "these bytes are no photo", byte=3)
        pixels = np.frombuffer(photo, np.uint8).reshape(1, -1, 1)
        return DecodedPhoto(pixels, 640, 480, "image/png", hashlib.sha256(photo).hexdigest())


class FakePipeline:
    """Records its batches; works on one only while `gate` is set; `poison` costs its
    photo, `break` its batch."""

    model_id = MODEL_ID
    dimension = DIMENSION
    device = "cpu"

    def __init__(self) -> None:
        self.batches: list[list[bytes]] = []
        self.started = threading.Semaphore(0)  # released as each batch begins
        self.gate = threading.Event()
        self.gate.set()

    def embed_each(self, photos: Sequence[DecodedPhoto]) -> list[PhotoFaces | HomewardError]:
        data = [photo.pixels.tobytes() for photo in photos]
        self.batches.append(data)
        self.started.release()
        assert self.gate.wait(30)
        if any(photo.startswith(b"break") for photo in data):
            raise TypeError("the model is broken")
        return [
            WorkerUnavailable("the model failed") if photo.startswith(b"poison") else faces_of(photo)
            for photo in data
        ]

    def crop(self, photo: DecodedPhoto, landmarks: Float32) -> bytes:
        if not np.isfinite(landmarks).all():
            raise ValueError("landmarks are not finite")
        return b"\x89PNG" + photo.pixels.tobytes() + landmarks.astype("<f4").tobytes()
