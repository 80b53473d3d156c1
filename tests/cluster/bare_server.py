"""A server over a socket that searches with templates alone, and what it is asked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cluster.rpc.status import error_from_rpc
from cluster.server import RunningServer, running_server
from homeward.config import ServerSettings, Settings
from homeward.errors import HomewardError
from homeward.v1 import search_pb2
from tests.cluster.fakes import MODEL_ID, FakeEmbedding, fake_template
from tests.cluster.serving import CASE, opening


@asynccontextmanager
async def serving(
    folder: Path, embedding: FakeEmbedding | None = None, **server: Any
) -> AsyncIterator[RunningServer]:
    settings = Settings(data_dir=folder, server=ServerSettings(**{"address": "127.0.0.1:0", **server}))
    async with running_server(settings, opening(embedding, enrols=False)) as running:
        yield running


def by_template(seed: bytes = b"anybody") -> search_pb2.SearchRequest:
    return search_pb2.SearchRequest(
        context=CASE,
        template=search_pb2.Template(values=fake_template(seed, 0).tolist(), model_id=MODEL_ID),
    )


async def refusal(call: Any) -> HomewardError:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call
    return error_from_rpc(failed.value)


async def health(channel: grpc.aio.Channel, service: str = "") -> int:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
    return int(answer.status)
