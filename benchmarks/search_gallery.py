"""A server of its own process over a gallery of synthetic templates, for `benchmarks.search_latency`."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cluster.demo.distractors import load_distractors
from cluster.server import running_server
from homeward.config import ServerSettings, Settings
from homeward.memory import settled
from index.columns import COLUMN_NAMES, Columns, concatenate

LOAD_S = 1200.0
_ROWS = "rows.npz"


@dataclass(frozen=True, slots=True)
class Gallery:
    """Where it is served, and the rows that the reference searches."""

    address: str
    model_id: str
    columns: Columns
    load_s: float  # to write the templates to gallery, catalogue and index


@asynccontextmanager
async def load_gallery(folder: Path, templates: int) -> AsyncIterator[Gallery]:
    """Load the templates and serve them from another process while the context lasts."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.search_gallery", str(folder), str(templates), stdout=PIPE
    )
    try:
        assert child.stdout is not None
        line = await asyncio.wait_for(child.stdout.readline(), LOAD_S)
        if not line:
            raise RuntimeError("the server ended before it served")
        said = json.loads(line)
        with np.load(folder / _ROWS, allow_pickle=False) as rows:
            columns = Columns(**{name: rows[name] for name in COLUMN_NAMES})
        if len(columns) != templates:
            raise RuntimeError(f"the gallery gave back {len(columns)} rows of {templates}")
        yield Gallery(said["address"], said["model_id"], columns, said["load_s"])
    finally:
        if child.returncode is None:
            child.terminate()
        await child.wait()


async def _serve(folder: Path, templates: int) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    settings = Settings.load(data_dir=folder / "data", server=ServerSettings(address="127.0.0.1:0"))
    async with running_server(settings) as server:
        parts = server.parts
        started = time.perf_counter()
        await load_distractors(parts, templates)
        load_s = time.perf_counter() - started
        # Read back from the gallery, not from the index that answers.
        read = await asyncio.to_thread(lambda: list(parts.gallery.iterate()))
        columns = concatenate(read, parts.embedding.dimension)
        np.savez(folder / _ROWS, **{name: getattr(columns, name) for name in COLUMN_NAMES})
        said = {"address": server.address, "model_id": parts.embedding.model_id, "load_s": load_s}
        with settled():
            print(json.dumps(said), flush=True)
            await stop.wait()


def main() -> None:
    """Load the folder and serve it; prints one line of JSON once it is ready."""
    logging.basicConfig(level=logging.WARNING)
    asyncio.run(_serve(Path(sys.argv[1]), int(sys.argv[2])))


if __name__ == "__main__":
    main()
