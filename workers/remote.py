"""Embedding by workers over internal gRPC: round-robin over those that answer, and on to the next.

Embedding a photo changes nothing, so a call that failed for want of a worker is safe to repeat; but a
photo may be what brought the worker down, so one photo is given to few of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import grpc

from homeward.config import WorkerSettings
from homeward.errors import (
    DeadlineExceeded,
    HomewardError,
    Overloaded,
    Unavailable,
    WorkerUnavailable,
)
from homeward.face_message import write_landmarks
from homeward.status import error_from_rpc
from homeward.telemetry import Level, Reading, watch
from homeward.types import Float32, PhotoFaces
from homeward.v1 import embedding_pb2
from workers.decode import DecodeLimits, check_bytes
from workers.embedding import Embedding
from workers.placement import PlacedWorker, Placements
from workers.remote_worker import RemoteWorker
from workers.rpc import read_faces

CALL_S = 60.0  # one photo, queue included
PATIENCE_S = 5.0  # how long a photo waits for any worker to answer: about what a restart takes
START_S = 30.0  # how long opening waits for the first worker
PLACEMENT_S = 0.5  # between looks at the list of workers
_PHOTO_TRIES = 3  # workers that may fail with one photo in their hands
_WORKER_CODES = frozenset({"SERVER_UNREACHABLE", DeadlineExceeded.code})  # its fault, not the photo's

Answer = TypeVar("Answer")

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Failure:
    error: HomewardError
    reached: bool  # the worker had the photo


async def open_remote(
    settings: WorkerSettings,
    placements: Placements | None = None,
    *,
    start_s: float = START_S,
    patience_s: float = PATIENCE_S,
) -> Embedding:
    """Connect to the workers of `settings.addresses`, or else to those that `placements` lists.

    The first worker that answers names the model; workers of another are not asked. Raises
    `WorkerUnavailable` when none answers within `start_s` seconds.
    """
    remote = RemoteEmbedding(settings, placements, patience_s=patience_s)
    try:
        await remote.open(start_s)
    except BaseException:
        await remote.close()
        raise
    return remote


class RemoteEmbedding:
    """`Embedding` over the network. For one event loop. Made by `open_remote`."""

    def __init__(
        self, settings: WorkerSettings, placements: Placements | None, *, patience_s: float = PATIENCE_S
    ) -> None:
        self._settings = settings
        self._placements = None if settings.addresses else placements
        self._limits = DecodeLimits.from_settings(settings)
        self._patience_s = patience_s
        self._workers: dict[str, RemoteWorker] = {}
        self._turn = 0
        self._placed: list[PlacedWorker] = []
        self._model: embedding_pb2.DescribeModelResponse | None = None
        self._follower: asyncio.Task[None] | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._unwatch: Callable[[], None] = lambda: None

    @property
    def model_id(self) -> str:
        """Id that every template carries."""
        return self._described.model_id

    @property
    def dimension(self) -> int:
        """Length of a template."""
        return self._described.dimension

    @property
    def device(self) -> str:
        """Where the model runs, for people."""
        count = len(self._workers)
        return f"{self._described.device} of {count} worker{'' if count == 1 else 's'}"

    async def embed(self, photo: bytes) -> PhotoFaces:
        """All faces of one photo; see `Embedding`."""
        check_bytes(photo, self._limits)
        request = embedding_pb2.EmbedRequest(photo=photo)

        async def ask(worker: RemoteWorker) -> PhotoFaces:
            answer = await worker.stub.Embed(request, timeout=CALL_S, metadata=worker.metadata)
            if answer.model_id != self.model_id:
                worker.forget_model()
                raise WorkerUnavailable(f"{worker.address} now runs {answer.model_id}, not {self.model_id}")
            return read_faces(answer, self.dimension)

        return await self._ask(ask)

    async def crop(self, photo: bytes, landmarks: Float32) -> bytes:
        """The face at `landmarks` ((5, 2) float32 pixels) as PNG; see `Embedding`."""
        check_bytes(photo, self._limits)
        request = embedding_pb2.CropRequest(photo=photo, landmarks=write_landmarks(landmarks))

        async def ask(worker: RemoteWorker) -> bytes:
            answer = await worker.stub.Crop(request, timeout=CALL_S, metadata=worker.metadata)
            return answer.png

        return await self._ask(ask)

    async def open(self, start_s: float) -> None:
        """Learn the model from the first worker that answers; see `open_remote`."""
        end = time.monotonic() + start_s
        while True:
            failure = await self._learn_model()
            if failure is None:
                break
            if time.monotonic() >= end:
                raise failure
            await asyncio.sleep(0.25)
        self._unwatch = watch(self._readings)
        if self._placements is not None:
            self._follower = asyncio.create_task(self._follow(), name="follow-placement")

    async def close(self) -> None:
        """Let running calls end, then close the channels."""
        self._unwatch()
        if self._follower is not None:
            self._follower.cancel()
            await asyncio.gather(self._follower, return_exceptions=True)
        self._replace_workers(())
        await asyncio.gather(*self._closing, return_exceptions=True)

    @property
    def _described(self) -> embedding_pb2.DescribeModelResponse:
        if self._model is None:
            raise WorkerUnavailable("no embedding worker has said yet which model it runs")
        return self._model

    async def _ask(self, ask: Callable[[RemoteWorker], Awaitable[Answer]]) -> Answer:
        """Try workers in turn until one answers, the patience is over, or the photo seems to blame."""
        end = time.monotonic() + self._patience_s
        tries = 0
        while True:
            overloaded: Overloaded | None = None
            failure: HomewardError = _nobody("there is none")
            for worker in self._in_turn():
                answer = await self._try(worker, ask)
                if not isinstance(answer, _Failure):
                    return answer
                if isinstance(answer.error, Overloaded):
                    overloaded = answer.error
                    continue
                failure = _nobody(f"{worker.address}: {answer.error.message}", answer.error.code)
                tries += answer.reached
                if tries >= _PHOTO_TRIES:
                    raise failure
            if overloaded is not None:
                raise overloaded
            if time.monotonic() >= end:
                raise failure
            await asyncio.sleep(0.1)
            await self._refresh()

    async def _try(
        self, worker: RemoteWorker, ask: Callable[[RemoteWorker], Awaitable[Answer]]
    ) -> Answer | _Failure:
        """One worker's answer, or why another should be asked. Raises what no other would answer better."""
        reached = False
        try:
            await worker.check_model(self._described)
            reached = worker.connected
            answer = await ask(worker)
        except grpc.aio.AioRpcError as failed:
            error = error_from_rpc(failed)
            if failed.code() is grpc.StatusCode.UNAUTHENTICATED:
                error = WorkerUnavailable(error.message, code="WORKER_TOKEN_REFUSED")
        except Unavailable as failed:
            error = failed
        else:
            worker.answered()
            return answer
        if isinstance(error, Unavailable | DeadlineExceeded) and (not reached or error.code in _WORKER_CODES):
            worker.failed()
        if not isinstance(error, Unavailable | Overloaded):
            raise error
        return _Failure(error, reached)

    def _in_turn(self) -> Sequence[RemoteWorker]:
        """Each call begins with the next worker; those that failed just now are asked if all did."""
        workers = list(self._workers.values())
        if not workers:
            return workers
        self._turn = (self._turn + 1) % len(workers)
        workers = workers[self._turn :] + workers[: self._turn]
        return [worker for worker in workers if worker.up] or workers

    async def _learn_model(self) -> HomewardError | None:
        failure: HomewardError = _nobody("there is none")
        try:
            await self._refresh(first=True)
        except HomewardError as error:
            return _nobody(error.message, error.code)
        for worker in self._workers.values():
            try:
                self._model = await worker.describe()
            except grpc.aio.AioRpcError as error:
                failure = _nobody(f"{worker.address}: {error_from_rpc(error).message}")
            else:
                return None
        return failure

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(PLACEMENT_S)
            with contextlib.suppress(HomewardError):  # logged; the workers known stay in use
                await self._refresh()

    async def _refresh(self, *, first: bool = False) -> None:
        """Take the workers that are listed now, if they are others. Raises only when `first`."""
        if self._placements is None:
            self._replace_workers(self._settings.addresses)
            return
        try:
            placed = await asyncio.to_thread(self._placements.read)
        except HomewardError as error:
            if first:
                raise
            _logger.warning("%s; the workers known before stay in use", error.message)
            return
        if placed != self._placed:
            self._placed = placed
            self._replace_workers(self._fitting(placed))

    def _fitting(self, placed: Sequence[PlacedWorker]) -> list[str]:
        """Addresses of the workers, without those that say they run another model."""
        model = self._model
        fitting = []
        for worker in placed:
            if model is None or (worker.model_id, worker.dimension) == (model.model_id, model.dimension):
                fitting.append(worker.address)
            else:
                _logger.warning("%s runs %s and is not asked", worker.address, worker.model_id)
        return fitting

    def _readings(self) -> Iterator[Reading]:
        workers = list(self._workers.values())
        up = sum(worker.up for worker in workers)
        yield Reading(Level.EMBEDDING_WORKERS, up, "up")
        yield Reading(Level.EMBEDDING_WORKERS, len(workers) - up, "silent")

    def _replace_workers(self, addresses: Sequence[str]) -> None:
        for address in self._workers.keys() - set(addresses):
            task = asyncio.create_task(self._workers.pop(address).close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        for address in addresses:
            if address not in self._workers:
                self._workers[address] = RemoteWorker(address, self._settings.token)


def _nobody(why: str, code: str | None = None) -> WorkerUnavailable:
    return WorkerUnavailable(
        f"no embedding worker answers ({why}); start some with `homeward workers start`, and see "
        "`homeward workers status`",
        code=code if code == "WORKER_TOKEN_REFUSED" else None,
    )
