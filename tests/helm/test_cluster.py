"""The chart's national installation, small, on this machine: what helm renders runs, and goes on when a node
is lost, servers are replaced and the cluster grows and shrinks."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import tarfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from benchmarks.balanced import channel, published
from benchmarks.deployment import Deployment, deployed
from benchmarks.faults_load import near, searches
from benchmarks.faults_truth import Truth
from benchmarks.faults_watch import Watch, watching
from benchmarks.filled_children import model
from benchmarks.headless import headless
from benchmarks.kills_archive import Archive, draw_archive
from benchmarks.open_loop import Answer, searching
from benchmarks.release import Release
from benchmarks.reporting import say
from benchmarks.serve_clients import CONTEXT
from benchmarks.site import ARCHIVES, AUTHORITY, released
from benchmarks.stores import Stores, running_stores
from catalogue.open import open_catalogue
from catalogue.store import Catalogue
from cluster.gallery_rows import GalleryRows, all_slots
from cluster.shard_maps import ShardMaps
from homeward.v1 import search_pb2
from index.columns import Columns, concatenate, empty, hex_ids
from index.open import open_gallery
from tests.cluster.ray_world import process_at
from tests.helm.chart import Rendered, merged, render
from tests.helm.ray_release import RayRelease, changed, group_size, ray_release
from tests.helm.test_network import SHARD_PORTS

PHOTOS = 150
PROBES = 16
PHOTO_PROBES = 4
RATE = 4.0
PLACED_S = 180.0
SETTLED_S = 5.0

SITE: dict[str, Any] = {
    "server": {
        "replicas": 2,
        "autoscaling": {"enabled": False},
        "resources": {"limits": {"cpu": "1", "memory": "4Gi"}},
    },
    "index": {"shards": 2, "replicas": 2, "shardCpus": 2, "tokenSecret": {"name": "shards"}},
    "ray": {
        "tokenSecret": {"name": "ray"},
        "autoscaling": {"enabled": False},
        "gcsFaultTolerance": {
            "redisAddress": "redis://redis.example:6379",
            "passwordSecret": {"name": "redis"},
        },
        # Room for a shard and a loader, not for two shards: a lost one waits for the node that comes.
        "groups": [
            {
                "name": "nodes",
                "minReplicas": 2,
                "maxReplicas": 2,
                "resources": {"limits": {"cpu": 3, "memory": "8Gi"}},
            }
        ],
    },
    "loads": [
        {
            "name": "archive",
            "agency": "XX",
            "gallery": "missing",
            "sources": ["/sources/archive.tar"],
            "manifest": "/sources/archive.csv",
        }
    ],
}


@dataclass(frozen=True, slots=True)
class World:
    """Everything that runs."""

    release: Release
    ray: RayRelease
    servers: Deployment
    catalogue: Catalogue
    maps: ShardMaps
    watch: Watch
    model_id: str

    async def placed(self, shards: int) -> None:
        """Every slot is held twice, by so many shards."""
        begun = time.monotonic()
        give_up = begun + PLACED_S
        while True:
            found = await asyncio.to_thread(self.maps.read)
            names = {shard.name for shard in found.shards} if found is not None else set()
            entered = {entry.name for entry in await asyncio.to_thread(self.maps.entries)}
            left = max(0.0, give_up - time.monotonic())
            if found is not None and len(names) == len(entered) == shards:
                assert await self.watch.whole(time.monotonic(), left, shards) is not None, (
                    "replicas are missing"
                )
                entries = await asyncio.to_thread(self.maps.entries)  # a lost one's address is empty before
                ports = {int(entry.address.rpartition(":")[2]) for entry in entries}
                assert ports <= {*range(SHARD_PORTS[0], SHARD_PORTS[-1] + 1)}, "policies would not let them"
                say(f"{shards} shards hold every slot twice, after {time.monotonic() - begun:.0f} s")
                return
            assert left, f"there are shards {names}, entered {entered}, not {shards}"
            await asyncio.sleep(0.2)

    def upgraded(self, size: int) -> Rendered:
        """What helm renders for so many servers, nodes and shards; the servers are those of it."""
        group = {**SITE["ray"]["groups"][0], "minReplicas": size, "maxReplicas": size}
        changes = {"server": {"replicas": size}, "index": {"shards": size}, "ray": {"groups": [group]}}
        rendered = render("national", values=merged(self.release.values, changes))
        self.servers.release = changed(self.servers.release, rendered)
        return rendered

    def kill_a_node(self) -> None:
        """kill -9 of the node with the first shard."""
        found = self.maps.read()
        assert found is not None
        node = self.ray.nodes.node_of(process_at(found.shards[0].address))
        assert node is not self.ray.nodes.head
        say(f"kill -9 of the node with {found.shards[0].name}, {len(node.processes())} processes")
        node.kill()
        self.ray.nodes.nodes.remove(node)

    def remove_an_idle_node(self) -> None:
        """End a node without a shard, as the autoscaler does when one is idle."""
        found = self.maps.read()
        assert found is not None
        used = [self.ray.nodes.node_of(process_at(shard.address)) for shard in found.shards]
        [idle] = [node for node in self.ray.nodes.nodes[1:] if node not in used]
        idle.kill()
        self.ray.nodes.nodes.remove(idle)

    async def probes(
        self, archive: Archive, stores: Stores
    ) -> tuple[Truth, list[search_pb2.SearchRequest], list[str]]:
        """What is right to answer, requests by template and by photo, and the records of the photos."""
        columns = await asyncio.to_thread(self._rows, stores)
        assert len(columns) > PHOTOS // 2, "the load enrolled hardly anything"
        chosen = columns.template[:: max(1, len(columns) // PROBES)][:PROBES]
        templates = near(chosen, PROBES, seed=3)
        truth = Truth(columns, empty(columns.dimension), templates)
        photos, mates = _enrolled_photos(archive, columns)
        requests = [search_pb2.SearchRequest(context=CONTEXT, photo=photo, limit=3) for photo in photos]
        return truth, [*searches(templates, self.model_id), *requests], mates

    def _rows(self, stores: Stores) -> Columns:
        gallery = open_gallery(stores.gallery, Path(), self.model_id, model()[1])
        try:
            rows = GalleryRows(self.catalogue, gallery, self.model_id, model()[1])
            return concatenate(list(rows.of_slots(all_slots())), model()[1])
        finally:
            gallery.close()


@pytest.mark.prove
@pytest.mark.timeout(900)
async def test_a_cluster_loses_a_node_drains_servers_and_scales_while_every_search_is_answered_right(
    tmp_path: Path,
) -> None:
    async with AsyncExitStack() as stack:
        stores = stack.enter_context(running_stores())
        say("stores run")
        world = await stack.enter_async_context(running(stores, tmp_path))
        archive = draw_archive(world.release.claims[ARCHIVES], PHOTOS, seed=11)
        target, config = published(world.release.rendered)
        authority = world.release.secret("server-tls", AUTHORITY)
        over = await stack.enter_async_context(channel(world.servers.service, target, config, authority))
        blind = searches(near(_any_templates(), PROBES, seed=5), world.model_id)
        async with searching(over, blind, RATE) as during_load:
            await world.ray.run_job(world.release.rendered, "load")
            say(f"loaded an archive of {archive.rows} photos, drawn from {archive.source}")
        assert not _failures(during_load)

        truth, requests, mates = await world.probes(archive, stores)
        await world.placed(2)
        async with searching(over, requests, RATE) as asked:
            await asyncio.sleep(SETTLED_S)
            await asyncio.to_thread(world.kill_a_node)
            await asyncio.sleep(SETTLED_S)
            await asyncio.to_thread(world.ray.nodes.start_worker)  # as KubeRay makes the pod anew
            await world.placed(2)

            await world.servers.replace(world.servers.running[0])

            bigger = world.upgraded(3)
            assert group_size(bigger) == 3
            await asyncio.to_thread(world.ray.nodes.start_worker)
            await asyncio.gather(world.servers.scale(3), world.ray.run_job(bigger, "index"))
            await world.placed(3)

            await asyncio.gather(world.servers.scale(2), world.ray.run_job(world.upgraded(2), "index"))
            await world.placed(2)
            await asyncio.to_thread(world.remove_an_idle_node)
            await asyncio.sleep(SETTLED_S)
            await world.placed(2)
        assert not any(server.killed for server in world.servers.ended), "a server did not drain in time"
    say(f"{len(during_load) + len(asked)} searches, answered as {_methods(asked)}")
    assert not _failures(asked)
    assert not _wrong(asked, truth, mates)


@asynccontextmanager
async def running(stores: Stores, folder: Path) -> AsyncIterator[World]:
    """Three Ray nodes, two servers and two shards over the stores, as the chart says."""
    model_id, _ = model()
    async with AsyncExitStack() as stack:
        release = released(
            stores,
            folder,
            "national",
            values=SITE,
            secrets={
                "shards": {"token": secrets.token_hex(32).encode()},
                "redis": {"password": b"of the test's own Redis"},
            },
        )
        target, _ = published(release.rendered)
        service = await stack.enter_async_context(headless(target.partition(":")[0], f"{release.network}2"))
        catalogue = await asyncio.to_thread(open_catalogue, stores.catalogue, folder)
        stack.callback(catalogue.close)
        ray = await asyncio.to_thread(stack.enter_context, ray_release(release))
        say(f"{len(ray.nodes.nodes)} Ray nodes run")
        servers = await stack.enter_async_context(deployed(release, service, say))
        maps = ShardMaps(catalogue, model_id)
        nodes = ray.nodes
        watch = await stack.enter_async_context(watching(maps, 2, lambda: len(nodes.nodes) - 1))
        await ray.run_job(release.rendered, "index")
        say("shards run")
        yield World(release, ray, servers, catalogue, maps, watch, model_id)


def _any_templates() -> Any:
    from benchmarks.search_rows import real_like

    return real_like(PROBES, seed=9)


def _enrolled_photos(archive: Archive, columns: Columns) -> tuple[list[bytes], list[str]]:
    """Photos of the archive with one face that is enrolled, and their records."""
    faces = Counter(hex_ids(columns.photo))
    record_of = dict(zip(hex_ids(columns.photo), hex_ids(columns.record), strict=True))
    photos, records = [], []
    with tarfile.open(archive.tar) as opened:
        for member in opened:
            file = opened.extractfile(member)
            assert file is not None
            data = file.read()
            sha256 = hashlib.sha256(data).hexdigest()
            if faces[sha256] == 1 and record_of[sha256] not in records:
                photos.append(data)
                records.append(record_of[sha256])
            if len(photos) == PHOTO_PROBES:
                break
    assert len(photos) == PHOTO_PROBES
    return photos, records


def _failures(asked: Sequence[Answer]) -> Counter[str]:
    assert asked
    return Counter(one.error for one in asked if one.response is None)


def _methods(asked: Sequence[Answer]) -> dict[str, int]:
    return dict(Counter(one.response.account.method for one in asked if one.response is not None))


def _wrong(asked: Sequence[Answer], truth: Truth, mates: Sequence[str]) -> list[str]:
    """Answers by template that are not the reference's, and by photo that do not begin with its record."""
    found = []
    for one in asked:
        response = one.response
        assert response is not None
        if one.request < PROBES:
            if truth.verdict(one, uncovered=False).wrong:
                found.append(f"probe {one.request} by {response.account.method}")
            continue
        mate = mates[one.request - PROBES]
        first = {each.candidates[0].record_id for each in response.lists if each.candidates}
        if mate not in first:
            found.append(f"photo {one.request - PROBES} by {response.account.method}: {first}, not {mate}")
    return found
