"""The bare loop that a load is measured against: the same photos through the same decoders and model, without
Ray, Milvus, SQL and S3.

    .venv/bin/python -m benchmarks.load_bare SOURCE...

Prints one JSON line. A process of its own, as the load's driver is.
"""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from concurrent.futures import Future
from contextlib import ExitStack

from cluster.load.open_source import open_source
from cluster.load.picture import picture_hash
from homeward.config import Settings
from homeward.ids import photo_sha256
from homeward.types import PhotoFaces
from workers.bulk import BulkBatch
from workers.open import open_bulk


def main() -> None:
    """Read, hash, decode, detect, align and embed every photo of the sources, and keep nothing."""
    begun = time.perf_counter()
    settings = Settings.load()
    embedding = open_bulk(settings, picture_hash)
    ready = time.perf_counter()
    futures: deque[Future[BulkBatch]] = deque()
    photos = faces = 0
    held: list[bytes] = []

    def finish() -> None:
        nonlocal faces
        for one in futures.popleft().result().photos:
            faces += len(one.faces.faces) if isinstance(one.faces, PhotoFaces) else 0

    with ExitStack() as stack:
        for place in sys.argv[1:]:
            source = stack.enter_context(open_source(place, settings))
            for member in source.members():
                if member.refusal is not None:
                    continue
                content = source.read(member, settings.workers.max_photo_bytes)
                photo_sha256(content)
                photos += 1
                held.append(content)
                if len(held) == settings.workers.batch_max:
                    futures.append(embedding.submit(held))
                    held = []
                while futures and futures[0].done():
                    finish()
    if held:
        futures.append(embedding.submit(held))
    while futures:
        finish()
    ended = time.perf_counter()
    embedding.close()
    figures = {
        "photos": photos,
        "faces": faces,
        "seconds": ended - ready,
        "start_s": ready - begun,
        "photos_per_s": photos / (ended - ready),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
