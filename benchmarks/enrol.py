"""Photos per second from bytes to a searchable row, beside a plain one-process loop.

    .venv/bin/python -m benchmarks.enrol --json FILE

Homeward's side is a real server in a process of its own with its embedded parts; a client keeps 64
EnrolRecord calls in flight, one photo and one new record each; at the reply the record is durable in
photo store, Milvus Lite and catalogue, and searchable. The peer is `benchmarks.enrol_peer`: dlib's
HOG + 5-point + ResNet one photo at a time, written to Milvus Lite by the same adapter. Rounds of both
alternate, so that whatever else the machine does meets both; a speed-up is the median of the rounds'.

Both sides look for faces of the same smallest size. lfw_dev (250 x 250): 40 px, which for HOG's 80 px
window is `face_recognition`'s default of one upsampling, and Homeward's default. london (1350 x 1350):
55 px; the peer's detector sees the photo enlarged by 80 / 55, Homeward's has `workers.min_face_px` 55.
Decoding alone, the model alone, and both without a server are measured after it, as the limits.
"""

from __future__ import annotations

import argparse
import asyncio
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psutil

from benchmarks.common import machine, shared_photos, write_json
from benchmarks.enrol_client import IN_FLIGHT, Round, server
from benchmarks.enrol_peer import PeerLoop
from homeward.config import Settings, WorkerSettings
from homeward.ids import photo_sha256
from workers.decode import DecodedPhoto

_WARM = 64


@dataclass(frozen=True, slots=True)
class Condition:
    """One set of photos and how much of it a round takes."""

    name: str  # "small" or "large"
    photos: tuple[bytes, ...]
    smallest_face_px: int
    ours: int  # photos of one round
    peer: int


async def measure(condition: Condition, rounds: int, folder: Path) -> dict[str, object]:
    """Alternate both sides, then measure the limits."""
    peer = PeerLoop(folder / "peer", condition.smallest_face_px)
    ours: list[Round] = []
    theirs: list[Round] = []
    async with server(folder, condition.smallest_face_px) as client:
        await client.enrol(_cycle(condition.photos, 0, _WARM))
        _peer_round(peer, condition.photos[:2], "warm")
        for number in range(rounds):
            chunk = _cycle(condition.photos, number * condition.peer, condition.peer)
            theirs.append(_peer_round(peer, chunk, str(number)))
            ours.append(await client.enrol(_cycle(condition.photos, number * condition.ours, condition.ours)))
        searched = await client.rows_searched(condition.photos[0])
        codes, rows = client.codes, client.rows
    peer.close()
    if searched != rows:
        raise RuntimeError(f"{rows} rows were enrolled, but {searched} are searched")
    return {
        "speedup": median(our.rate / their.rate for our, their in zip(ours, theirs, strict=True)),
        "photos_per_s": median(each.rate for each in ours),
        "peer_photos_per_s": median(each.rate for each in theirs),
        "cpu_ms_per_photo": median(1e3 * each.cpu_seconds / each.photos for each in ours),
        "peer_cpu_ms_per_photo": median(1e3 * each.cpu_seconds / each.photos for each in theirs),
        "rounds": [round(each.rate, 2) for each in ours],
        "peer_rounds": [round(each.rate, 3) for each in theirs],
        "photos": sum(each.photos for each in ours),
        "peer_photos": sum(each.photos for each in theirs),
        "enrolled": sum(each.enrolled for each in ours) / sum(each.photos for each in ours),
        "peer_enrolled": sum(each.enrolled for each in theirs) / sum(each.photos for each in theirs),
        "outcomes": dict(codes),
        "rows_searched": searched,
        "smallest_face_px": condition.smallest_face_px,
        **await limits(condition),
    }


async def limits(condition: Condition) -> dict[str, object]:
    """Photos per second of the parts alone, in this process: what no server around them can exceed."""
    from workers.open import local_embedding, open_decoder, open_pipeline

    workers = WorkerSettings(min_face_px=condition.smallest_face_px)
    photos = _cycle(condition.photos, 0, min(condition.ours, 256))
    batches = [photos[at : at + workers.batch_max] for at in range(0, len(photos), workers.batch_max)]
    pool, pipeline = open_decoder(workers), open_pipeline(Settings(workers=workers))
    pool.decode_many(batches[0])
    decode = _rate(len(photos), lambda: [pool.decode_many(batch) for batch in batches])
    decoded = [
        [photo for photo in pool.decode_many(batch) if isinstance(photo, DecodedPhoto)] for batch in batches
    ]
    pipeline.embed_each(decoded[0])
    model = _rate(len(photos), lambda: [pipeline.embed_each(batch) for batch in decoded])
    embedding = local_embedding(pipeline, pool, workers)
    started = time.perf_counter()
    await asyncio.gather(*(embedding.embed(photo) for photo in photos))
    both = len(photos) / (time.perf_counter() - started)
    await embedding.close()
    return {"decode_photos_per_s": decode, "model_photos_per_s": model, "without_server_photos_per_s": both}


def conditions(small: int, large: int, peer_small: int, peer_large: int) -> list[Condition]:
    """lfw_dev's first photos in archive order, and all of london."""
    folder = shared_photos()
    lfw: list[bytes] = []
    with tarfile.open(folder / "lfw_dev.tar") as archive:
        for member in archive:
            file = archive.extractfile(member) if member.name.endswith(".jpg") else None
            if file is not None:
                lfw.append(file.read())
    london = [path.read_bytes() for path in sorted((folder / "london").glob("*/*.jpg"))]
    # Spread over the archive: the peer sees a few photos of it, of people from A to Z.
    step = max(1, len(lfw) // 1499)
    return [
        Condition("small", tuple(lfw[::step]), 40, small, peer_small),
        Condition("large", tuple(london), 55, large, peer_large),
    ]


def _peer_round(peer: PeerLoop, photos: Sequence[bytes], name: str) -> Round:
    own = psutil.Process()
    before, started = own.cpu_times(), time.perf_counter()
    enrolled = sum(
        peer.enrol(photo, photo_sha256(f"{name}/{number}".encode())[:32])
        for number, photo in enumerate(photos)
    )
    seconds, after = time.perf_counter() - started, own.cpu_times()
    return Round(len(photos), enrolled, seconds, after.user + after.system - before.user - before.system)


def _rate(photos: int, work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return photos / (time.perf_counter() - started)


def _cycle(photos: Sequence[bytes], start: int, count: int) -> list[bytes]:
    return [photos[(start + offset) % len(photos)] for offset in range(count)]


def main() -> None:
    """Measure, print one line, write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, required=True, help="where the figures are written")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--small", type=int, default=480, help="lfw_dev photos of one round, our side")
    parser.add_argument("--large", type=int, default=80, help="london photos of one round, our side")
    parser.add_argument("--peer-small", type=int, default=40, help="photos of one round, the peer's side")
    parser.add_argument("--peer-large", type=int, default=4)
    options = parser.parse_args()
    figures: dict[str, object] = {"machine": machine(), "in_flight": IN_FLIGHT}
    line = []
    for condition in conditions(options.small, options.large, options.peer_small, options.peer_large):
        with tempfile.TemporaryDirectory(prefix="homeward-enrol-") as name:
            found = asyncio.run(measure(condition, options.rounds, Path(name)))
        figures[f"speedup_{condition.name}"] = found["speedup"]
        figures[condition.name] = found
        line.append(
            f"{condition.name} {found['photos_per_s']:.1f}/s, {found['speedup']:.1f}x the plain loop's "
            f"{found['peer_photos_per_s']:.2f}/s"
        )
    figures["machine_after"] = machine()
    write_json(options.json, figures)
    print(f"enrol: {'; '.join(line)}")


if __name__ == "__main__":
    main()
