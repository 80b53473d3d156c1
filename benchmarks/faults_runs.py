"""The runs of `benchmarks.faults`: everything that is started, and what is killed when."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from pydantic import SecretStr

from benchmarks.faults_load import Writer, loaded, near, searches
from benchmarks.faults_truth import Truth
from benchmarks.faults_watch import Look, Watch, watching
from benchmarks.filled import Filled
from benchmarks.open_loop import Answer
from benchmarks.search_rows import probes, real_like
from benchmarks.search_timing import say
from benchmarks.served import served
from catalogue.open import open_catalogue
from cluster.demo.distractors import AGENCY, GALLERY, distractors
from cluster.gallery_rows import GalleryRows
from cluster.live import ShardedIndex, milvus_fallback
from cluster.shard_maps import ShardMaps
from cluster.shard_process import IndexModel
from homeward.config import IndexSettings, Settings
from homeward.types import Attributes, PhotoNote, RecordKey
from homeward.v1 import search_pb2
from index.columns import concatenate, from_rows
from index.open import open_gallery
from index.router import Router
from tests.cluster.ray_driver import RayDriver, ray_driver
from tests.cluster.ray_nodes import RayCluster, ray_cluster
from tests.cluster.ray_world import process_at

REPLICAS = 2
SHARDS = 3
NODES = 3
RESTORED_S = 180.0  # how long replicas are waited for
_PROBES = 64
_NEWCOMERS = 400
_SEED = 29
_SOON_S = 0.5  # a killed process listens a little longer
_QUIET_S = 5.0


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill -9."""

    what: str
    text: str
    at: float
    until: float  # searches due before then count as after it
    restored_s: float | None


@dataclass(slots=True)
class Run:
    """One cluster, from when its shards had their slots."""

    answers: list[Answer]
    looks: list[Look]
    kills: list[Kill] = field(default_factory=list)
    marks: list[tuple[float, str]] = field(default_factory=list)  # for the plot
    back_s: float | None = None  # from the head's return until all shards were there again

    def between(self, start: float, stop: float) -> list[Answer]:
        """Answers that were due then."""
        return [answer for answer in self.answers if start <= answer.due < stop]


@dataclass(frozen=True, slots=True)
class Served:
    """What all runs share: the stores, the server, who writes."""

    settings: Settings
    model: IndexModel
    maps: ShardMaps
    address: str
    requests: list[search_pb2.SearchRequest]
    truth: Truth
    writer: Writer


@dataclass(frozen=True, slots=True)
class Scene:
    """A run under way."""

    cluster: RayCluster
    driver: RayDriver
    maps: ShardMaps
    watch: Watch
    run: Run

    async def kill(self, what: str, text: str, kill: Callable[[], None], after_s: float) -> None:
        """Kill, wait `after_s` seconds, and until all replicas are back."""
        say(f"kill -9 of {text}")
        at = time.monotonic()
        await asyncio.to_thread(kill)
        self.run.marks.append((at, f"kill -9 of\n{text}"))
        whole = await self.watch.whole(at + _SOON_S, max(RESTORED_S, after_s))
        restored = None if whole is None else whole - at
        say("replicas are missing" if restored is None else f"all replicas are back after {restored:.1f} s")
        await asyncio.sleep(max(0.0, at + after_s - time.monotonic()))
        self.run.kills.append(Kill(what, text, at, at + after_s, restored))


async def shard_and_node(scene: Scene, window_s: float) -> None:
    """A shard's process, then a node: the one on which the controller runs."""
    await asyncio.sleep(window_s)
    newest = scene.maps.read()
    assert newest is not None
    pid = process_at(newest.shards[0].address)
    await scene.kill("shard", f"{newest.shards[0].name}", lambda: os.kill(pid, signal.SIGKILL), window_s)

    controller = (await asyncio.to_thread(scene.driver.processes))["shard-controller"]
    node = scene.cluster.node_of(controller)
    if node is scene.cluster.head:
        raise RuntimeError("the controller runs beside Ray's head")
    await scene.kill("node", "the controller's node", node.kill, window_s)


async def head(scene: Scene, window_s: float, down_s: float) -> None:
    """The node with Ray's head, which comes back after a while."""
    await asyncio.sleep(window_s)
    await scene.kill("head", "the node with\nRay's head", scene.cluster.head.kill, down_s)
    say("Ray's head is started again")
    await asyncio.to_thread(scene.cluster.start_head)
    back = time.monotonic()
    scene.run.marks.append((back, "head is back"))
    whole = await scene.watch.whole(back, RESTORED_S, shards=SHARDS)
    scene.run.back_s = None if whole is None else whole - back
    await asyncio.sleep(_QUIET_S)


async def played(shared: Served, play: Callable[[Scene], Awaitable[None]], rate: float) -> Run:
    """A run on a Ray cluster of its own."""
    async with AsyncExitStack() as stack:
        say(f"starting {NODES} Ray nodes")
        cluster = ray_cluster(NODES - 1, lasting=True)
        nodes = await asyncio.to_thread(stack.enter_context, cluster)
        driver = stack.enter_context(ray_driver(nodes, shared.settings, shared.model))
        say(f"starting {SHARDS} shards")
        await asyncio.to_thread(driver.scale, SHARDS)
        watch = await stack.enter_async_context(watching(shared.maps, REPLICAS, lambda: _running(nodes)))
        if await watch.whole(time.monotonic(), RESTORED_S, shards=SHARDS) is None:
            raise RuntimeError("the shards did not get their slots")
        say("searching")
        answers = await stack.enter_async_context(
            loaded(shared.address, shared.requests, shared.writer, rate)
        )
        run = Run(answers, watch.looks)
        await play(Scene(nodes, driver, shared.maps, watch, run))
    return run


@asynccontextmanager
async def sharing(filled: Filled, folder: Path, lost_s: float) -> AsyncIterator[Served]:
    """Start the server over filled stores, and whoever writes to them."""
    model = IndexModel(filled.model_id, filled.dimension)
    token = secrets.token_hex(16)
    index = IndexSettings(
        where="shards",
        replicas=REPLICAS,
        token=SecretStr(token),
        folder=folder / "originals",
        threads=1,
        lost_s=lost_s,
    )
    settings = Settings(
        data_dir=folder / "shards",
        catalogue=filled.stores.catalogue,
        gallery=filled.stores.gallery,
        photos=filled.stores.photos,
        index=index,
    )
    async with AsyncExitStack() as stack:
        catalogue = open_catalogue(settings.catalogue, settings.data_dir)
        stack.callback(catalogue.close)
        gallery = open_gallery(settings.gallery, settings.data_dir, model.model_id, model.dimension)
        stack.callback(gallery.close)
        stored = filled.columns()
        asked = probes(stored.template, real_like, _PROBES, _SEED)
        columns = catalogue.columns([(RecordKey(AGENCY, GALLERY, "any"), Attributes(), PhotoNote(), "")])[0]
        newcomers = [
            distractors(template[None], number, model.model_id, columns)[0]
            for number, template in enumerate(near(asked, _NEWCOMERS, _SEED))
        ]
        rows = concatenate([from_rows(one.rows, model.dimension) for one in newcomers], model.dimension)
        say("ranking what the answers must be")
        truth = await asyncio.to_thread(Truth, stored, rows, asked)
        executor = stack.enter_context(ThreadPoolExecutor(8))
        router = Router(
            ShardMaps(catalogue, model.model_id).read,
            partial(milvus_fallback, gallery, catalogue),
            model_id=model.model_id,
            dimension=model.dimension,
            token=index.token,
            executor=executor,
        )
        await router.open()
        stack.push_async_callback(router.close)
        found = GalleryRows(catalogue, gallery, model.model_id, model.dimension)
        live = ShardedIndex(router, catalogue, found, executor, index.stale_s)
        say("starting the server")
        more = {"HOMEWARD_INDEX__WHERE": "shards", "HOMEWARD_INDEX__TOKEN": token}
        server = await stack.enter_async_context(served(filled.stores, folder / "server", more))
        yield Served(
            settings=settings,
            model=model,
            maps=ShardMaps(catalogue, model.model_id),
            address=server.address,
            requests=searches(asked, model.model_id),
            truth=truth,
            writer=Writer(catalogue, gallery, live, iter(newcomers), truth),
        )


def _running(cluster: RayCluster) -> int:
    return sum(node.server.process.poll() is None for node in cluster.nodes)
