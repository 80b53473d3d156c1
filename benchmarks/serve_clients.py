"""gRPC clients that search one after the other, many at a time, and what they saw."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import grpc
import numpy as np

from benchmarks.served import Served
from homeward.types import Float32
from homeward.v1 import search_pb2
from homeward.v1.search_pb2_grpc import SearchServiceStub

if TYPE_CHECKING:
    from homeward.v1.search_pb2_grpc import SearchServiceAsyncStub

K = 20
CONTEXT = search_pb2.SearchContext(
    case_reference="benchmark", purpose="measuring searches", requester="benchmarks"
)
_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_receive_message_length", 32 << 20),
    ("grpc.use_local_subchannel_pool", 1),  # a connection for each client, as if they were strangers
]

Request = Callable[[int], search_pb2.SearchRequest]  # of the number of the search


@dataclass(slots=True)
class Run:
    """The searches of one measurement, in the order they ended."""

    clients: int
    wall_s: float = 0.0
    seconds: list[float] = field(default_factory=list)
    stages: dict[str, list[float]] = field(default_factory=dict)
    server_cpu_s: float = 0.0  # of the server's processes
    client_cpu_s: float = 0.0  # of this process
    methods: set[str] = field(default_factory=set)
    answers: list[tuple[int, search_pb2.SearchResponse]] = field(default_factory=list)  # sampled

    @property
    def rate(self) -> float:
        """Searches per second of all clients together."""
        return len(self.seconds) / self.wall_s

    def add(self, other: Run) -> None:
        """Count another measurement of as many clients in."""
        self.wall_s += other.wall_s
        self.server_cpu_s += other.server_cpu_s
        self.client_cpu_s += other.client_cpu_s
        self.seconds += other.seconds
        self.methods |= other.methods
        self.answers += other.answers
        for stage, spent in other.stages.items():
            self.stages.setdefault(stage, []).extend(spent)

    def figures(self) -> dict[str, object]:
        """Percentiles in milliseconds, the rate, and the median time of each stage."""
        return {
            "searches": len(self.seconds),
            "per_s": self.rate,
            **percentiles(self.seconds),
            "server_cpu_ms_each": 1e3 * self.server_cpu_s / len(self.seconds),
            "client_cpu_ms_each": 1e3 * self.client_cpu_s / len(self.seconds),
            "stages_p50_ms": {stage: percentiles(spent)["p50_ms"] for stage, spent in self.stages.items()},
            "methods": sorted(self.methods),
        }


async def search(
    server: Served, request: Request, clients: int, budget_s: float, *, first: int = 0, every: int = 0
) -> Run:
    """Search by `clients` callers that each wait for their answer, for about so many seconds, numbers from
    `first` on; every so many-th answer is kept. Raises `grpc.RpcError` when a search fails."""
    run = Run(clients)
    numbers = iter(range(first, first + (1 << 40)))
    server_cpu_s, client_cpu_s = server.cpu_s(), time.process_time()
    async with asyncio.TaskGroup() as group:
        started = time.perf_counter()
        end = started + budget_s
        for _ in range(clients):
            group.create_task(_client(server.address, request, run, numbers, end, every))
    run.wall_s = time.perf_counter() - started
    run.server_cpu_s = server.cpu_s() - server_cpu_s
    run.client_cpu_s = time.process_time() - client_cpu_s
    return run


async def _client(address: str, request: Request, run: Run, numbers: Any, end: float, every: int) -> None:
    async with grpc.aio.insecure_channel(address, options=_OPTIONS) as channel:
        stub = cast("SearchServiceAsyncStub", SearchServiceStub(channel))
        while (started := time.perf_counter()) < end:
            number = next(numbers)
            answer = await stub.Search(request(number))
            run.seconds.append(time.perf_counter() - started)
            run.methods.add(answer.account.method)
            for stage in answer.times:
                run.stages.setdefault(stage.stage, []).append(stage.seconds)
            if every and number % every == 0:
                run.answers.append((number, answer))


def by_template(templates: Float32, model_id: str) -> Request:
    """Requests by template, in turns."""
    made = [
        search_pb2.SearchRequest(
            context=CONTEXT,
            template=search_pb2.Template(values=one.tolist(), model_id=model_id),
            limit=K,
        )
        for one in templates
    ]
    return lambda number: made[number % len(made)]


def by_photo(photos: Sequence[bytes]) -> Request:
    """Requests by photo, in turns."""
    made = [search_pb2.SearchRequest(context=CONTEXT, photo=one, limit=K) for one in photos]
    return lambda number: made[number % len(made)]


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """p50, p95, p99 in milliseconds."""
    return {f"p{each}_ms": float(np.percentile(seconds, each)) * 1e3 for each in (50, 95, 99)}
