"""The chart's Deployment of gRPC servers as processes: new ones before old ones go, ended as Kubernetes ends
them.

A pod that is to go leaves the Service's DNS at once, gets SIGTERM after its preStop hook, and SIGKILL when
its grace period is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.headless import Headless
from benchmarks.release import Pod, Release

_START_S = 240.0
_PROBE_S = 0.5
_FIRST_HOST = 20  # of the release's network
_LOG_CHARS = 3000

Span = tuple[float, float]


@dataclass(slots=True)
class ServerPod:
    """One server."""

    pod: Pod
    process: asyncio.subprocess.Process
    start_s: float = 0.0  # until it was ready
    stop_s: float = 0.0  # from SIGTERM to its end
    killed: bool = False  # it did not end within its grace period

    def log(self) -> str:
        """The end of what it wrote."""
        return (self.pod.root / "log").read_text(errors="replace")[-_LOG_CHARS:]


@dataclass(slots=True)
class Deployment:
    """The servers, oldest first. Made by `deployed`."""

    release: Release
    service: Headless
    say: Callable[[str], None]
    running: list[ServerPod] = field(default_factory=list)
    ended: list[ServerPod] = field(default_factory=list)
    starting: list[Span] = field(default_factory=list)  # one was, monotonic seconds
    ending: list[Span] = field(default_factory=list)  # from when it left DNS to its end
    _made: int = 0

    @property
    def replicas(self) -> int:
        """How many the manifest asks for."""
        return int(self._manifest["spec"]["replicas"])

    async def scale(self, replicas: int) -> None:
        """Have so many: new ones are ready, and the youngest that are too many are gone, at the return."""
        while len(self.running) < replicas:
            missing = replicas - len(self.running)
            await asyncio.gather(*(self._start() for _ in range(missing)))
        while len(self.running) > replicas:
            await self._end(self.running[-1])

    async def roll(self) -> None:
        """Replace every server, one after the other, each by one that is ready before it goes."""
        for old in list(self.running):
            await self.replace(old)

    async def replace(self, old: ServerPod) -> None:
        """Another one is ready, then this one goes."""
        await self._start()
        await self._end(old)

    async def stop(self) -> None:
        """End all at once."""
        for server in self.running:
            with contextlib.suppress(ProcessLookupError):
                server.process.kill()
        await asyncio.gather(*(server.process.wait() for server in self.running))
        self.running.clear()

    @property
    def _manifest(self) -> dict[str, Any]:
        return self.release.rendered.one("Deployment", "-server")

    async def _start(self) -> None:
        self._made += 1
        address = f"{self.release.network}{_FIRST_HOST + self._made}"
        pod = self.release.pod(self._manifest["spec"]["template"], f"server-{self._made}", address)
        begun = time.monotonic()
        with (pod.root / "log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *pod.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(pod.environment),
                cwd=pod.root,
            )
        server = ServerPod(pod, process)
        self.running.append(server)
        await self._wait_ready(server)
        self.starting.append((begun, time.monotonic()))
        server.start_s = time.monotonic() - begun
        self.service.ready.append(address)
        self.say(f"{pod.name} is ready after {server.start_s:.0f} s")

    async def _wait_ready(self, server: ServerPod) -> None:
        """As the readiness probe asks."""
        [container] = self._manifest["spec"]["template"]["spec"]["containers"]
        port = container["readinessProbe"]["grpc"]["port"]
        give_up = time.monotonic() + _START_S
        async with grpc.aio.insecure_channel(f"{server.pod.address}:{port}") as channel:
            ask = health_pb2_grpc.HealthStub(channel).Check
            while True:
                if server.process.returncode is not None or time.monotonic() > give_up:
                    raise RuntimeError(f"{server.pod.name} is not ready:\n{server.log()}")
                with contextlib.suppress(grpc.aio.AioRpcError):
                    answer = await ask(health_pb2.HealthCheckRequest(), timeout=5.0)
                    if answer.status == health_pb2.HealthCheckResponse.SERVING:
                        return
                await asyncio.sleep(_PROBE_S)

    async def _end(self, server: ServerPod) -> None:
        spec = self._manifest["spec"]["template"]["spec"]
        pause = spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
        left = time.monotonic()
        self.service.ready.remove(server.pod.address)
        await asyncio.sleep(pause)
        begun = time.monotonic()
        server.process.terminate()
        try:
            await asyncio.wait_for(server.process.wait(), spec["terminationGracePeriodSeconds"] - pause)
        except TimeoutError:
            server.killed = True
            server.process.kill()
            await server.process.wait()
        server.stop_s = time.monotonic() - begun
        self.ending.append((left, time.monotonic()))
        self.running.remove(server)
        self.ended.append(server)
        self.say(f"{server.pod.name} has ended {server.stop_s:.1f} s after SIGTERM")


@asynccontextmanager
async def deployed(
    release: Release, service: Headless, say: Callable[[str], None]
) -> AsyncIterator[Deployment]:
    """The servers that the manifest asks for, ready; they end with the context."""
    deployment = Deployment(release, service, say)
    try:
        await deployment.scale(deployment.replicas)
        yield deployment
    finally:
        await deployment.stop()
