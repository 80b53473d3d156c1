"""The server as a process: it ends in order on SIGTERM, and leaves a whole log on kill -9."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc

from cluster.searchlog import SearchLog, log_files
from cluster.searchlog_verify import verify
from cluster.server import RunningServer, serve
from homeward.config import ServerSettings, Settings
from homeward.v1 import search_pb2
from tests.cluster.clients import search_stub
from tests.cluster.fakes import MODEL_ID, FakeEmbedding, fake_photo, fake_template
from tests.cluster.serving import CASE, opening

START_S = 240.0  # the stores take seconds to import, and many more on a busy machine

CHILD = """
import asyncio, sys
from pathlib import Path
from cluster.server import serve
from homeward.config import ServerSettings, Settings
from tests.cluster.serving import opening

settings = Settings(data_dir=Path(sys.argv[1]), server=ServerSettings(address="127.0.0.1:0"))
asyncio.run(serve(settings, lambda server: print(server.address, flush=True), opening(enrols=False)))
"""


@asynccontextmanager
async def child(folder: Path) -> AsyncIterator[tuple[Process, grpc.aio.Channel]]:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", CHILD, str(folder), stdout=PIPE)
    try:
        assert process.stdout is not None
        address = (await asyncio.wait_for(process.stdout.readline(), START_S)).decode().strip()
        async with grpc.aio.insecure_channel(address) as channel:
            yield process, channel
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_sigterm_lets_a_running_search_end(tmp_path: Path) -> None:
    embedding = FakeEmbedding()
    embedding.gate = asyncio.Event()
    ready: asyncio.Future[RunningServer] = asyncio.get_running_loop().create_future()
    settings = Settings(data_dir=tmp_path, server=ServerSettings(address="127.0.0.1:0"))
    serving = asyncio.create_task(serve(settings, ready.set_result, opening(embedding, enrols=False)))
    async with grpc.aio.insecure_channel((await ready).address) as channel:
        request = search_pb2.SearchRequest(context=CASE, photo=fake_photo("slow"))
        running = asyncio.ensure_future(search_stub(channel).Search(request))
        await asyncio.sleep(0.2)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(0.2)
        assert not running.done()
        embedding.gate.set()
        assert (await running).search_id
    await serving
    assert verify(tmp_path / "search-log").lines == 1


async def test_kill_9_leaves_a_line_for_every_answer(tmp_path: Path) -> None:
    answered: list[str] = []
    enough = asyncio.Event()
    async with child(tmp_path) as (process, channel):
        stub = search_stub(channel)

        async def ask(client: int) -> None:
            for number in range(10_000):
                values = fake_template(b"%d-%d" % (client, number), 0).tolist()
                template = search_pb2.Template(values=values, model_id=MODEL_ID)
                request = search_pb2.SearchRequest(context=CASE, template=template)
                answered.append((await stub.Search(request)).search_id)
                if len(answered) == 100:
                    enough.set()

        clients = [asyncio.create_task(ask(client)) for client in range(4)]
        await asyncio.wait_for(enough.wait(), 60)
        process.kill()
        ends = await asyncio.gather(*clients, return_exceptions=True)
        assert all(isinstance(end, grpc.aio.AioRpcError) for end in ends)
    with SearchLog(tmp_path / "search-log"):
        pass
    assert verify(tmp_path / "search-log").complete
    logged = {
        json.loads(line).get("search_id")
        for path in log_files(tmp_path / "search-log")
        for line in path.read_bytes().splitlines()
    }
    assert set(answered) <= logged
