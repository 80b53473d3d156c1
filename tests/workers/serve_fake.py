"""A worker process with the fake pipeline: `python -m tests.workers.serve_fake ADDRESS TOKEN [MODEL_ID]`.

Prints its address when it listens, and serves until its standard input ends.
"""

from __future__ import annotations

import asyncio
import sys

from pydantic import SecretStr

from homeward.config import WorkerSettings
from tests.workers.fakes import FakePipeline, FakePool
from workers.local import LocalEmbedding
from workers.service import serving


async def main(address: str, token: str, model_id: str | None) -> None:
    settings = WorkerSettings()
    pipeline = FakePipeline()
    if model_id:
        pipeline.model_id = model_id
    embedding = LocalEmbedding(pipeline, FakePool(), settings)
    limit = settings.max_photo_bytes
    async with serving(embedding, address, SecretStr(token), max_photo_bytes=limit) as listening:
        sys.stdout.write(listening + "\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)
    await embedding.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else None))
