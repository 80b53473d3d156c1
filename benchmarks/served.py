"""`homeward serve` as a process of its own over given stores, for the benchmarks that measure it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.stores import Stores

_START_S = 1800.0
_STOP_S = 30.0
_LOG_CHARS = 2000


@dataclass(frozen=True, slots=True)
class Served:
    """A server that serves."""

    address: str
    process: psutil.Process
    serving_s: float  # from exec until it said that it serves

    def cpu_s(self) -> float:
        """Seconds of processor time that it and its children that live have used so far."""
        times = [one.cpu_times() for one in (self.process, *self.process.children(recursive=True))]
        return sum(one.user + one.system for one in times)


def environment(stores: Stores, more: Mapping[str, str]) -> dict[str, str]:
    """Of a Homeward process over these stores, whatever this process's own settings are."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("HOMEWARD_")}
    return own | stores.environment() | dict(more)


def command(data_dir: Path, address: str) -> list[str]:
    """How a server is started."""
    program = [sys.executable, "-m", "cluster.cli.main"]
    return [*program, "--data-dir", str(data_dir), "--json", "serve", "--address", address]


@asynccontextmanager
async def served(
    stores: Stores, data_dir: Path, more: Mapping[str, str] | None = None
) -> AsyncIterator[Served]:
    """Serve the stores while the context lasts; entered when it serves. `more` are settings of the
    environment. Raises `RuntimeError` with the log's end when it does not start."""
    log = log_of(data_dir)
    started = time.perf_counter()
    with log.open("ab") as errors:
        child = await asyncio.create_subprocess_exec(
            *command(data_dir, "127.0.0.1:0"),
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            env=environment(stores, more or {}),
        )
    assert child.stdout is not None
    try:
        line = await asyncio.wait_for(child.stdout.readline(), _START_S)
        if not line:
            raise RuntimeError(f"the server did not start: {log.read_text(errors='replace')[-_LOG_CHARS:]}")
        spent = time.perf_counter() - started
        yield Served(json.loads(line)["address"], psutil.Process(child.pid), spent)
    finally:
        await stop(child)


def log_of(data_dir: Path) -> Path:
    """Where a server with this data folder logs; the folder is made."""
    data_dir.mkdir(parents=True, exist_ok=True)
    return data_dir / "server.log"


async def stop(child: asyncio.subprocess.Process) -> None:
    """End a child politely, then by force."""
    if child.returncode is None:
        child.terminate()
        try:
            await asyncio.wait_for(child.wait(), _STOP_S)
        except TimeoutError:
            child.kill()
    await child.wait()
