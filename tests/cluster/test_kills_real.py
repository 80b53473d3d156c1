"""kill -9 of a server with the default model, decoder children and all, while it enrols real photos."""

from __future__ import annotations

import asyncio
import io
import random
from pathlib import Path

import grpc
import numpy as np
import numpy.typing as npt
import pytest
import skimage.data
from PIL import Image

from homeward.ids import record_id
from homeward.types import RecordKey
from homeward.v1 import operations_pb2
from tests.cluster.children import Client, enrolling
from tests.cluster.killable import kill, killable

KILLS = 4
CHILDREN = 60
LONGEST_S = 1.5


def portraits(count: int) -> list[bytes]:
    """One real face in photos that differ a little."""
    pixels: npt.NDArray[np.uint8] = skimage.data.astronaut()  # type: ignore[no-untyped-call]
    found = []
    for number in range(count):
        shifted = pixels[number % 12 : 420 + number % 12, 20 + number // 12 : 420 + number // 12]
        out = io.BytesIO()
        Image.fromarray(shifted).save(out, "JPEG", quality=90)
        found.append(out.getvalue())
    return found


def name_of(child: int) -> str:
    return record_id(RecordKey("agency-a", "missing", f"child {child}"))


@pytest.mark.prove
@pytest.mark.timeout(900)
async def test_kills_under_the_real_model_lose_nothing(tmp_path: Path) -> None:
    chance, photos = random.Random(5), portraits(CHILDREN)
    waiting, acknowledged, gone = list(range(CHILDREN)), set[int](), set[int]()

    async def work(client: Client) -> None:
        while waiting:
            child = waiting.pop(0)
            try:
                answer = await client.enrol(
                    enrolling(f"child {child}", [photos[child]], request_id=f"enrol {child}")
                )
                assert answer.record.searchable
                acknowledged.add(child)
                if child % 3 == 0:
                    await client.delete(answer.record.record_id, f"delete {child}")
                    gone.add(child)
            except grpc.aio.AioRpcError as error:
                assert error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)  # noqa: PT017
                if child not in acknowledged:
                    waiting.append(child)
                return

    for _ in range(KILLS):
        async with killable(tmp_path, real=True) as (process, client):
            running = asyncio.gather(*(work(client) for _ in range(4)))
            await asyncio.sleep(chance.random() * LONGEST_S)
            await kill(process)
            await running
    async with killable(tmp_path, real=True) as (_, client):
        await asyncio.gather(*(work(client) for _ in range(4)))
        assert len(acknowledged) == CHILDREN
        await client.checks(mend=True)
        clean = await client.checks()
        for name in ("deletions", "photos", "gallery", "facts", "index"):
            assert clean[name].state == operations_pb2.CHECK_STATE_OK, clean[name]
        status = await client.operations.GetStatus(operations_pb2.GetStatusRequest())
        kept = 0
        for child in range(CHILDREN):
            try:
                assert (await client.get(name_of(child))).searchable
                assert child not in gone, "a deleted child came back"
                kept += 1
            except grpc.aio.AioRpcError:
                assert child % 3 == 0, "an acknowledged child was lost"
        assert status.rows == status.records == kept
