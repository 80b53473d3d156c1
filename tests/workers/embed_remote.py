"""A process that never joins Ray: `python -m tests.workers.embed_remote DATA_DIR PHOTO`.

For every line on its standard input it embeds the photo and prints the first face's template as hex.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from cluster.worker_placement import OpenedPlacements
from homeward.config import Settings
from workers.remote import open_remote


async def main(data_dir: Path, photo: bytes) -> None:
    settings = Settings(data_dir=data_dir)
    remote = await open_remote(settings.workers, OpenedPlacements.of(settings), patience_s=60)
    while await asyncio.to_thread(sys.stdin.readline):
        faces = await remote.embed(photo)
        sys.stdout.write(faces.faces[0].template.tobytes().hex() + "\n")
        sys.stdout.flush()
    await remote.close()
    assert "ray" not in sys.modules
    assert "torch" not in sys.modules


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]).read_bytes()))
