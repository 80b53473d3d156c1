"""Pods as processes on this machine, and the DNS that clients find them by."""

from __future__ import annotations

import asyncio
import random
import socket
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio

from benchmarks.headless import headless
from benchmarks.release import Release
from homeward.config import Settings
from tests.helm.sites import NATIONAL, site

SECRETS = {
    "postgres": {"homeward": b"secret of postgres"},
    "milvus": {"token": b"secret of milvus"},
    "s3": {"access-key": b"key", "secret-key": b"secret of s3"},
    "shards": {"token": b"secret of shards"},
    "server-tls": {"tls.crt": b"certificate", "tls.key": b"key"},
}


@pytest.fixture
def release(tmp_path: Path) -> Release:
    claims = {name: tmp_path / "claims" / name for name in ("search-log", "archives")}
    return Release(NATIONAL, site("national"), SECRETS, claims, tmp_path)


def test_a_pod_finds_what_its_manifest_mounts_under_its_own_root(
    release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = release.rendered.one("Deployment")["spec"]["template"]
    pod = release.pod(manifest, "server-1", "127.3.2.1")
    assert pod.command == ("homeward", "--json", "serve")
    for name, value in pod.environment.items():
        if name.startswith("HOMEWARD_"):
            monkeypatch.setenv(name, value)
    settings = Settings.load(Path(pod.environment["HOMEWARD_CONFIG"]))
    assert settings.server.address == "127.3.2.1:7443"
    assert settings.server.health_address == "127.3.2.1:7444"
    assert settings.server.tls_key is not None
    assert settings.server.tls_key.read_bytes() == b"key"
    assert settings.data_dir == pod.root / "var/lib/homeward"
    assert settings.catalogue.password is not None
    assert settings.catalogue.password.get_secret_value() == "secret of postgres"
    (settings.data_dir / "search-log" / "line").touch()
    assert (release.claims["search-log"] / "server-1" / "line").is_file()


def test_of_a_job_only_paths_that_are_mounted_become_the_pods(release: Release) -> None:
    head = release.rendered.one("RayCluster")["spec"]["headGroupSpec"]["template"]
    pod = release.pod(head, "ray", "127.0.0.1")
    entrypoint = "homeward load start a /sources/a.tar /else/sources/b '/sourcesx' s3://host/sources/c"
    said = pod.local(entrypoint).split()
    assert said[4:] == [f"{pod.root}/sources/a.tar", *entrypoint.split()[5:]]


async def test_clients_find_the_pods_that_are_ready_and_no_other_name() -> None:
    async with headless("finder.agency.svc", "127.0.0.1") as service:
        server = grpc.aio.server()
        health_pb2_grpc.add_HealthServicer_to_server(health_aio.HealthServicer(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        for name, found in (("finder.agency.svc", True), ("finder.agency.svc", False), ("other.svc", False)):
            service.ready[:] = ["127.0.0.1"] if found else []
            target = f"dns://{service.address}/{name}:{port}"
            options = [("grpc.use_local_subchannel_pool", 1)]
            async with grpc.aio.insecure_channel(target, options=options) as channel:
                ask = health_pb2_grpc.HealthStub(channel).Check
                if found:
                    await ask(health_pb2.HealthCheckRequest(), timeout=10)
                    continue
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await ask(health_pb2.HealthCheckRequest(), timeout=10)
                assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        await server.stop(None)


async def test_what_is_no_question_gets_no_answer_and_ends_nothing() -> None:
    chance = random.Random(4)
    question = bytes.fromhex("00010100000100000000000001610000010001")  # of the address of "a"
    async with headless("a", "127.0.0.1") as service:
        service.ready.append("127.1.2.3")
        host, _, port = service.address.partition(":")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(asking, (host, int(port)))
            for _ in range(200):
                await loop.sock_sendall(asking, chance.randbytes(chance.randrange(24)))
            await loop.sock_sendall(asking, question)
            async with asyncio.timeout(10):
                while (answer := await loop.sock_recv(asking, 512))[:2] != question[:2]:
                    pass
    assert answer[-4:] == socket.inet_aton("127.1.2.3")
