"""Whether a bulk load comes to the same though everything that takes part in it is killed, with kill -9.

    .venv/bin/python -m benchmarks.kills --json FILE              # some seven minutes on two cores
    .venv/bin/python -m benchmarks.kills --json FILE --kills 6    # one of each kind

One `homeward load` over PostgreSQL, Milvus and S3 on this machine, its loaders on a Ray cluster of three
nodes. --kills times, at a random moment while parts are under way, one of these is killed, in turn: the
driver; a loader's process; a worker node of the cluster with all its processes; Milvus; PostgreSQL; S3.
Servers and nodes are started again at once, with what they held; the load is resumed whenever its driver has
ended before it was done. Before the next kill the load must have written something. Then the same archive is
loaded into empty stores without a kill, and all that both sets of stores hold is compared byte by byte:
records, photos in order, faces, templates as Milvus gives them, the photos' bytes, the outcome files' rows.

  kills      how many there were
  lost       photos, records, faces, templates, outcomes that the killed load lacks. Must be 0
  doubled    those that it has twice, or that nothing accounts for. Must be 0
  equal      whether both are the same, to the byte; not: revs, times, timings, and the catalogue's codes
  resumes    how often the load was resumed
  not_json   lines that the drivers wrote to standard output beside their JSON. Must be 0

The exit code is 1 when one of these is not as it must be. All share the cores of one machine.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.common import machine, write_json
from benchmarks.kills_archive import draw_archive
from benchmarks.kills_export import compared, export, unaccounted
from benchmarks.kills_run import NAME, Killed, Killing, Stuck, in_turn, undisturbed
from benchmarks.kills_world import LOADERS, running_world
from benchmarks.reporting import say, surroundings


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Both loads and their comparison."""
    before = machine()
    say("drawing the archive")
    archive = draw_archive(folder, options.photos, options.seed)
    with running_world(folder) as world:
        say(f"loading {archive.rows:,} photos of {archive.records:,} records")
        killing = Killing(world, archive, options.part_photos, options.stuck_s, options.seed)
        seen = killing.run(in_turn(options.kills), options.pause_s)
        say(f"done after {seen.seconds:.0f} s; now without kills")
        whole_s = undisturbed(world, archive, options.part_photos)
        say("comparing")
        killed, whole = (export(stores, NAME, folder / "data") for stores in (world.killed, world.whole))
        if options.keep is not None:
            options.keep.mkdir(parents=True, exist_ok=True)
            (options.keep / "killed.txt").write_text(killed.text(), encoding="utf-8")
            (options.keep / "whole.txt").write_text(whole.text(), encoding="utf-8")
    differences = compared(killed, whole)
    figures = {
        "benchmark": "kills",
        "kills": len(seen.kills),
        "lost": sum(each["lost"] for each in differences.values()),
        "doubled": sum(each["doubled"] for each in differences.values()),
        "equal": killed.text() == whole.text(),
        "unaccounted": unaccounted(killed, archive.rows),
        "resumes": seen.resumes,
        "by_kind": _by_kind(seen),
        "seconds": round(seen.seconds, 1),
        "seconds_without_kills": round(whole_s, 1),
        "compared": whole.counts(),
        "differences": differences,
        "sha256": {"killed": killed.sha256(), "whole": whole.sha256()},
        "stops": dict(seen.stops),
        "not_json": seen.not_json,
        "each_kill": [asdict(one) for one in seen.kills],
        "archive": {"photos": archive.rows, "records": archive.records, "source": archive.source},
        "loaders": LOADERS,
        "options": {name: getattr(options, name) for name in ("photos", "part_photos", "pause_s", "seed")},
    }
    return figures | surroundings(before)


def _by_kind(seen: Killed) -> dict[str, dict[str, float]]:
    """How many kills of each kind, and how long nothing was written after the worst."""
    counts = Counter(one.kind for one in seen.kills)
    return {
        kind: {"kills": count, "moved_s_max": max(one.moved_s for one in seen.kills if one.kind == kind)}
        for kind, count in counts.items()
    }


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, required=True, help="where the figures are written")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--photos", type=int, default=2000)
    parser.add_argument("--part-photos", type=int, default=16)
    parser.add_argument("--pause-s", type=float, default=3.0, help="a kill comes up to so long after a move")
    parser.add_argument("--stuck-s", type=float, default=240.0, help="a load that writes nothing for so long")
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument("--keep", type=Path, help="folder for both exports, as text")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # ends what was started, too
    with tempfile.TemporaryDirectory(prefix="homeward-kills-") as name:
        try:
            figures = measure(options, Path(name))
        except Stuck as stuck:
            print(f"kills: {stuck}", file=sys.stderr)
            return 2
    write_json(options.json, figures)
    print(
        f"kills: {figures['kills']} kills, {figures['resumes']} resumes, {figures['lost']} lost, "
        f"{figures['doubled']} doubled, {'equal' if figures['equal'] else 'NOT EQUAL'}, "
        f"{figures['seconds']:.0f} s"
    )
    is_right = figures["equal"] and not any(
        figures[name] for name in ("lost", "doubled", "unaccounted", "not_json")
    )
    return 0 if is_right and figures["kills"] == options.kills else 1


if __name__ == "__main__":
    sys.exit(main())
