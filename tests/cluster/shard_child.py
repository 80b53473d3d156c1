"""A shard or the controller in a process of its own, without Ray, which would only start it.

`python -m tests.cluster.shard_child NAME`; the NAME `controller` starts that one. Settings come from the
environment; a line is written once it runs, and it ends when it is terminated.
"""

from __future__ import annotations

import asyncio
import sys

from benchmarks.filled_children import model
from cluster.shard_process import IndexModel, controlling, serving_shard
from homeward.config import Settings


async def main(name: str) -> None:
    settings = Settings.load()
    index_model = IndexModel(*model())
    if name == "controller":
        async with controlling(settings, index_model, lambda _: None):
            await _forever()
    else:
        async with serving_shard(settings, index_model, name, f"node-of-{name}", "127.0.0.1"):
            await _forever()


async def _forever() -> None:
    sys.stdout.write("it runs\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
