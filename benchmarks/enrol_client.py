"""A Homeward server in a process of its own, and a client that keeps it busy with enrolments."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import grpc
import psutil

from homeward.v1 import enrolment_pb2, records_pb2, search_pb2
from homeward.v1.enrolment_pb2_grpc import EnrolmentServiceStub
from homeward.v1.search_pb2_grpc import SearchServiceStub

if TYPE_CHECKING:
    from homeward.v1.enrolment_pb2_grpc import EnrolmentServiceAsyncStub
    from homeward.v1.search_pb2_grpc import SearchServiceAsyncStub

IN_FLIGHT = 64
_START_S = 120.0


@dataclass(frozen=True, slots=True)
class Round:
    """One side's part of a round."""

    photos: int
    enrolled: int
    seconds: float
    cpu_seconds: float  # of all processes of that side

    @property
    def rate(self) -> float:
        """Photos per second."""
        return self.photos / self.seconds


class Client:
    """Enrols photos, each as a record of its own."""

    def __init__(self, address: str, server: psutil.Process) -> None:
        self._channel = grpc.aio.insecure_channel(address)
        self._server = server
        self._enrolment = cast("EnrolmentServiceAsyncStub", EnrolmentServiceStub(self._channel))
        self._search = cast("SearchServiceAsyncStub", SearchServiceStub(self._channel))
        self._number = 0
        self.rows = 0
        self.codes: Counter[str] = Counter()

    async def enrol(self, photos: Sequence[bytes]) -> Round:
        """Enrol all, `IN_FLIGHT` at a time."""
        pending = iter(photos)
        enrolled_before = self.rows
        cpu, started = self._cpu(), time.perf_counter()
        await asyncio.gather(*(self._caller(pending) for _ in range(IN_FLIGHT)))
        seconds = time.perf_counter() - started
        return Round(len(photos), self.rows - enrolled_before, seconds, self._cpu() - cpu)

    async def rows_searched(self, photo: bytes) -> int:
        """How many rows a search goes through now."""
        request = search_pb2.SearchRequest(
            context=search_pb2.SearchContext(
                case_reference="benchmark", purpose="measuring enrolment", requester="benchmarks.enrol"
            ),
            photo=photo,
        )
        return (await self._search.Search(request)).account.rows

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()

    async def _caller(self, pending: Iterator[bytes]) -> None:
        for photo in pending:
            self._number += 1
            answer = await self._enrolment.EnrolRecord(
                enrolment_pb2.EnrolRecordRequest(
                    request_id=str(uuid.uuid4()),
                    key=records_pb2.RecordKey(
                        agency="benchmark", gallery="missing", external_reference=str(self._number)
                    ),
                    photos=[
                        enrolment_pb2.PhotoUpload(content=photo, choice=records_pb2.FACE_CHOICE_MOST_CENTRAL)
                    ],
                )
            )
            self.rows += len(answer.outcomes[0].face_ids)
            self.codes[answer.outcomes[0].code] += 1

    def _cpu(self) -> float:
        """Of this process and the server's, with its decoders that are alive."""
        processes = (psutil.Process(), self._server, *self._server.children(recursive=True))
        return sum(each.user + each.system for each in (process.cpu_times() for process in processes))


@asynccontextmanager
async def server(folder: Path, smallest_face_px: int) -> AsyncIterator[Client]:
    """A server of its own process, and a client of it."""
    log = folder / "server.log"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HOMEWARD_")}
    environment["HOMEWARD_WORKERS__MIN_FACE_PX"] = str(smallest_face_px)
    command = [sys.executable, "-m", "cluster.cli.main", "--data-dir", str(folder / "data"), "--json"]
    with log.open("wb") as errors:
        child = await asyncio.create_subprocess_exec(
            *command,
            "serve",
            "--address",
            "127.0.0.1:0",
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            env=environment,
        )
    assert child.stdout is not None
    try:
        line = await asyncio.wait_for(child.stdout.readline(), _START_S)
        if not line:
            raise RuntimeError(f"the server did not start: {log.read_text(errors='replace')[-2000:]}")
        client = Client(json.loads(line)["address"], psutil.Process(child.pid))
        try:
            yield client
        finally:
            await client.close()
    finally:
        child.terminate()
        await child.wait()
