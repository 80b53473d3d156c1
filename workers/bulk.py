"""Photos to templates for a bulk load: batch by batch, the same bits each time.

A network's products depend in their last digits on the batch and on the number of threads. So a batch is
worked on as it was given, by one thread of torch on a CPU, whatever else is under way; speed comes from
several batches side by side.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeAlias

from homeward.cores import usable_cores
from homeward.errors import HomewardError, PhotoReason, PhotoRejected
from homeward.face_message import SeenFace
from homeward.types import PhotoFaces
from workers.decode import DecodedPhoto
from workers.room import Room

if TYPE_CHECKING:  # torch is for the model alone
    from workers.device_photo import DevicePhoto

Photo: TypeAlias = "DecodedPhoto | DevicePhoto"

_AHEAD = 1  # batches that are decoded while others are in the model
_AGAIN = frozenset({PhotoReason.DECODE_TIMEOUT, PhotoReason.DECODER_DIED})


class Model(Protocol):
    """What of `workers.pipeline.Pipeline` is used."""

    @property
    def model_id(self) -> str: ...

    @property
    def dimension(self) -> int: ...

    @property
    def device(self) -> str: ...

    def embed_each(self, photos: Sequence[Photo]) -> list[PhotoFaces | HomewardError]: ...

    def embed_known(self, photo: Photo, known: Sequence[SeenFace]) -> PhotoFaces | HomewardError: ...


class Decoder(Protocol):
    """What of `workers.sandbox.DecodePool` or `workers.decode_cuda.CudaDecoder` is used."""

    def decode_many(self, photos: Sequence[bytes]) -> Sequence[Photo | PhotoRejected]: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class BulkPhoto:
    """One photo of a batch: its faces, or why there are none to be had."""

    faces: PhotoFaces | HomewardError
    picture: bytes  # perceptual hash of its pixels; empty when it could not be decoded


@dataclass(frozen=True, slots=True)
class BulkBatch:
    """One batch, in the order it was given."""

    photos: tuple[BulkPhoto, ...]
    decode_s: float
    embed_s: float


class BulkEmbedding:
    """Decodes and embeds batches, several at a time. Owns `model` and `decoder`; close it. Thread-safe."""

    def __init__(
        self,
        model: Model,
        decoder: Decoder,
        *,
        lanes: int,
        use_threads: Callable[[int], object],
        hash_picture: Callable[[Photo], bytes] = lambda _: b"",
        in_lane: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        """`lanes`: batches in the model at a time: one per core of a CPU, two for a GPU. `use_threads(1)` is
        called in each thread that computes; `in_lane` is entered around each batch (a CUDA stream)."""
        self._model = model
        self._decoder = decoder
        self._hash_picture = hash_picture
        self._in_lane = in_lane
        self._in_model = threading.Semaphore(lanes)
        self._room = Room(lanes + _AHEAD)
        self._executor = ThreadPoolExecutor(
            lanes + _AHEAD, thread_name_prefix="bulk", initializer=partial(use_threads, 1)
        )

    @property
    def model_id(self) -> str:
        """Id that every template carries."""
        return self._model.model_id

    @property
    def dimension(self) -> int:
        """Length of a template."""
        return self._model.dimension

    @property
    def device(self) -> str:
        """Where the model runs, for people."""
        return self._model.device

    def submit(self, photos: Sequence[bytes], turn: int = 0) -> Future[BulkBatch]:
        """Begin a batch; waits until there is room for it, so that no more than a few are in memory. Of
        those who wait, the lowest `turn` comes first.

        The future raises `WorkerUnavailable` when no photo can be decoded at all."""
        self._room.acquire(turn)
        try:
            future = self._executor.submit(self._work, photos)
        except BaseException:
            self._room.release()
            raise
        future.add_done_callback(lambda _: self._room.release())
        return future

    def known(self, photo: bytes, faces: Sequence[SeenFace]) -> PhotoFaces | HomewardError:
        """Templates of faces that another detector found in a photo, see `Pipeline.embed_known`. Waits."""
        return self._executor.submit(self._known, photo, faces).result()

    def close(self) -> None:
        """Finish what was begun, end the threads and the decoders."""
        self._executor.shutdown()
        self._decoder.close()

    def _work(self, photos: Sequence[bytes]) -> BulkBatch:
        with self._in_lane():
            return self._batch(photos)

    def _known(self, photo: bytes, faces: Sequence[SeenFace]) -> PhotoFaces | HomewardError:
        decoded = self._decoded([photo])[0]
        if isinstance(decoded, PhotoRejected):
            return decoded
        with self._in_lane(), self._in_model:
            return self._model.embed_known(decoded, faces)

    def _batch(self, photos: Sequence[bytes]) -> BulkBatch:
        begun = time.perf_counter()
        decoded = self._decoded(photos)
        pictures = [
            b"" if isinstance(photo, PhotoRejected) else self._hash_picture(photo) for photo in decoded
        ]
        after = time.perf_counter()
        good = [photo for photo in decoded if not isinstance(photo, PhotoRejected)]
        with self._in_model:
            started = time.perf_counter()
            found = iter(self._model.embed_each(good))
            ended = time.perf_counter()
        answers: list[PhotoFaces | HomewardError] = [
            photo if isinstance(photo, PhotoRejected) else next(found) for photo in decoded
        ]
        made = tuple(BulkPhoto(*pair) for pair in zip(answers, pictures, strict=True))
        return BulkBatch(made, after - begun, ended - started)

    def _decoded(self, photos: Sequence[bytes]) -> list[Photo | PhotoRejected]:
        """Photos that were not decoded in time get a second go: the machine may have been busy, and what
        becomes of a photo must not hang on that."""
        decoded = list(self._decoder.decode_many(photos))
        again = [
            at
            for at, photo in enumerate(decoded)
            if isinstance(photo, PhotoRejected) and photo.reason in _AGAIN
        ]
        for at in again:
            decoded[at] = self._decoder.decode_many([photos[at]])[0]
        return decoded


def lanes_of(device: str, threads: int) -> int:
    """How many batches are worked on at a time: `threads` (0: all cores this process may use) on a CPU."""
    if device != "cpu":
        return 2
    return threads or usable_cores()
