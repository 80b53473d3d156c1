"""A client with the service config that the chart publishes: searches at a steady rate over all servers."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import grpc

from benchmarks.headless import Headless
from homeward.v1 import search_pb2
from homeward.v1.search_pb2_grpc import SearchServiceStub
from tests.helm.chart import Rendered

if TYPE_CHECKING:
    from homeward.v1.search_pb2_grpc import SearchServiceAsyncStub

TIMEOUT_S = 30.0
_RETRY_BUFFER = 32 << 20  # as docs/kubernetes.md says: else calls with photos are not tried again


@dataclass(frozen=True, slots=True)
class Asked:
    """One search of a request, by its number; monotonic seconds."""

    request: int
    due: float  # when it was to be sent
    ended: float
    response: search_pb2.SearchResponse | None  # None when it failed
    error: str = ""

    @property
    def seconds(self) -> float:
        """From when it was due."""
        return self.ended - self.due


def published(rendered: Rendered) -> tuple[str, str]:
    """The name and port that clients call (`name:port`), and their service config."""
    data = rendered.one("ConfigMap", "-clients")["data"]
    return str(data["target"]).removeprefix("dns:///"), str(data["service-config.json"])


def without_retries(service_config: str) -> str:
    """The same service config, but for retries: gRPC's own, of calls that no server has seen, stay."""
    said = json.loads(service_config)
    for method in said["methodConfig"]:
        del method["retryPolicy"]
    return json.dumps(said)


def channel(service: Headless, target: str, service_config: str, authority: bytes) -> grpc.aio.Channel:
    """As documented for clients, but for the DNS server, which is the one of the Service here."""
    return grpc.aio.secure_channel(
        f"dns://{service.address}/{target}",
        grpc.ssl_channel_credentials(root_certificates=authority),
        options=[
            ("grpc.service_config", service_config),
            ("grpc.per_rpc_retry_buffer_size", _RETRY_BUFFER),
            ("grpc.max_receive_message_length", _RETRY_BUFFER),
        ],
    )


@asynccontextmanager
async def searching(
    over: grpc.aio.Channel, requests: Sequence[search_pb2.SearchRequest], rate: float
) -> AsyncIterator[list[Asked]]:
    """Search, so many times a second and the requests in turns, while the context lasts. Yields what was
    asked so far; at the end searches under way are waited for."""
    asked: list[Asked] = []
    task = asyncio.create_task(_ask(over, requests, rate, asked))
    try:
        yield asked
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        asked.sort(key=lambda one: one.due)


async def _ask(
    over: grpc.aio.Channel, requests: Sequence[search_pb2.SearchRequest], rate: float, asked: list[Asked]
) -> None:
    stub = cast("SearchServiceAsyncStub", SearchServiceStub(over))
    running: set[asyncio.Task[None]] = set()

    async def ask(number: int, due: float) -> None:
        response, error = None, ""
        try:
            response = await stub.Search(requests[number], timeout=TIMEOUT_S)
        except grpc.aio.AioRpcError as failed:
            error = f"{failed.code().name}: {failed.details()}"
        except Exception as failed:  # noqa: BLE001 - whatever it is, the search failed
            error = repr(failed)
        asked.append(Asked(number, due, time.monotonic(), response, error))

    begun = time.monotonic()
    try:
        for number in itertools.count():
            due = begun + number / rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            task = asyncio.create_task(ask(number % len(requests), due))
            running.add(task)
            task.add_done_callback(running.discard)
    finally:
        await asyncio.gather(*running, return_exceptions=True)
