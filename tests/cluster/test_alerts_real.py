"""A real Prometheus over a server, shards and stores that are stopped one after the other."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
import pytest

from benchmarks.filled_children import model
from benchmarks.served import served
from benchmarks.stores import Stores
from homeward.v1 import search_pb2
from scripts.get_promtool import PACKAGE, program
from tests.cluster.children import client_of, enrolling
from tests.cluster.serving import CASE
from tests.promql import CHART, queries, selectors
from tests.servers.milvus import milvus
from tests.servers.postgres import Postgres
from tests.servers.process import free_ports
from tests.servers.prometheus import Prometheus, prometheus
from tests.servers.seaweed import seaweed

ROOT = Path(__file__).resolve().parents[2]
TRUE_S = 120.0  # within which an alert's expression becomes true
ELSEWHERE = ("homeward_load_", "homeward_gpu_", "homeward_embedding_workers", "homeward_unused_photos")
SHARDS = ("shard-0", "shard-1", "shard-2")

pytestmark = [
    pytest.mark.prove,
    pytest.mark.skipif(program("prometheus") is None, reason=f"no prometheus of Debian's package {PACKAGE}"),
]


async def test_stopping_a_shard_s3_and_milvus_each_makes_its_alert_true(
    tmp_path: Path, postgres_server: Postgres
) -> None:
    for_server, for_shards = (f"127.0.0.1:{port}" for port in free_ports(2))
    rules = sorted((CHART / "rules").glob("*.yaml"))
    with ExitStack() as stack:
        s3, vectors = stack.enter_context(seaweed()), stack.enter_context(milvus())
        stores = Stores(
            catalogue=postgres_server.settings(postgres_server.new_database()),
            gallery=vectors.settings("watched", timeout_s=20.0),
            photos=s3.settings("watched"),
            postgres=postgres_server,
            milvus=vectors,
        )
        more = {
            "HOMEWARD_INDEX__WHERE": "shards",
            "HOMEWARD_INDEX__TOKEN": "only-for-tests",
            "HOMEWARD_TELEMETRY__METRICS_ADDRESS": for_shards,
            "HOMEWARD_TELEMETRY__STORE_CHECK_S": "1",
            "HOMEWARD_TELEMETRY__LOG_LEVEL": "error",
            "HOMEWARD_SERVER__METRICS_ADDRESS": for_server,
            "HOMEWARD_INDEX__SELF_CHECK_SHARE": "1",
        }
        environment = os.environ | stores.environment() | more | {"HOMEWARD_DATA_DIR": str(tmp_path / "ray")}
        shards = {name: stack.enter_context(child(name, environment)) for name in ("controller", *SHARDS)}
        watcher = stack.enter_context(prometheus([for_server, for_shards], rules))
        async with (
            served(stores, tmp_path / "server", more) as server,
            grpc.aio.insecure_channel(server.address) as channel,
        ):
            client = client_of(channel)
            await until(lambda: watcher.values('homeward_slots{state="uncovered"}') == [0.0])
            await until(lambda: watcher.values("homeward_missing_slot_replicas") == [0.0])
            await client.enrol(enrolling("nobody", [b"no photo"]))
            searching = asyncio.create_task(keep_searching(client.search))
            await until(lambda: "HomewardShardSilent" not in watcher.alerts())
            assert not watcher.alerts() & {"HomewardPhotoStoreDown", "HomewardGalleryDown"}

            shards["shard-0"].kill()
            await becomes_true(watcher, "HomewardShardSilent")
            s3.server.kill()
            await becomes_true(watcher, "HomewardPhotoStoreDown")
            assert "HomewardGalleryDown" not in watcher.alerts()
            vectors.server.kill()
            await becomes_true(watcher, "HomewardGalleryDown")
            assert "HomewardCatalogueDown" not in watcher.alerts()

            # Searches went on, over the shards that were left: nobody needed S3 or Milvus.
            assert not searching.done()
            searching.cancel()
            answered(watcher)


def answered(watcher: Prometheus) -> None:
    """Every query can be answered, and every metric that one asks for was scraped."""
    scraped = set(watcher.ask("label/__name__/values"))
    for place, query in queries().items():
        watcher.values(query)
        for one in selectors(query):
            if not one.metric.startswith(ELSEWHERE):
                assert one.metric in scraped, f"{place} asks for {one.metric}, which nobody exports"


async def becomes_true(watcher: Prometheus, alert: str) -> None:
    await until(lambda: alert in watcher.alerts())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(TRUE_S):
        while not await asyncio.to_thread(condition):  # noqa: ASYNC110 - another process changes it
            await asyncio.sleep(0.5)


async def keep_searching(stub: object) -> None:
    """One search after the other; ends with the first that fails."""
    model_id, dimension = model()
    template = search_pb2.Template(values=[1.0, *[0.0] * (dimension - 1)], model_id=model_id)
    request = search_pb2.SearchRequest(context=CASE, template=template)
    while True:
        await stub.Search(request)  # type: ignore[attr-defined]
        await asyncio.sleep(0.05)


@contextmanager
def child(name: str, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.cluster.shard_child", name],
        stdout=subprocess.PIPE,
        env=environment,
        cwd=ROOT,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"it runs\n"
            yield process
        finally:
            process.kill()
