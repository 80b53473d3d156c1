"""What a load costs beside the bare loop, by how many photos it has.

    .venv/bin/python -m benchmarks.load_overhead --json FILE [--photos 4000 12000]

Jittered crops of lfw_dev.tar, loaded into PostgreSQL, Milvus and S3 on this machine, each load followed by
the bare loop (`benchmarks.load_bare`) over the same archive. Both are timed from the start of their command
to its end: a load starts Ray and waits for it, which a large one hardly notices.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import machine, shared_photos, write_json
from benchmarks.load_archive import jittered
from benchmarks.load_run import environment, own_stores, run_bare, run_load
from benchmarks.reporting import say, surroundings
from benchmarks.stores import Stores, running_stores

_PHOTOS = (4_000, 12_000)


def measure(stores: Stores, folder: Path, photos: int) -> dict[str, Any]:
    """One load of so many photos, and the bare loop after it."""
    made = folder / f"jittered-{photos}.tar"
    say(f"making {photos:,} jittered crops")
    jittered(shared_photos() / "lfw_dev.tar", made, photos)
    say(f"loading {photos:,} photos")
    name = f"size{photos}"
    load = run_load(name, [made], environment(own_stores(stores, name), folder / name))
    say(f"the bare loop over {photos:,} photos")
    bare = run_bare(made)
    made.unlink()
    return {
        "photos": load.photos,
        "overhead_ratio": load.photos_per_s / bare["whole_photos_per_s"],
        "overhead_ratio_steady": load.steady_photos_per_s / bare["photos_per_s"],
        "photos_per_s": load.photos_per_s,
        "seconds": load.seconds,
        "bare": bare,
    }


def main() -> int:
    """Measure, print a line for each size, write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, required=True, help="where the figures are written")
    parser.add_argument("--photos", type=int, nargs="+", default=_PHOTOS, help="how many, one load for each")
    options = parser.parse_args()
    before = machine()
    with tempfile.TemporaryDirectory(prefix="homeward-load-bench-") as name, running_stores() as stores:
        sizes = [measure(stores, Path(name), photos) for photos in options.photos]
    write_json(options.json, {"benchmark": "load_overhead", "sizes": sizes} | surroundings(before))
    for one in sizes:
        print(
            f"load of {one['photos']:,} photos: {one['overhead_ratio']:.2f} of the bare loop, "
            f"{one['overhead_ratio_steady']:.2f} without starts"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
