"""A model upgrade and back under searches: PostgreSQL, Milvus, S3 and two servers, killed twice by kill -9.

    .venv/bin/python -m benchmarks.upgrade --lfw TAR --bundle FOLDER --json FILE

2,000 people's first photos are loaded with the default model; the second photos of those who have one are
probes, which a client at each server searches with from the first moment to the last. Then
`homeward models migrate` to the bundle in FOLDER, killed twice on the way, while others are enrolled and
deleted; cut-over, roll-back, cut-over, finish; and the same back to the default model.

`failed` counts searches of those clients that were not answered, or with nobody. `unaccounted` counts
records that have neither a face of the model that serves nor a listed loss, or that were deleted and have
one. `rank1` is measured at a server by the most central face of each probe: with the bundle it must be higher
than with the default model, as `benchmarks.accuracy` finds on the same photos by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from benchmarks.common import machine, write_json
from benchmarks.reporting import say, surroundings
from benchmarks.served import served
from benchmarks.stores import running_stores
from benchmarks.upgrade_clients import (
    AGENCY,
    GALLERY,
    Watched,
    delete,
    enrol,
    name_of,
    rank1,
    searching,
)
from benchmarks.upgrade_world import MEANWHILE, People, World, rows_left, unaccounted, unpack

RECORDS = 2000
KILL_AT = (0.25, 0.6)  # of the photos covered


def leaving(people: People, turn: int) -> list[str]:
    """Who is deleted during one direction."""
    return [name for name, _ in people.gallery[-(turn + 1) * MEANWHILE :]][:MEANWHILE]


async def migrate(
    world: World, bundle: str, model: str, people: People, *, kills: int, turn: int
) -> dict[str, Any]:
    """One direction, from the first photo to ready, killed on the way; others come and go meanwhile."""
    began = time.monotonic()
    newcomers = people.others[turn * 2 * MEANWHILE :][: 2 * MEANWHILE]
    leavers = leaving(people, turn)
    killed = 0
    total = len(people.gallery)

    async def come_and_go() -> None:
        photos = [(name, path.read_bytes()) for name, path in newcomers]
        await enrol(world.addresses[0], photos[:MEANWHILE])
        await delete(world.addresses[-1], leavers)
        await enrol(world.addresses[-1], photos[MEANWHILE:])

    busy = asyncio.create_task(come_and_go())
    for share in KILL_AT[:kills]:
        kill_at = {"model": model, "photos": int(share * total)}
        code, _ = await world.homeward("models", "migrate", "--to", bundle, kill_at=kill_at)
        killed += code == -signal.SIGKILL
        say(f"migrate to {bundle}: killed at {share:.0%} ({code})")
    said = await world.must("models", "migrate", "--to", bundle)
    await busy
    return {
        "killed": killed,
        "seconds": round(time.monotonic() - began, 1),
        "state": said["state"],
        "models": said["models"],
        "enrolled_meanwhile": len(newcomers),
        "deleted_meanwhile": len(leavers),
    }


async def upgrade(
    world: World, people: People, watched: Watched, models: Mapping[str, str]
) -> dict[str, Any]:
    """There and back; what was found."""
    stronger = next(name for name in models if name != "default")
    found: dict[str, Any] = {"rank1": {"default": await rank1(world.addresses[0], people.probes)}}
    gone: list[str] = []
    for turn, (old, new) in enumerate((("default", stronger), (stronger, "default"))):
        kills = len(KILL_AT) if turn == 0 else 0
        moved = await migrate(world, new, models[new], people, kills=kills, turn=turn)
        gone += [name_of(name) for name in leaving(people, turn)]
        if turn == 0:
            found["compared"] = await world.must(
                *(
                    "--server",
                    world.addresses[0],
                    "models",
                    "migrate",
                    "compare",
                    "--case",
                    "benchmark",
                    "--purpose",
                    "measuring",
                ),
                *("--as", "benchmarks", "--sample", "40", "--html", str(world.folder / "compared.html")),
                *("--probes", str(_probe_folder(people, world.folder / "probes", 40))),
            )
        moved["accounted_before_cut_over"] = unaccounted(world, models[new], gone)
        for verb in ("cut-over", "roll-back", "cut-over") if turn == 0 else ("cut-over",):
            await world.must("models", "migrate", verb, *_ACCEPTED.get(verb, ()))
        found["rank1"][new if turn == 0 else "default again"] = await rank1(
            world.addresses[turn], people.probes
        )
        await world.must("models", "migrate", "finish", "--yes", "--accept-losses")
        moved["accounted_at_last"] = unaccounted(world, models[new], gone)
        moved["left_of_old"] = rows_left(world, models[old])
        found[f"to {new}"] = moved
    found["searches"] = {
        "searches": watched.searches,
        "failed": watched.failed,
        "errors": dict(watched.errors),
        "models": dict(watched.models),
    }
    return found


_ACCEPTED = {"cut-over": ("--accept-losses",)}


def _probe_folder(people: People, folder: Path, count: int) -> Path:
    for probe in people.probes[:count]:
        (folder / probe.identity).mkdir(parents=True)
        (folder / probe.identity / "probe.jpg").write_bytes(probe.photo)
    return folder


async def run(lfw: Path, bundle: Path, records: int = RECORDS) -> dict[str, Any]:
    """All of it, over new stores."""
    from workers.bundle import read_bundle
    from workers.default_model import MODEL_ID
    from workers.install import install

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        people = unpack(lfw, folder / "photos", records)
        manifest = folder / "manifest.csv"
        with manifest.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("photo", "record", "face"))
            for name, path in people.gallery:
                writer.writerow((str(path.relative_to(people.folder)), name, "central"))
        archive = folder / "archive"
        for name, path in people.gallery:
            (archive / name).mkdir(parents=True)
            shutil.copy(path, archive / name / path.name)
        installed = install(bundle.name, folder / "models", source=bundle)
        models = {"default": MODEL_ID, installed.name: read_bundle(installed.folder).model_id}
        with running_stores() as stores:
            world = World(stores, folder, folder / "models")
            say(f"{len(people.gallery)} records, {len(people.probes)} probes; stores run")
            await world.must(
                *("load", "start", "people", str(archive), "--manifest", str(manifest)),
                *("--agency", AGENCY, "--gallery", GALLERY),
            )
            async with AsyncExitStack() as stack:
                for name in ("a", "b"):
                    server = await stack.enter_async_context(
                        served(stores, folder / f"server-{name}", world.settings)
                    )
                    world.addresses.append(server.address)
                say(f"servers at {', '.join(world.addresses)}")
                watched = await stack.enter_async_context(searching(world.addresses, people.probes))
                found = await upgrade(world, people, watched, models)
        return {"records": len(people.gallery), "models": models, **found}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(prog="benchmarks.upgrade", description="A model upgrade under searches.")
    parser.add_argument("--lfw", type=Path, required=True, help="tar of <identity>/<photo>")
    parser.add_argument("--bundle", type=Path, required=True, help="folder with the stronger bundle's files")
    parser.add_argument("--records", type=int, default=RECORDS)
    parser.add_argument("--json", type=Path, required=True)
    options = parser.parse_args(arguments)
    before = machine()
    found = asyncio.run(run(options.lfw, options.bundle, options.records))
    write_json(options.json, {"benchmark": "upgrade", **found, **surroundings(before)})
    print(json.dumps({"rank1": found["rank1"], "searches": found["searches"]}, indent=2))
    moved = [each for name, each in found.items() if name.startswith("to ")]
    lost = sum(each["accounted_at_last"]["unaccounted"] for each in moved)
    return 1 if found["searches"]["failed"] or lost else 0


if __name__ == "__main__":
    sys.exit(main())
