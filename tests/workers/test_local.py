"""How photos reach the model in this process: batches, order, refusals, the end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import wait

import numpy as np
import pytest

from homeward.config import WorkerSettings
from homeward.errors import (
    HomewardError,
    InvalidInput,
    Overloaded,
    PhotoReason,
    PhotoRejected,
    Unavailable,
)
from homeward.types import PhotoFaces
from tests.workers.fakes import FakePipeline, FakePool, faces_of, template_of
from workers.decode import DecodedPhoto
from workers.local import LocalEmbedding

SETTINGS = WorkerSettings(batch_max=4, queue_max=6, max_photo_bytes=1024)


class Rig:
    def __init__(self, settings: WorkerSettings = SETTINGS) -> None:
        self.pipeline = FakePipeline()
        self.pool = FakePool()
        self.embedding = LocalEmbedding(self.pipeline, self.pool, settings)

    async def hold_model(self, photo: bytes = b"first") -> asyncio.Task[object]:
        """Start a photo and return while the model is busy with it."""
        self.pipeline.gate.clear()
        task: asyncio.Task[object] = asyncio.create_task(self.embedding.embed(photo))
        assert await asyncio.to_thread(self.pipeline.started.acquire, timeout=10)
        return task

    async def decoded(self, batches: int) -> None:
        """Return once the pool has seen so many batches."""
        async with asyncio.timeout(10):
            while len(self.pool.batches) < batches:  # noqa: ASYNC110 - a list counted from a thread
                await asyncio.sleep(0.001)


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    made = Rig()
    yield made
    made.pipeline.gate.set()
    await made.embedding.close()


async def test_a_photo_becomes_the_pipelines_faces(rig: Rig) -> None:
    faces = await rig.embedding.embed(b"photo")
    assert faces.sha256 == faces_of(b"photo").sha256
    assert faces.faces[0].template.tobytes() == template_of(b"photo").tobytes()
    assert (rig.embedding.model_id, rig.embedding.dimension, rig.embedding.device) == ("fake/1", 8, "cpu")


async def test_a_lone_photo_never_waits(rig: Rig) -> None:
    for _ in range(3):
        await rig.embedding.embed(b"alone")
    assert [len(batch) for batch in rig.pipeline.batches] == [1, 1, 1]


async def test_photos_that_arrive_while_a_batch_works_form_batches(rig: Rig) -> None:
    first = await rig.hold_model()
    second = asyncio.create_task(rig.embedding.embed(b"second"))
    await rig.decoded(2)  # decoded while the model is busy, and waiting for it
    later = [asyncio.create_task(rig.embedding.embed(b"later %d" % i)) for i in range(5)]
    await asyncio.sleep(0.05)
    assert rig.pool.batches == [1, 1]  # no third batch of pixels in memory
    rig.pipeline.gate.set()
    await asyncio.gather(first, second, *later)
    assert [len(batch) for batch in rig.pipeline.batches] == [1, 1, 4, 1]
    assert rig.pool.batches == [1, 1, 4, 1]


async def test_each_caller_gets_its_own_answer() -> None:
    rig = Rig(WorkerSettings(batch_max=7, queue_max=200))
    photos = [b"photo %d" % i for i in range(100)]
    answers = await asyncio.gather(*(rig.embedding.embed(photo) for photo in photos))
    assert [answer.sha256 for answer in answers] == [faces_of(photo).sha256 for photo in photos]
    assert max(len(batch) for batch in rig.pipeline.batches) <= 7
    await rig.embedding.close()


async def test_more_than_the_queue_holds_is_refused(rig: Rig) -> None:
    first = await rig.hold_model()
    second = asyncio.create_task(rig.embedding.embed(b"second"))
    await rig.decoded(2)
    waiting = [asyncio.create_task(rig.embedding.embed(b"waits")) for _ in range(6)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded) as refused:
        await rig.embedding.embed(b"one too many")
    assert refused.value.retry_after_s > 0
    rig.pipeline.gate.set()
    await asyncio.gather(first, second, *waiting)


async def test_two_batches_share_the_cores_and_one_alone_has_them_all() -> None:
    told: list[tuple[str, int]] = []
    worked: list[str] = []
    pipeline, pool = FakePipeline(), FakePool()
    embed_each = pipeline.embed_each

    def recorded(photos: Sequence[DecodedPhoto]) -> list[PhotoFaces | HomewardError]:
        worked.append(threading.current_thread().name)
        return embed_each(photos)

    pipeline.embed_each = recorded  # type: ignore[method-assign]
    embedding = LocalEmbedding(
        pipeline,
        pool,
        SETTINGS,
        cores=5,
        use_cores=lambda n: told.append((threading.current_thread().name, n)),
    )
    pipeline.gate.clear()
    tasks = []
    for number in range(2):
        tasks.append(asyncio.create_task(embedding.embed(b"photo %d" % number)))
        assert await asyncio.to_thread(pipeline.started.acquire, timeout=10)
    later = [asyncio.create_task(embedding.embed(b"later %d" % number)) for number in range(3)]
    await asyncio.sleep(0.05)
    assert len(pipeline.batches) == 2  # no third one
    pipeline.gate.set()
    await asyncio.gather(*tasks, *later)
    await asyncio.to_thread(wait, embedding._busy().values())  # answers leave a moment before a batch ends
    await embedding.embed(b"alone again")
    assert worked[:2] == ["model_0", "model-half-a_0"]
    assert worked[-1] == "model_0"
    assert told == [("model-half-a_0", 2), ("model-half-b_0", 2), ("model_0", 5)]
    await embedding.close()


async def test_callers_that_left_cost_no_model_time(rig: Rig) -> None:
    first = await rig.hold_model()
    decoded = asyncio.create_task(rig.embedding.embed(b"left after its decode"))
    await rig.decoded(2)
    await asyncio.sleep(0.05)
    queued = asyncio.create_task(rig.embedding.embed(b"left in the queue"))
    stays = asyncio.create_task(rig.embedding.embed(b"stays"))
    await asyncio.sleep(0)
    decoded.cancel()
    queued.cancel()
    await asyncio.gather(decoded, queued, return_exceptions=True)  # they have left
    rig.pipeline.gate.set()
    await asyncio.gather(first, stays)
    assert rig.pipeline.batches == [[b"first"], [b"stays"]]
    assert rig.pool.batches == [1, 1, 1]


async def test_a_caller_that_leaves_during_the_model_harms_nobody(rig: Rig) -> None:
    first = await rig.hold_model()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    rig.pipeline.gate.set()
    assert (await rig.embedding.embed(b"next")).sha256 == faces_of(b"next").sha256


async def test_a_refused_photo_costs_its_own_caller_alone(rig: Rig) -> None:
    answers = await asyncio.gather(
        *(rig.embedding.embed(photo) for photo in (b"good 1", b"bad", b"good 2")), return_exceptions=True
    )
    assert isinstance(answers[1], PhotoRejected)
    assert answers[1].reason is PhotoReason.FORMAT_UNKNOWN
    assert [type(answer).__name__ for answer in answers] == ["PhotoFaces", "PhotoRejected", "PhotoFaces"]


async def test_a_photo_that_breaks_the_model_costs_its_own_caller_alone(rig: Rig) -> None:
    first = await rig.hold_model()
    second = asyncio.create_task(rig.embedding.embed(b"second"))
    await rig.decoded(2)
    rest = [asyncio.create_task(rig.embedding.embed(photo)) for photo in (b"good 1", b"poison", b"good 2")]
    await asyncio.sleep(0)
    rig.pipeline.gate.set()
    answers = await asyncio.gather(*rest, return_exceptions=True)
    assert [type(answer).__name__ for answer in answers] == ["PhotoFaces", "WorkerUnavailable", "PhotoFaces"]
    assert [len(batch) for batch in rig.pipeline.batches] == [1, 1, 3]
    await asyncio.gather(first, second)


async def test_a_broken_model_fails_its_batch_and_the_next_one_works(rig: Rig) -> None:
    with pytest.raises(TypeError, match="the model is broken"):
        await rig.embedding.embed(b"break")
    await rig.embedding.embed(b"photo")


async def test_a_dead_decoder_pool_fails_its_batch_and_the_next_one_works(rig: Rig) -> None:
    good = rig.pool.decode_many

    def broken(_: object) -> None:
        rig.pool.decode_many = good  # type: ignore[method-assign]
        raise OSError("no process can be started")

    rig.pool.decode_many = broken  # type: ignore[assignment, method-assign]
    with pytest.raises(OSError, match="no process"):
        await rig.embedding.embed(b"photo")
    await rig.embedding.embed(b"photo")


async def test_a_photo_of_too_many_bytes_never_waits_in_the_queue(rig: Rig) -> None:
    with pytest.raises(PhotoRejected) as refused:
        await rig.embedding.embed(b"x" * 1025)
    assert refused.value.reason is PhotoReason.TOO_MANY_BYTES
    assert rig.pool.batches == []


async def test_a_batch_has_a_limit_of_bytes() -> None:
    rig = Rig(WorkerSettings(batch_max=100, max_photo_bytes=1024))
    first = await rig.hold_model()
    second = asyncio.create_task(rig.embedding.embed(b"second"))
    await rig.decoded(2)
    large = [asyncio.create_task(rig.embedding.embed(b"%04d" % i * 256)) for i in range(10)]
    await asyncio.sleep(0)
    rig.pipeline.gate.set()
    await asyncio.gather(first, second, *large)
    assert rig.pool.batches == [1, 1, 4, 4, 2]
    await rig.embedding.close()


async def test_crops_travel_with_the_faces(rig: Rig) -> None:
    landmarks = np.arange(10, dtype=np.float32).reshape(5, 2)
    png, faces = await asyncio.gather(rig.embedding.crop(b"photo", landmarks), rig.embedding.embed(b"photo"))
    assert png == b"\x89PNGphoto" + landmarks.tobytes()
    assert len(faces.faces) == 1
    with pytest.raises(PhotoRejected):
        await rig.embedding.crop(b"bad", landmarks)
    with pytest.raises(InvalidInput):
        await rig.embedding.crop(b"photo", landmarks[:4])
    with pytest.raises(InvalidInput):
        await rig.embedding.crop(b"photo", np.full((5, 2), np.nan, np.float32))


async def test_closing_finishes_what_was_accepted_and_refuses_the_rest() -> None:
    rig = Rig()
    first = await rig.hold_model()
    queued = [asyncio.create_task(rig.embedding.embed(b"queued")) for _ in range(3)]
    await asyncio.sleep(0)
    closing = asyncio.create_task(rig.embedding.close())
    await asyncio.sleep(0.05)
    assert not rig.pool.closed
    with pytest.raises(Unavailable):
        await rig.embedding.embed(b"late")
    rig.pipeline.gate.set()
    await asyncio.gather(first, *queued, closing)
    assert rig.pool.closed
