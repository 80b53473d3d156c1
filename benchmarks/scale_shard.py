"""A shard in a process of its own, without Ray and without Milvus: its rows come from files.

All else is what serves: `ShardNode` behind its port, following a catalogue and entered there.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import signal
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import cast

from benchmarks.scale_rows import DIMENSION, RowFiles
from catalogue.open import open_catalogue
from cluster.follow import Follower
from cluster.gallery_rows import GalleryRows
from cluster.shard_maps import ShardEntry, ShardMaps
from cluster.shard_node import ShardNode
from homeward.config import IndexSettings, Settings
from index.gallery import MilvusGallery
from index.shard import Shard
from index.shard_service import serving
from index.warm_up import compile_kernels

MODEL_ID = "synthetic/1"


def settings_of(folder: Path, threads: int) -> Settings:
    """Of the shards and their controller."""
    index = IndexSettings(where="shards", replicas=1, threads=threads, lost_s=60.0)
    return Settings(data_dir=folder, index=index)


async def serve(folder: Path, rows: Path, name: str, threads: int) -> None:
    """Be the shard until SIGTERM; says so once it is entered."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    settings = settings_of(folder, threads)
    compile_kernels()
    async with AsyncExitStack() as stack:
        catalogue = open_catalogue(settings.catalogue, settings.data_dir)
        stack.callback(catalogue.close)
        originals = folder / name
        originals.mkdir()
        index = Shard(DIMENSION, folder=originals, threads=threads)
        stack.callback(index.close)
        maps = ShardMaps(catalogue, MODEL_ID)
        no_gallery = cast("MilvusGallery", None)  # the files have every slot
        follower = Follower(
            catalogue, GalleryRows(catalogue, no_gallery, MODEL_ID, DIMENSION), index, RowFiles(rows)
        )
        incarnation = secrets.token_hex(8)
        shard = ShardNode(
            name=name,
            incarnation=incarnation,
            maps=maps,
            follower=follower,
            index=index,
            settings=settings,
        )
        shard.open()
        stack.push_async_callback(shard.close)
        address = await stack.enter_async_context(serving(shard, "127.0.0.1:0", None))
        maps.enter(ShardEntry(name, f"node-{name}", 1.0, address, incarnation))
        print(json.dumps({"address": address}), flush=True)
        await stop.wait()


def main() -> None:
    """Entry point: folder of the catalogue, folder of the rows, name, threads."""
    folder, rows, name, threads = sys.argv[1:]
    asyncio.run(serve(Path(folder), Path(rows), name, int(threads)))


if __name__ == "__main__":
    main()
