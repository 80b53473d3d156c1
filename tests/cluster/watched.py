"""A server over shards and an embedding worker whose metrics and logs a test reads. All in one process, with
the fake model: real ports, real following, a real page."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import urllib.request
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from cluster.compose import Parts
from cluster.server import OpenParts, running_server
from homeward.config import ServerSettings, Settings, TelemetrySettings, WorkerSettings
from homeward.logs import logging_to
from homeward.telemetry import sinks, watching
from tests.cluster.children import Client, client_of
from tests.cluster.fakes import FakeEmbedding
from tests.cluster.sharded import Farm, opening_sharded
from tests.servers.process import free_port
from workers.remote import open_remote
from workers.service import serving as serving_worker

WORKER_TOKEN = "token-of-the-workers"


@dataclass(slots=True)
class Watched:
    """The server, how to call it, its page and what was logged so far."""

    farm: Farm
    client: Client
    channel: grpc.aio.Channel
    address: str  # of the metrics
    logged: io.StringIO

    def lines(self) -> list[dict[str, Any]]:
        """What was logged so far, what is about to be written too."""
        for handler in logging.getLogger().handlers:
            handler.flush()
        return [json.loads(line) for line in self.logged.getvalue().splitlines()]

    async def page(self) -> dict[str, Metric]:
        """What Prometheus would read now, by name."""
        return await asyncio.to_thread(page, self.address)


def page(address: str) -> dict[str, Metric]:
    """The families of a page. Raises `ValueError` when it is not in the format."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as reply:
        text = reply.read().decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def names(families: dict[str, Metric]) -> set[str]:
    """What queries may ask for; families that have a type and no series yet, too."""
    found = {sample.name for family in families.values() for sample in family.samples}
    return found | {f"{name}_total" for name, one in families.items() if one.type == "counter"}


@asynccontextmanager
async def watched(folder: Path, *, level: str = "info") -> AsyncIterator[Watched]:
    """Serve while the context lasts; logs are JSON."""
    telemetry = TelemetrySettings(log_format="json", log_level=level, store_check_s=0.2)
    settings = Settings(
        data_dir=folder,
        server=ServerSettings(address="127.0.0.1:0", metrics_address=f"127.0.0.1:{free_port()}"),
        telemetry=telemetry,
    )
    farms: list[Farm] = []
    logged = io.StringIO()
    async with AsyncExitStack() as stack:
        sink = stack.enter_context(logging_to(telemetry, "server", logged))
        stack.enter_context(sinks(sink))
        worker = await stack.enter_async_context(
            serving_worker(FakeEmbedding(), "127.0.0.1:0", SecretStr(WORKER_TOKEN), max_photo_bytes=1 << 20)
        )
        workers = WorkerSettings(addresses=(worker,), token=SecretStr(WORKER_TOKEN))
        running = await stack.enter_async_context(
            running_server(settings, _with_workers(opening_sharded(farms, shards=2), workers))
        )
        (farm,) = farms
        for shard in farm.shards.values():
            stack.enter_context(watching(shard.node.readings))
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(running.address))
        await farm.placed(2)
        yield Watched(farm, client_of(channel), channel, settings.server.metrics_address, logged)


def _with_workers(open_parts: OpenParts, workers: WorkerSettings) -> OpenParts:
    @asynccontextmanager
    async def opened(settings: Settings) -> AsyncIterator[Parts]:
        embedding = await open_remote(workers)
        try:
            async with open_parts(settings) as parts:
                yield replace(parts, embedding=embedding)
        finally:
            await embedding.close()

    return opened
