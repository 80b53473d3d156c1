"""Embedding over the socket: the same answers, the token, workers that die, change or refuse."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from homeward.config import WorkerSettings
from homeward.errors import (
    HomewardError,
    InvalidInput,
    Overloaded,
    PhotoReason,
    PhotoRejected,
    StoreUnavailable,
    Unavailable,
    WorkerUnavailable,
)
from homeward.face_message import write_landmarks
from homeward.internal_port import bearer
from homeward.status import error_from_rpc
from homeward.types import PhotoFaces
from homeward.v1 import embedding_pb2, embedding_pb2_grpc
from tests.workers.fakes import FakePipeline, FakePool, faces_of
from workers.embedding import Embedding
from workers.local import LocalEmbedding
from workers.placement import PlacedWorker, Placements
from workers.remote import open_remote
from workers.rpc import read_faces, write_faces
from workers.service import serving

TOKEN = SecretStr("a token of the tests")
LIMIT = 1 << 20


class Listed:
    """`Placements` in memory."""

    def __init__(self) -> None:
        self.workers: dict[str, PlacedWorker] = {}
        self.failure: HomewardError | None = None

    def read(self) -> list[PlacedWorker]:
        if self.failure is not None:
            raise self.failure
        return sorted(self.workers.values(), key=lambda worker: worker.name)

    def place(self, worker: PlacedWorker) -> None:
        self.workers[worker.name] = worker

    def remove(self, name: str) -> None:
        self.workers.pop(name, None)


@asynccontextmanager
async def worker(
    pipeline: FakePipeline | None = None, *, token: SecretStr | None = TOKEN, queue_max: int = 64
) -> AsyncIterator[str]:
    workers = WorkerSettings(max_photo_bytes=LIMIT, queue_max=queue_max)
    embedding = LocalEmbedding(pipeline or FakePipeline(), FakePool(), workers)
    try:
        async with serving(embedding, "127.0.0.1:0", token, max_photo_bytes=LIMIT) as address:
            yield address
    finally:
        await embedding.close()


@asynccontextmanager
async def process(address: str = "127.0.0.1:0", *, model_id: str = "") -> AsyncIterator[tuple[str, int]]:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.workers.serve_fake", address, TOKEN.get_secret_value(), model_id,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        line = await asyncio.wait_for(child.stdout.readline(), 60)
        yield line.decode().strip(), child.pid
    finally:
        child.stdin.close()
        await child.wait()


@asynccontextmanager
async def client(
    addresses: Sequence[str] = (),
    *,
    placements: Placements | None = None,
    token: SecretStr | None = TOKEN,
    patience_s: float = 5.0,
    start_s: float = 5.0,
) -> AsyncIterator[Embedding]:
    chosen = WorkerSettings(addresses=tuple(addresses), token=token, max_photo_bytes=LIMIT)
    remote = await open_remote(chosen, placements, start_s=start_s, patience_s=patience_s)
    try:
        yield remote
    finally:
        await remote.close()


def same(one: PhotoFaces, other: PhotoFaces) -> bool:
    """Bit for bit: what is not text or a whole number is made of float32."""
    return write_faces(one).SerializeToString(deterministic=True) == write_faces(other).SerializeToString(
        deterministic=True
    )


async def test_the_answer_is_the_same_as_without_a_socket() -> None:
    async with worker() as address, client([address]) as remote:
        photos = [b"photo %d" % i for i in range(50)]
        answers = await asyncio.gather(*(remote.embed(photo) for photo in photos))
        assert [answer.sha256 for answer in answers] == [faces_of(photo).sha256 for photo in photos]
        assert all(same(answer, faces_of(photo)) for answer, photo in zip(answers, photos, strict=True))
        assert (remote.model_id, remote.dimension) == ("fake/1", 8)
        landmarks = np.arange(10, dtype=np.float32).reshape(5, 2)
        assert await remote.crop(b"photo", landmarks) == b"\x89PNGphoto" + landmarks.tobytes()


@given(
    values=st.lists(st.floats(-1, 1, width=32), min_size=8, max_size=8).filter(
        lambda v: np.linalg.norm(v) > 1e-3
    ),
    grade=st.integers(0, 1000),
)
def test_a_template_travels_bit_for_bit(values: list[float], grade: int) -> None:
    faces = faces_of(b"photo")
    raw = np.array(values, np.float32)
    template = (raw / np.linalg.norm(raw.astype(np.float64))).astype(np.float32)
    face = faces.faces[0]
    quality = type(face.quality)(grade / 10, {"size": grade / 10}, ("a", "b"))
    face = type(face)(face.ordinal, face.box, face.landmarks, face.detector_score, quality, template)
    sent = PhotoFaces(faces.sha256, faces.media_type, 1, 2, faces.model_id, (face,))
    message = embedding_pb2.EmbedResponse.FromString(write_faces(sent).SerializeToString())
    received = read_faces(message, 8)
    assert received.faces[0].template.tobytes() == template.tobytes()
    assert received.faces[0].quality == quality


@pytest.mark.parametrize("raw", [b"", b"\0" * 32, b"\xff" * 32, b"\0" * 31, b"\0\0\x80\x3f" * 8])
async def test_a_template_that_is_none_is_refused(raw: bytes) -> None:
    message = write_faces(faces_of(b"photo"))
    message.faces[0].template = raw
    with pytest.raises(HomewardError) as refused:
        read_faces(message, 8)
    assert refused.value.code == "CORRUPT"


async def test_errors_arrive_with_their_type_code_and_details() -> None:
    async with worker() as address, client([address]) as remote:
        with pytest.raises(PhotoRejected) as refused:
            await remote.embed(b"bad")
        assert refused.value.reason is PhotoReason.FORMAT_UNKNOWN
        assert refused.value.message == "these bytes are no photo"
        assert refused.value.details == {"byte": "3"}
        with pytest.raises(PhotoRejected) as refused:
            await remote.embed(b"x" * (LIMIT + 1))
        assert refused.value.reason is PhotoReason.TOO_MANY_BYTES
        with pytest.raises(InvalidInput) as wrong:
            await remote.crop(b"photo", np.full((5, 2), np.nan, np.float32))
        assert wrong.value.details["field"] == "landmarks"
        await remote.embed(b"x" * LIMIT)


@pytest.mark.parametrize("shown", [None, SecretStr("another token"), SecretStr("")])
async def test_a_wrong_token_is_refused(shown: SecretStr | None) -> None:
    async with worker() as address:
        async with grpc.aio.insecure_channel(address) as channel:
            stub = embedding_pb2_grpc.EmbeddingServiceStub(channel)
            metadata = bearer(shown)
            for call in (
                stub.Embed(embedding_pb2.EmbedRequest(photo=b"photo"), metadata=metadata),
                stub.Crop(embedding_pb2.CropRequest(photo=b"photo"), metadata=metadata),
                stub.DescribeModel(embedding_pb2.DescribeModelRequest(), metadata=metadata),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await call  # type: ignore[misc]
                assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        with pytest.raises(WorkerUnavailable, match="HOMEWARD_WORKERS__TOKEN"):
            async with client([address], token=shown, start_s=0):
                pass


async def test_a_worker_off_loopback_wants_a_token() -> None:
    embedding = LocalEmbedding(FakePipeline(), FakePool(), WorkerSettings())
    with pytest.raises(InvalidInput) as refused:
        async with serving(embedding, "0.0.0.0:0", None, max_photo_bytes=LIMIT):
            pass
    assert refused.value.code == "TOKEN_REQUIRED"
    async with worker(token=None) as address, client([address], token=None) as remote:
        await remote.embed(b"on loopback")
        with pytest.raises(Unavailable) as taken:
            async with serving(embedding, address, None, max_photo_bytes=LIMIT):
                pass
        assert taken.value.code == "ADDRESS_IN_USE"
        port = int(address.rpartition(":")[2])
        async with serving(embedding, f"127.0.0.1:{port}-{port + 9}", None, max_photo_bytes=LIMIT) as other:
            assert port < int(other.rpartition(":")[2]) <= port + 9, "another of the ports"
    await embedding.close()


async def test_photos_take_turns_over_the_workers() -> None:
    pipelines = [FakePipeline() for _ in range(3)]
    async with AsyncExitStack() as stack:
        addresses = [await stack.enter_async_context(worker(pipeline)) for pipeline in pipelines]
        remote = await stack.enter_async_context(client(addresses))
        for i in range(9):
            await remote.embed(b"photo %d" % i)
        assert [sum(map(len, pipeline.batches)) for pipeline in pipelines] == [3, 3, 3]


async def test_a_full_worker_is_passed_over_and_all_full_is_said() -> None:
    full, idle = FakePipeline(), FakePipeline()
    async with worker(full, queue_max=1) as first, worker(idle) as second:
        full.gate.clear()
        async with client([first]) as remote:
            tasks = [asyncio.create_task(remote.embed(b"held %d" % i)) for i in range(8)]
            with pytest.raises(Overloaded):  # two batches are being worked on, one photo waits
                await asyncio.gather(*tasks)
            async with client([first, second]) as both:
                for i in range(4):
                    await both.embed(b"passed on %d" % i)
            full.gate.set()
            await asyncio.gather(*tasks, return_exceptions=True)
        assert sum(map(len, idle.batches)) == 4


async def test_after_kill_9_the_next_worker_answers() -> None:
    async with process() as (first, pid), process() as (second, _), client([first, second]) as remote:
        await asyncio.gather(*(remote.embed(b"before %d" % i) for i in range(8)))
        _kill(pid)
        answers = await asyncio.gather(*(remote.embed(b"after %d" % i) for i in range(20)))
        assert [answer.sha256 for answer in answers] == [faces_of(b"after %d" % i).sha256 for i in range(20)]


async def test_a_worker_that_comes_back_at_its_address_is_used_again() -> None:
    async with process() as (address, pid), client([address], patience_s=30) as remote:
        await remote.embed(b"before")
        _kill(pid)
        waiting = asyncio.create_task(remote.embed(b"while it is away"))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        async with process(address):
            assert (await waiting).sha256 == faces_of(b"while it is away").sha256


async def test_without_any_worker_the_error_says_what_to_do() -> None:
    with pytest.raises(WorkerUnavailable, match="homeward workers start"):
        async with client(["127.0.0.1:1"], start_s=0):
            pass
    async with process() as (address, pid), client([address], patience_s=0.3) as remote:
        await remote.embed(b"before")
        _kill(pid)
        with pytest.raises(WorkerUnavailable, match="homeward workers start"):
            await remote.embed(b"after")


async def test_a_photo_that_fails_everywhere_is_given_to_few_workers() -> None:
    pipelines = [FakePipeline() for _ in range(5)]
    async with AsyncExitStack() as stack:
        addresses = [await stack.enter_async_context(worker(pipeline)) for pipeline in pipelines]
        remote = await stack.enter_async_context(client(addresses))
        await asyncio.gather(*(remote.embed(b"warm") for _ in range(5)))
        before = sum(len(pipeline.batches) for pipeline in pipelines)
        with pytest.raises(WorkerUnavailable):
            await remote.embed(b"poison")
        assert sum(len(pipeline.batches) for pipeline in pipelines) - before <= 3
        await remote.embed(b"next")


async def test_a_worker_of_another_model_is_refused() -> None:
    other = FakePipeline()
    other.model_id = "fake/2"
    async with worker() as first, worker(other) as second:
        async with client([first, second], patience_s=0.2) as remote:
            for i in range(6):
                assert (await remote.embed(b"photo %d" % i)).model_id == "fake/1"
        assert other.batches == []


async def test_a_worker_that_changes_its_model_is_noticed() -> None:
    pipeline = FakePipeline()
    async with worker(pipeline) as address, client([address], patience_s=0.2) as remote:
        await remote.embed(b"photo")
        pipeline.model_id = "fake/2"
        embed = pipeline.embed_each
        pipeline.embed_each = lambda photos: [  # type: ignore[method-assign]
            PhotoFaces(faces.sha256, faces.media_type, 1, 1, "fake/2", faces.faces)
            for faces in embed(photos)
            if isinstance(faces, PhotoFaces)
        ]
        with pytest.raises(WorkerUnavailable, match="fake/2"):
            await remote.embed(b"photo")


async def test_the_list_of_workers_is_followed() -> None:
    pipelines = [FakePipeline(), FakePipeline()]
    listed = Listed()
    async with worker(pipelines[0]) as first:
        listed.place(PlacedWorker("a", first, "fake/1", 8))
        async with client(placements=listed) as remote, worker(pipelines[1]) as second:
            await remote.embed(b"one")
            listed.place(PlacedWorker("a", second, "fake/1", 8))
            listed.place(PlacedWorker("b", "127.0.0.1:1", "fake/2", 8))
            await _until(lambda: remote.embed(b"two"), lambda: len(pipelines[1].batches) > 0)
            seen = len(pipelines[0].batches)
            listed.failure = StoreUnavailable("the catalogue does not answer")
            await asyncio.sleep(0.7)
            await remote.embed(b"three")
            assert len(pipelines[0].batches) == seen
            listed.failure = None
            listed.remove("a")
            with pytest.raises(WorkerUnavailable):
                await _until(lambda: remote.embed(b"four"), lambda: False)


async def test_without_a_list_that_answers_nothing_is_opened() -> None:
    listed = Listed()
    with pytest.raises(WorkerUnavailable, match="homeward workers start"):
        async with client(placements=listed, start_s=0.3):
            pass
    listed.failure = StoreUnavailable("the catalogue does not answer")
    with pytest.raises(WorkerUnavailable, match="the catalogue does not answer"):
        async with client(placements=listed, start_s=0.3):
            pass


class _Background:
    """A worker in a thread of its own, for tests that hypothesis calls many times."""

    def __init__(self) -> None:
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._main(),))

    def __enter__(self) -> str:
        self._thread.start()
        assert self._ready.wait(30)
        return self._address

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _main(self) -> None:
        async with worker() as self._address:
            self._ready.set()
            await self._stop.wait()


def test_any_bytes_get_an_answer_or_a_typed_error() -> None:
    landmarks = write_landmarks(np.ones((5, 2), np.float32))
    valid = embedding_pb2.CropRequest(photo=b"photo", landmarks=landmarks).SerializeToString()
    with _Background() as address, grpc.insecure_channel(address) as channel:

        @settings(max_examples=150, deadline=None)
        @given(
            method=st.sampled_from(("Embed", "Crop", "DescribeModel")),
            raw=st.binary(max_size=200)
            | st.tuples(st.integers(0, len(valid) - 1), st.binary(max_size=4)).map(
                lambda cut: valid[: cut[0]] + cut[1] + valid[cut[0] + 1 :]
            ),
        )
        def check(method: str, raw: bytes) -> None:
            call: Any = channel.unary_unary(f"/homeward.v1.EmbeddingService/{method}")
            with contextlib.suppress(InvalidInput):
                try:
                    call(raw, timeout=10, metadata=bearer(TOKEN))
                except grpc.RpcError as error:
                    raise error_from_rpc(error) from error

        check()


def _kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


async def _until(act: Callable[[], Awaitable[object]], done: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not done():
            await act()
            await asyncio.sleep(0.05)
