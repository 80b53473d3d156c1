"""A whole bulk load over real servers, beside the bare loop and a plain script.

    .venv/bin/python -m benchmarks.load --json FILE

PostgreSQL, Milvus and S3 run on this machine, on the same cores. london, canada and odd, and lfw_dev.tar
after them, are loaded twice, each time into empty stores: `unaccounted` counts photos without exactly one
outcome, and `repeats` says whether both loads came to the same, ids and all. `overhead_ratio` is the load's
photos/s of lfw_dev.tar over those of the bare loop (`benchmarks.load_bare`: read, decode, detect, align,
embed), both of the whole command from its start to its end, model loading and Ray's start included. The bare
loop runs before and after each of three loads, and the mean of both counts: a machine that grows faster or
slower favours neither. The middle one of the three is told; none is the first load that the servers ever see.
`overhead_ratio_steady` leaves out all starts. The peer is the loop of
`benchmarks.enrol_peer`. Memory is private memory of the driver and all below it, Ray's shared memory
included: its peak over the whole load against the peak until its first tenth (`rss_ratio`); with --full of
50,000 photos against 5,000, jittered crops of lfw_dev.tar.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.common import machine, shared_photos, write_json
from benchmarks.enrol_peer import PeerLoop
from benchmarks.load_memory import full_memory
from benchmarks.load_run import Run, environment, own_stores, run_bare, run_load
from benchmarks.reporting import say, surroundings
from benchmarks.stores import Stores, running_stores
from catalogue.open import open_catalogue
from cluster.load.load_documents import LoadDocuments
from cluster.load.report import summarise
from homeward.ids import photo_sha256
from photos.open import open_document_store

_PEER_PHOTOS = 96
_SMALLEST_FACE_PX = 40
_OTHERS = ("london", "canada", "odd")
_TIMES = ("one", "two", "three")


def measure(folder: Path, *, full: bool) -> dict[str, Any]:
    """Everything, one after the other."""
    photos = shared_photos()
    archive = photos / "lfw_dev.tar"
    others = [photos / name for name in _OTHERS]
    with running_stores() as stores:
        firsts: list[dict[str, Any]] = []
        runs: list[Run] = []
        bares: list[dict[str, Any]] = []
        for name in _TIMES:
            own = own_stores(stores, name)
            given = environment(own, folder / name)
            if name != _TIMES[-1]:
                say(f"loading london, canada and odd, {name}")
                run_load("others", others, given)
            if not bares:
                say("the bare loop")
                bares.append(run_bare(archive))
            say(f"loading lfw_dev.tar, {name}")
            runs.append(run_load("lfw", [archive], given))
            say("the bare loop")
            bares.append(run_bare(archive))
            if name != _TIMES[-1]:
                firsts.append(outcomes(own, folder / name))
        memory = full_memory(stores, folder, archive) if full else {}
    say("the peer")
    peer = _peer(archive, folder)
    best = max(runs, key=lambda run: run.photos_per_s)
    around = list(pairwise(bares))
    whole = [_ratio(run.seconds, pair, "whole_s") for run, pair in zip(runs, around, strict=True)]
    steady = [
        _ratio(run.photos / run.steady_photos_per_s, pair, "seconds")
        for run, pair in zip(runs, around, strict=True)
    ]
    tenth = best.photos // 10
    return {
        "benchmark": "load",
        "photos": best.photos,
        "unaccounted": sum(found["unaccounted"] for found in firsts),
        "repeats": firsts[0]["rows"] == firsts[1]["rows"],
        "counts": firsts[0]["counts"],
        "overhead_ratio": statistics.median(whole),
        "overhead_ratio_steady": statistics.median(steady),
        "overhead_ratios": whole,
        "overhead_ratios_steady": steady,
        "photos_per_s": [run.photos_per_s for run in runs],
        "steady_photos_per_s": [run.steady_photos_per_s for run in runs],
        "seconds": [run.seconds for run in runs],
        "stages": best.final.get("stages"),
        "bare": bares,
        "speedup_peer": best.photos_per_s / peer,
        "peer_photos_per_s": peer,
        "peak_bytes": best.peak(best.photos),
        "rss_ratio": best.peak(best.photos) / best.peak(tenth),
        "rss_ratio_of": [best.photos, tenth],
        **memory,
    }


def outcomes(stores: Stores, folder: Path) -> dict[str, Any]:
    """What became of every photo of both loads, without times, and how many have not exactly one outcome."""
    rows: list[Any] = []
    counts: dict[str, int] = {}
    unaccounted = 0
    catalogue = open_catalogue(stores.catalogue, folder)
    try:
        documents = LoadDocuments(open_document_store(stores.photos, folder))
        for name in ("others", "lfw"):
            load = catalogue.loads.get(name)
            found = [documents.get_outcome(part.document) for part in catalogue.loads.parts(name)]
            for part in found:
                rows += [{**asdict(photo), "milliseconds": 0.0} for photo in part.photos]
                rows += [asdict(record) for record in part.records]
            with summarise(found) as report:
                missing = report.unaccounted(load.photos or 0)
                unaccounted += missing.missing.count + missing.doubled.count + missing.beyond.count
                for code, photos in (*report.sums.became.items(), *report.sums.codes.items()):
                    counts[str(code)] = counts.get(str(code), 0) + photos
    finally:
        catalogue.close()
    return {"rows": rows, "counts": counts, "unaccounted": unaccounted}


def _ratio(seconds: float, bares: Sequence[Mapping[str, Any]], what: str) -> float:
    """How fast a load of so many seconds was beside these runs of the bare loop over the same photos."""
    return statistics.fmean(float(bare[what]) for bare in bares) / seconds


def _peer(archive: Path, folder: Path) -> float:
    with tarfile.open(archive) as opened:
        members = [member for member in opened if member.isfile() and member.name.endswith(".jpg")]
        step = max(1, len(members) // _PEER_PHOTOS)
        files = [opened.extractfile(member) for member in members[::step][:_PEER_PHOTOS]]
        photos = [file.read() for file in files if file is not None]
    loop = PeerLoop(folder / "peer", _SMALLEST_FACE_PX)
    loop.enrol(photos[0], photo_sha256(b"warm")[:32])
    begun = time.perf_counter()
    for number, photo in enumerate(photos):
        loop.enrol(photo, photo_sha256(str(number).encode())[:32])
    seconds = time.perf_counter() - begun
    loop.close()
    return len(photos) / seconds


def main() -> int:
    """Measure, print one line, write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, required=True, help="where the figures are written")
    parser.add_argument("--full", action="store_true", help="50,000 photos too, for memory")
    options = parser.parse_args()
    before = machine()
    with tempfile.TemporaryDirectory(prefix="homeward-load-bench-") as name:
        figures = measure(Path(name), full=options.full)
    write_json(options.json, figures | surroundings(before))
    print(
        f"load: {figures['unaccounted']} of {figures['photos']:,} photos unaccounted for, repeats "
        f"{figures['repeats']}; {figures['overhead_ratio']:.2f} of the bare loop "
        f"({figures['overhead_ratio_steady']:.2f} without starts), {figures['speedup_peer']:.1f}x the peer; "
        f"memory {figures['rss_ratio']:.2f}x"
    )
    return 1 if figures["unaccounted"] or not figures["repeats"] else 0


if __name__ == "__main__":
    sys.exit(main())
