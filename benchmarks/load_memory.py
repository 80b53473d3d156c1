"""The memory of a load of 50,000 photos beside that of one of 5,000.

    .venv/bin/python -m benchmarks.load_memory --json FILE

What `benchmarks.load --full` measures too, alone: jittered crops of lfw_dev.tar, loaded into PostgreSQL,
Milvus and S3 on this machine. Memory is private memory of the driver and all below it, Ray's shared memory
included; other work on the machine makes it slower, not other. Some 20 minutes on two cores.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import machine, shared_photos, write_json
from benchmarks.load_archive import jittered
from benchmarks.load_run import Run, environment, own_stores, run_load
from benchmarks.reporting import say, surroundings
from benchmarks.stores import Stores, running_stores


def full_memory(stores: Stores, folder: Path, archive: Path) -> dict[str, Any]:
    """Peaks of private memory of a load of 5,000 and of one of 50,000 photos, and their ratio."""
    peaks: dict[int, int] = {}
    runs: dict[int, Run] = {}
    for count in (5_000, 50_000):
        made = folder / f"jittered-{count}.tar"
        say(f"making {count:,} jittered crops")
        jittered(archive, made, count)
        say(f"loading {count:,} photos")
        given = environment(own_stores(stores, f"many{count}"), folder / f"many{count}")
        runs[count] = run_load("many", [made], given)
        peaks[count] = runs[count].peak(count)
        made.unlink()
    return {
        "rss_ratio": peaks[50_000] / peaks[5_000],
        "rss_ratio_of": [50_000, 5_000],
        "rss_peak_bytes": peaks,
        "many_photos_per_s": {count: run.photos_per_s for count, run in runs.items()},
    }


def main() -> int:
    """Measure, print one line, write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, required=True, help="where the figures are written")
    options = parser.parse_args()
    before = machine()
    with tempfile.TemporaryDirectory(prefix="homeward-load-bench-") as name, running_stores() as stores:
        figures = full_memory(stores, Path(name), shared_photos() / "lfw_dev.tar")
    write_json(options.json, {"benchmark": "load_memory"} | figures | surroundings(before))
    print(f"load: memory of 50,000 photos {figures['rss_ratio']:.2f} times that of 5,000")
    return 0


if __name__ == "__main__":
    sys.exit(main())
