"""A server in a process of its own, to be killed: the embedded stores and the fake or the real model.

The processes are forked from one that has imported everything and started nothing, which makes a start
several times faster than a new interpreter.
"""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import grpc

from cluster.compose import compose
from cluster.server import serve
from homeward.config import ServerSettings, Settings
from tests.cluster.children import Client, client_of
from tests.cluster.serving import opening

_START_S = 120
_END_S = 30

_forking = multiprocessing.get_context("forkserver")


@asynccontextmanager
async def killable(folder: Path, *, real: bool = False) -> AsyncIterator[tuple[ForkServerProcess, Client]]:
    """Such a server; at the end it is stopped in order unless it was killed."""
    _forking.set_forkserver_preload(["tests.cluster.killable"])
    ours, theirs = _forking.Pipe(duplex=False)
    process = _forking.Process(target=_main, args=(str(folder), real, theirs))
    await asyncio.to_thread(process.start)
    theirs.close()
    try:
        assert await asyncio.to_thread(ours.poll, _START_S), "the server did not start"
        async with grpc.aio.insecure_channel(ours.recv()) as channel:
            yield process, client_of(channel)
        process.terminate()
        await asyncio.to_thread(process.join, _END_S)
    finally:
        await kill(process)


async def kill(process: ForkServerProcess) -> None:
    """kill -9, and wait for the end."""
    process.kill()
    await asyncio.to_thread(process.join)


def _main(folder: str, real: bool, address: Connection) -> None:
    settings = Settings(data_dir=Path(folder), server=ServerSettings(address="127.0.0.1:0", drain_s=2.0))
    open_parts = compose if real else opening()
    asyncio.run(serve(settings, lambda running: address.send(running.address), open_parts))
