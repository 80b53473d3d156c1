"""The model in this process: decode in child processes and model run side by side, in micro-batches.

Two stages, each one batch deep. While the model works on batch n, the children decode batch n+1;
photos that arrive meanwhile wait in a bounded queue and become batch n+2. So at most two batches of
pixels are in memory, and a lone photo goes through both stages at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from homeward.batching import MicroBatcher
from homeward.config import WorkerSettings
from homeward.errors import HomewardError, InvalidInput, PhotoReason, PhotoRejected
from homeward.types import Float32, PhotoFaces
from workers.decode import DecodedPhoto

BATCH_BYTES = 4  # a batch's encoded bytes, in largest allowed photos


class PhotoPipeline(Protocol):
    """What `workers.pipeline.Pipeline` offers; called from one thread."""

    @property
    def model_id(self) -> str: ...

    @property
    def dimension(self) -> int: ...

    @property
    def device(self) -> str: ...

    def embed_each(self, photos: Sequence[DecodedPhoto]) -> list[PhotoFaces | HomewardError]:
        """Faces of each photo, or why there are none to be had; in order."""
        ...

    def crop(self, photo: DecodedPhoto, landmarks: Float32) -> bytes:
        """The aligned face at `landmarks` ((5, 2) pixels of the upright photo), as PNG."""
        ...


class PhotoDecoder(Protocol):
    """What `workers.sandbox.DecodePool` offers; called from one thread."""

    def decode_many(self, photos: Sequence[bytes]) -> list[DecodedPhoto | PhotoRejected]:
        """Each photo's pixels or its refusal, in order."""
        ...

    def close(self) -> None:
        """End the child processes."""
        ...


@dataclass(frozen=True, slots=True)
class _Job:
    photo: bytes
    landmarks: Float32 | None  # set: the crop is wanted, not the faces
    answer: Future[PhotoFaces | bytes] = field(default_factory=Future)


class LocalEmbedding:
    """`Embedding` over a pipeline and a decoder in this process. Owns both: `close` ends them.

    For one event loop. A refused photo costs its own caller alone.
    """

    def __init__(self, pipeline: PhotoPipeline, pool: PhotoDecoder, settings: WorkerSettings) -> None:
        self._pipeline = pipeline
        self._pool = pool
        self._max_photo_bytes = settings.max_photo_bytes
        self._decoding = ThreadPoolExecutor(1, thread_name_prefix="decode")
        self._modelling = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._in_model: Future[None] | None = None
        self._batcher: MicroBatcher[_Job, None] = MicroBatcher(
            self._decode_and_hand_over,
            executor=self._decoding,
            batch_max=settings.batch_max,
            queue_max=settings.queue_max,
            name="embedding",
            weigh=lambda job: len(job.photo),
            weight_max=BATCH_BYTES * settings.max_photo_bytes,
        )

    @property
    def model_id(self) -> str:
        """Id that every template carries."""
        return self._pipeline.model_id

    @property
    def dimension(self) -> int:
        """Length of a template."""
        return self._pipeline.dimension

    @property
    def device(self) -> str:
        """Where the model runs, for people."""
        return self._pipeline.device

    async def embed(self, photo: bytes) -> PhotoFaces:
        """All faces of one photo; see `Embedding`."""
        answer = await self._do(_Job(photo, None))
        assert isinstance(answer, PhotoFaces)
        return answer

    async def crop(self, photo: bytes, landmarks: Float32) -> bytes:
        """The face at `landmarks` ((5, 2) float32 pixels) as PNG; see `Embedding`."""
        if landmarks.shape != (5, 2) or not np.isfinite(landmarks).all():
            raise InvalidInput("landmarks are five points x, y, each a finite number", field="landmarks")
        answer = await self._do(_Job(photo, landmarks))
        assert isinstance(answer, bytes)
        return answer

    async def close(self) -> None:
        """Refuse new photos, finish those accepted, end the threads and the decoder children."""
        await self._batcher.close()
        for executor in (self._decoding, self._modelling):
            await asyncio.to_thread(executor.shutdown)
        await asyncio.to_thread(self._pool.close)

    async def _do(self, job: _Job) -> PhotoFaces | bytes:
        if len(job.photo) > self._max_photo_bytes:  # before it can wait in the queue
            raise PhotoRejected(
                PhotoReason.TOO_MANY_BYTES,
                f"the photo has {len(job.photo)} bytes, more than the {self._max_photo_bytes} allowed; "
                "send a smaller copy",
            )
        try:
            await self._batcher.submit(job)
        except asyncio.CancelledError:
            job.answer.cancel()
            raise
        # A caller that leaves cancels its own answer, which the model stage then skips.
        return await asyncio.wrap_future(job.answer)

    def _decode_and_hand_over(self, jobs: Sequence[_Job]) -> list[None]:
        """Decode a batch, then wait for the model to end the one before and give it this one."""
        decoded = self._pool.decode_many([job.photo for job in jobs])
        good: list[tuple[_Job, DecodedPhoto]] = []
        for job, photo in zip(jobs, decoded, strict=True):
            if not isinstance(photo, PhotoRejected):
                good.append((job, photo))
            elif job.answer.set_running_or_notify_cancel():
                job.answer.set_exception(photo)
        if self._in_model is not None:
            wait([self._in_model])
        self._in_model = self._modelling.submit(self._run_model, good) if good else None
        return [None] * len(jobs)

    def _run_model(self, batch: Sequence[tuple[_Job, DecodedPhoto]]) -> None:
        here = [(job, photo) for job, photo in batch if job.answer.set_running_or_notify_cancel()]
        for job, photo in here:
            if job.landmarks is not None:
                self._crop(job, photo, job.landmarks)
        faces = [(job, photo) for job, photo in here if job.landmarks is None]
        if faces:
            self._embed(faces)

    def _crop(self, job: _Job, photo: DecodedPhoto, landmarks: Float32) -> None:
        try:
            job.answer.set_result(self._pipeline.crop(photo, landmarks))
        except Exception as error:  # noqa: BLE001 - raised to the caller
            job.answer.set_exception(error)

    def _embed(self, batch: Sequence[tuple[_Job, DecodedPhoto]]) -> None:
        results: Sequence[PhotoFaces | Exception]
        try:
            results = self._pipeline.embed_each([photo for _, photo in batch])
        except Exception as error:  # noqa: BLE001 - raised to every caller of the batch
            results = [error] * len(batch)
        for (job, _), result in zip(batch, results, strict=True):
            if isinstance(result, Exception):
                job.answer.set_exception(result)
            else:
                job.answer.set_result(result)
