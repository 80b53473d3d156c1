"""The model in this process: decode in child processes and model run side by side, in micro-batches.

While the model works on batch n, the children decode batch n+1; photos that arrive meanwhile wait
in a bounded queue and become batch n+2. A lone photo goes through both stages at once. On a CPU under
load two batches are in the model side by side, each on half of the cores: the threads that share out a
net this small wait for each other much of the time, more when another process takes a core. So at most
three batches of pixels are in memory, two on a GPU.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from homeward.batching import MicroBatcher
from homeward.config import WorkerSettings
from homeward.errors import HomewardError, InvalidInput, PhotoReason, PhotoRejected
from homeward.telemetry import Batched, emit
from homeward.types import Float32, PhotoFaces
from workers.decode import DecodedPhoto

BATCH_BYTES = 4  # a batch's encoded bytes, in largest allowed photos


class PhotoPipeline(Protocol):
    """What `workers.pipeline.Pipeline` offers."""

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
    answer: asyncio.Future[PhotoFaces | bytes]  # of the caller's loop; cancelled when the caller leaves


class LocalEmbedding:
    """`Embedding` over a pipeline and a decoder in this process. Owns both: `close` ends them.

    For one event loop. A refused photo costs its own caller alone.
    """

    def __init__(
        self,
        pipeline: PhotoPipeline,
        pool: PhotoDecoder,
        settings: WorkerSettings,
        *,
        cores: int = 1,
        use_cores: Callable[[int], object] = lambda _: None,
    ) -> None:
        """`cores`: what the model may use; 1 also for a GPU. `use_cores(n)` has the thread that calls it
        compute on n of them. With two cores or more `pipeline` is called from several threads."""
        self._pipeline = pipeline
        self._pool = pool
        self._max_photo_bytes = settings.max_photo_bytes
        self._decoding = ThreadPoolExecutor(1, thread_name_prefix="decode")
        self._halves = tuple(ThreadPoolExecutor(1, f"model-half-{side}") for side in "ab" if cores > 1)
        self._whole = ThreadPoolExecutor(1, thread_name_prefix="model")
        for lane in self._halves:
            lane.submit(use_cores, cores // 2).result()
        # Last: what torch was told last is what threads that come later use.
        self._whole.submit(use_cores, cores).result()
        self._in_model: dict[ThreadPoolExecutor, Future[None]] = {}
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
        answer = await self._do(photo, None)
        assert isinstance(answer, PhotoFaces)
        return answer

    async def crop(self, photo: bytes, landmarks: Float32) -> bytes:
        """The face at `landmarks` ((5, 2) float32 pixels) as PNG; see `Embedding`."""
        if landmarks.shape != (5, 2) or not np.isfinite(landmarks).all():
            raise InvalidInput("landmarks are five points x, y, each a finite number", field="landmarks")
        answer = await self._do(photo, landmarks)
        assert isinstance(answer, bytes)
        return answer

    async def close(self) -> None:
        """Refuse new photos, finish those accepted, end the threads and the decoder children."""
        await self._batcher.close()
        for executor in (self._decoding, self._whole, *self._halves):
            await asyncio.to_thread(executor.shutdown)
        await asyncio.to_thread(self._pool.close)

    async def _do(self, photo: bytes, landmarks: Float32 | None) -> PhotoFaces | bytes:
        if len(photo) > self._max_photo_bytes:  # before it can wait in the queue
            raise PhotoRejected(
                PhotoReason.TOO_MANY_BYTES,
                f"the photo has {len(photo)} bytes, more than the {self._max_photo_bytes} allowed; "
                "send a smaller copy",
            )
        job = _Job(photo, landmarks, asyncio.get_running_loop().create_future())
        try:
            await self._batcher.submit(job)
        except asyncio.CancelledError:
            job.answer.cancel()
            raise
        # A caller that leaves cancels its own answer, and the model stage skips the job.
        return await job.answer

    def _decode_and_hand_over(self, jobs: Sequence[_Job]) -> list[None]:
        """Decode a batch, then wait until the model takes another and give it this one."""
        decoded = self._pool.decode_many([job.photo for job in jobs])
        good: list[tuple[_Job, DecodedPhoto]] = []
        refused: list[tuple[_Job, PhotoRejected]] = []
        for job, photo in zip(jobs, decoded, strict=True):
            if isinstance(photo, PhotoRejected):
                refused.append((job, photo))
            else:
                good.append((job, photo))
        _deliver(refused)
        if good:
            lane = self._free_lane()
            self._in_model[lane] = lane.submit(copy_context().run, self._run_model, good)
        return [None] * len(jobs)

    def _free_lane(self) -> ThreadPoolExecutor:
        """All cores for a batch alone in the model, half of them beside another; waits while both are."""
        while len(busy := self._busy()) >= max(1, len(self._halves)):
            wait(busy.values(), return_when=FIRST_COMPLETED)
        return next(lane for lane in self._halves if lane not in busy) if busy else self._whole

    def _busy(self) -> dict[ThreadPoolExecutor, Future[None]]:
        return {lane: batch for lane, batch in self._in_model.items() if not batch.done()}

    def _run_model(self, batch: Sequence[tuple[_Job, DecodedPhoto]]) -> None:
        started = time.perf_counter()
        here = [(job, photo) for job, photo in batch if not job.answer.done()]
        _deliver(
            [(job, self._crop(photo, job.landmarks)) for job, photo in here if job.landmarks is not None]
        )
        faces = [(job, photo) for job, photo in here if job.landmarks is None]
        if faces:
            results = self._embed([photo for _, photo in faces])
            _deliver([(job, result) for (job, _), result in zip(faces, results, strict=True)])
        spent = time.perf_counter() - started
        emit(Batched("embedding model", "OK", spent, queue="model", items=len(here)))

    def _crop(self, photo: DecodedPhoto, landmarks: Float32) -> bytes | Exception:
        try:
            return self._pipeline.crop(photo, landmarks)
        except Exception as error:  # noqa: BLE001 - raised to the caller
            return error

    def _embed(self, photos: Sequence[DecodedPhoto]) -> Sequence[PhotoFaces | Exception]:
        try:
            return self._pipeline.embed_each(photos)
        except Exception as error:  # noqa: BLE001 - raised to every caller of the batch
            return [error] * len(photos)


def _deliver(results: Sequence[tuple[_Job, PhotoFaces | bytes | Exception]]) -> None:
    """Give each caller its own, all at once: a wake-up of the event loop takes the interpreter."""
    if results:
        results[0][0].answer.get_loop().call_soon_threadsafe(_answer, results)


def _answer(results: Sequence[tuple[_Job, PhotoFaces | bytes | Exception]]) -> None:
    for job, result in results:
        if job.answer.done():
            continue
        if isinstance(result, Exception):
            job.answer.set_exception(result)
        else:
            job.answer.set_result(result)
