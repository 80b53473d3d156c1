"""Starts a server and asks it until it answers: how long that took, and what it did meanwhile."""

from __future__ import annotations

import asyncio
import re
import time
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import grpc
import psutil

from benchmarks.serve_clients import Request
from benchmarks.served import Served, command, environment, log_of, stop
from benchmarks.stores import Stores
from homeward.v1 import search_pb2
from homeward.v1.search_pb2_grpc import SearchServiceStub
from tests.servers.process import free_ports, listens

if TYPE_CHECKING:
    from homeward.v1.search_pb2_grpc import SearchServiceAsyncStub

EXACT = "exact"
_AGAIN_S = 0.02
_START_S = 1800.0
_METRIC = re.compile(
    r'homeward_operation_seconds_(sum|count)\{operation="([^"]+)",outcome="OK",process="server"\} (\S+)'
)


@dataclass(frozen=True, slots=True)
class Start:
    """One start, from exec to the first certified answer."""

    seconds: float
    listening_s: float  # until its port took connections
    loading_s: float  # from then until the search that was answered began
    first_answer_s: float  # that search
    cpu_s: float  # of the server's processes until then
    operations: dict[str, dict[str, float]]  # what the server did until then: how often, and seconds in all
    answer: search_pb2.SearchResponse

    def figures(self) -> dict[str, object]:
        """Seconds, stages, operations."""
        stages = {name: getattr(self, name) for name in ("listening_s", "loading_s", "first_answer_s")}
        return {
            "seconds": self.seconds,
            "stages": stages,
            "cpu_s": self.cpu_s,
            "operations": self.operations,
        }


@asynccontextmanager
async def started_server(
    stores: Stores, data_dir: Path, request: Request, more: Mapping[str, str] | None = None
) -> AsyncIterator[Start]:
    """Start a server over the stores and search until it answers; it serves while the context lasts.

    Raises `RuntimeError` with its log's end when it ends before, `TimeoutError` when it never answers."""
    port, metrics = free_ports(2)
    own = {"HOMEWARD_SERVER__METRICS_ADDRESS": f"127.0.0.1:{metrics}", **(more or {})}
    log = log_of(data_dir)
    with log.open("ab") as errors:
        begun = time.perf_counter()
        child = await asyncio.create_subprocess_exec(
            *command(data_dir, f"127.0.0.1:{port}"),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=errors,
            env=environment(stores, own),
        )
    try:
        async with asyncio.timeout(_START_S):
            while not listens(port):
                _check(child, log)
                await asyncio.sleep(_AGAIN_S)
            listening = time.perf_counter()
            answer, asked = await _first_answer(f"127.0.0.1:{port}", request, child, log)
        answered = time.perf_counter()
        server = Served(f"127.0.0.1:{port}", psutil.Process(child.pid), answered - begun)
        yield Start(
            seconds=answered - begun,
            listening_s=listening - begun,
            loading_s=asked - listening,
            first_answer_s=answered - asked,
            cpu_s=server.cpu_s(),
            operations=await asyncio.to_thread(_operations, metrics),
            answer=answer,
        )
    finally:
        await stop(child)


async def _first_answer(
    address: str, request: Request, child: asyncio.subprocess.Process, log: Path
) -> tuple[search_pb2.SearchResponse, float]:
    """The first answer that calls itself exact, and when it was asked for."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = cast("SearchServiceAsyncStub", SearchServiceStub(channel))
        while True:
            _check(child, log)
            asked = time.perf_counter()
            try:
                answer = await stub.Search(request(0), timeout=60.0)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
            else:
                if answer.account.method == EXACT:
                    return answer, asked
            await asyncio.sleep(_AGAIN_S)


def _check(child: asyncio.subprocess.Process, log: Path) -> None:
    if child.returncode is not None:
        raise RuntimeError(f"the server ended: {log.read_text(errors='replace')[-2000:]}")


def _operations(port: int) -> dict[str, dict[str, float]]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as reply:
        page = reply.read().decode()
    found: dict[str, dict[str, float]] = {}
    for kind, operation, value in _METRIC.findall(page):
        if not operation.startswith("rpc "):
            found.setdefault(operation, {})["seconds" if kind == "sum" else "count"] = float(value)
    return found
