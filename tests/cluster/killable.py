"""A server in a process of its own, to be killed: the embedded stores and the fake model.

    python -m tests.cluster.killable DATA_DIR

prints its address when it serves.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc

from cluster.server import serve
from homeward.config import ServerSettings, Settings
from tests.cluster.children import Client, client_of
from tests.cluster.serving import opening

_START_S = 120
_END_S = 30


@asynccontextmanager
async def killable(folder: Path) -> AsyncIterator[tuple[Process, Client]]:
    """Such a server; at the end it is stopped in order unless it was killed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.cluster.killable", str(folder), stdout=PIPE
    )
    try:
        assert process.stdout is not None
        address = (await asyncio.wait_for(process.stdout.readline(), _START_S)).decode().strip()
        assert address, "the server did not start"
        async with grpc.aio.insecure_channel(address) as channel:
            yield process, client_of(channel)
        if process.returncode is None:
            process.terminate()
            await asyncio.wait_for(process.wait(), _END_S)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def kill(process: Process) -> None:
    """kill -9, and wait for the end."""
    process.kill()
    await process.wait()


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _main(folder: str) -> None:
    settings = Settings(data_dir=Path(folder), server=ServerSettings(address="127.0.0.1:0", drain_s=2.0))
    asyncio.run(serve(settings, lambda running: _say(running.address), opening()))


if __name__ == "__main__":
    _main(sys.argv[1])
