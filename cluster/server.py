"""The gRPC server: every service behind one listener, ready when the index is loaded, drained at the end.

Nothing here joins a Ray cluster: the server reaches workers and stores over the network or in its
own process, so that losing Ray loses no search.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection

from cluster.case_names import case_names
from cluster.compose import Parts, compose
from cluster.listen import bind, bind_health, channel_options, server_credentials
from cluster.rpc.enrolment_servicer import EnrolmentServicer
from cluster.rpc.interceptors import CallInterceptor
from cluster.rpc.operations_servicer import OperationsServicer
from cluster.rpc.search_servicer import SearchServicer
from cluster.server_readings import ServerReadings
from cluster.startup import load_index, sweep
from cluster.store_checks import StoreChecks
from cluster.upgrade.side import second_parts
from cluster.upgrade.switch import ModelSwitch, OpenSecond
from homeward.call_context import CaseHash
from homeward.config import Settings
from homeward.memory import settled
from homeward.observed import observed_server
from homeward.telemetry import watching
from homeward.v1 import (
    enrolment_pb2,
    enrolment_pb2_grpc,
    operations_pb2,
    operations_pb2_grpc,
    search_pb2,
    search_pb2_grpc,
)

SERVICES = tuple(
    file.services_by_name[name].full_name
    for file, name in (
        (enrolment_pb2.DESCRIPTOR, "EnrolmentService"),
        (search_pb2.DESCRIPTOR, "SearchService"),
        (operations_pb2.DESCRIPTOR, "OperationsService"),
    )
)

LIVE = "homeward.live"  # of health: SERVING while the event loop answers, whatever the index does

OpenParts = Callable[[Settings], AbstractAsyncContextManager[Parts]]


class RunningServer:
    """A server that listens. Made by `running_server`."""

    def __init__(
        self, server: grpc.aio.Server, parts: Parts, open_second: OpenSecond, cases: CaseHash
    ) -> None:
        settings = parts.settings.server
        self.address = bind(server, settings)  # with the port that was given for port 0
        self.health_address = ""
        self._probed: grpc.aio.Server | None = None
        if settings.health_address:
            self._probed = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
            self.health_address = bind_health(self._probed, settings.health_address)
        self.switch = ModelSwitch(parts, self.address, open_second, cases)
        self._server = server
        self._health = health_aio.HealthServicer()

    @property
    def parts(self) -> Parts:
        """Those of the model that serves."""
        return self.switch.current.parts

    async def start(self) -> None:
        """Begin to answer; health says NOT_SERVING until `open`."""
        for name in ("", *SERVICES):
            await self._health.set(name, health_pb2.HealthCheckResponse.NOT_SERVING)
        await self._health.set(LIVE, health_pb2.HealthCheckResponse.SERVING)
        for server in filter(None, (self._server, self._probed)):
            health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
            await server.start()

    async def open(self) -> None:
        """The index is loaded: searches are answered from now on."""
        self.switch.open()
        for name in ("", *SERVICES):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    async def drain(self, grace_s: float) -> None:
        """Take no new calls, let running ones end within `grace_s` seconds, then cancel them."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_s)
        if self._probed is not None:
            await self._probed.stop(0)


@asynccontextmanager
async def running_server(
    settings: Settings, open_parts: OpenParts = compose, open_second: OpenSecond = second_parts
) -> AsyncIterator[RunningServer]:
    """Start a server and stop it when the context ends; entered when it serves.

    Raises `InvalidInput` (TLS_REQUIRED, TLS_INVALID, ADDRESS_INVALID) before anything is opened,
    `Unavailable` (ADDRESS_IN_USE), and what `compose` raises.
    """
    server_credentials(settings.server)
    async with AsyncExitStack() as stack:
        stack.enter_context(observed_server(settings))
        parts = await stack.enter_async_context(open_parts(settings))
        cases = await asyncio.get_running_loop().run_in_executor(
            parts.blocking, case_names, settings, parts.catalogue
        )
        server = grpc.aio.server(
            interceptors=[CallInterceptor(settings.server.deadline_s)],
            options=channel_options(settings.server),
            maximum_concurrent_rpcs=settings.server.max_concurrent_calls,
        )
        running = RunningServer(server, parts, open_second, cases)
        switch = running.switch
        stack.push_async_callback(switch.close)
        _add_services(server, switch, settings)
        checks = StoreChecks(lambda: switch.current.parts)
        stack.enter_context(watching(checks.readings))
        stack.enter_context(watching(ServerReadings(lambda: switch.current)))
        background: list[asyncio.Task[None]] = []
        stack.push_async_callback(_end, background)
        await running.start()
        stack.push_async_callback(running.drain, settings.server.drain_s)
        _restrict_socket(running.address)
        await load_index(parts)
        background.append(asyncio.create_task(sweep(lambda: switch.current.parts), name="sweep"))
        background.append(asyncio.create_task(switch.run(), name="model-switch"))
        background.append(asyncio.create_task(checks.run(), name="store-checks"))
        await running.open()
        yield running


async def serve(
    settings: Settings,
    on_ready: Callable[[RunningServer], None] = lambda _: None,
    open_parts: OpenParts = compose,
) -> None:
    """Serve until SIGTERM or SIGINT; running calls are let end. `on_ready` is called once it serves."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    try:
        async with running_server(settings, open_parts) as running:
            with settled():
                on_ready(running)
                await stop.wait()
    finally:
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(name)


def _add_services(server: grpc.aio.Server, switch: ModelSwitch, settings: Settings) -> None:
    enrolment = EnrolmentServicer(settings.enrol, switch.enrolment)
    enrolment_pb2_grpc.add_EnrolmentServiceServicer_to_server(enrolment, server)
    search_pb2_grpc.add_SearchServiceServicer_to_server(SearchServicer(settings, switch), server)
    operations = OperationsServicer(lambda: switch.current.parts)
    operations_pb2_grpc.add_OperationsServiceServicer_to_server(operations, server)
    if settings.server.reflection:
        reflection.enable_server_reflection(
            (*SERVICES, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME),
            server,
        )


def _restrict_socket(address: str) -> None:
    if address.startswith("unix:"):
        Path(address.removeprefix("unix:")).chmod(0o600)


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
