"""Shards on a real Ray with real stores, while they come, go and die; who searches never joins Ray."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import ray

from tests.cluster.ray_nodes import ray_cluster
from tests.cluster.ray_world import kill_process, ray_world
from tests.servers.milvus import Milvus
from tests.servers.postgres import Postgres

ANY = ("exact", "exact+milvus", "milvus")
TWO = ("shard-0", "shard-1")
THREE = (*TWO, "shard-2")
HEAD_DOWN_S = 120


@pytest.mark.timeout(600)
async def test_shards_on_ray_come_back_and_come_and_go(
    postgres_server: Postgres, milvus_server: Milvus, tmp_path: Path
) -> None:
    catalogue = postgres_server.settings(postgres_server.new_database())
    with ray_cluster() as cluster:
        async with ray_world(cluster, tmp_path, catalogue, milvus_server.settings("ray_one"), 150) as world:
            await world.check(0, ["milvus"])  # there are no shards yet
            await world.scale(2)
            before = await world.placed(1, among=TWO)  # one node holds one replica
            await world.check(1)

            killed = before.shards[0]
            kill_process(killed)
            async with world.searching(ANY) as searching:
                after = await world.placed(1, among=TWO, without=[killed.incarnation])
            assert searching.count > 0
            assert world.methods["exact+milvus"] > 0
            assert after.shards[1] == before.shards[1]
            await world.check(2)

            async with world.searching() as searching:
                await world.scale(3)
                await world.placed(1, among=THREE)
                await world.delete()
                await world.scale(2)
                await world.placed(1, among=TWO)
            assert searching.count > 0
            await world.entered(TWO)
            assert set(await asyncio.to_thread(world.driver.processes)) == {*TWO, "shard-controller"}

            assert await asyncio.to_thread(world.driver.stop) == 2
            await world.placed(0, among=())
            await world.check(3, ["milvus"])
    assert not ray.is_initialized()


@pytest.mark.prove
@pytest.mark.timeout(1800)
async def test_kills_of_a_shard_a_node_and_rays_head_cost_no_answer(
    postgres_server: Postgres, milvus_server: Milvus, tmp_path: Path
) -> None:
    catalogue = postgres_server.settings(postgres_server.new_database())
    with ray_cluster(2, lasting=True) as cluster:
        async with ray_world(cluster, tmp_path, catalogue, milvus_server.settings("ray_kills"), 300) as world:
            await world.scale(3)
            placed = await world.placed(2, among=THREE)
            assert len({shard.node for shard in placed.shards}) == 3
            async with world.searching(ANY) as searching:
                kill_process(placed.shards[0])
                await world.delete()
                await world.placed(2, among=THREE, without=[placed.shards[0].incarnation])

                controller = (await asyncio.to_thread(world.driver.processes))["shard-controller"]
                node = cluster.node_of(controller)
                assert node is not cluster.head  # both would be lost at once
                lost = world.on(node, await asyncio.to_thread(world.maps.read))
                await asyncio.to_thread(node.kill)
                cluster.nodes.remove(node)
                await world.delete()
                await world.placed(2, among=THREE, without=lost)
                await asyncio.to_thread(cluster.start_worker)

                lost = world.on(cluster.head, await asyncio.to_thread(world.maps.read))
                await asyncio.to_thread(cluster.head.kill)
                count = searching.count
                for number in range(HEAD_DOWN_S // 10):
                    await asyncio.sleep(10)
                    await world.delete(number)
                assert searching.count > count
                await asyncio.to_thread(cluster.start_head)
                await world.placed(2, among=THREE, without=lost)
            # A slow machine may have made a shard late, so that Milvus helped out, and the answer said so.
            assert world.methods["exact"] > 0.98 * world.methods.total()
            # Ray's new head knows the cluster of the old one.
            await world.scale(2)
            await world.entered(TWO)
            await world.placed(2, among=TWO)
            await world.check(1)
