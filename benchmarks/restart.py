"""How long a server takes from its start to its first certified answer, with and without an index snapshot.

    .venv/bin/python -m benchmarks.restart --json benchmarks/results/restart.json --keep FOLDER
    .venv/bin/python -m benchmarks.restart --json FILE --rows 20000      # a first look

PostgreSQL, Milvus and S3 run, filled with the faces of synthetic children; the index is in the server's
memory. `homeward serve` is started without any snapshot, so that it reads Milvus, and goes on until it has
written snapshots of the whole index to S3; then it is started again, --starts times. From exec on, a client
tries to search: the first answer that calls itself exact counts, and is compared with the reference.

  seconds              with snapshots, the median of the starts
  without_snapshot_s   the first one
  starts               of each: stages (listening: Python, the model, the stores; loading: the index; the
                       first answer itself), and the server's own operations until then, as its metrics say
  differences          first answers that are not the reference's; must be 0, else the exit code is 1

Files that were read before are in the system's cache, as after a restart of the process, not of the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import over_stores
from benchmarks.filled import Filled
from benchmarks.reporting import say
from benchmarks.restart_start import Start, started_server
from benchmarks.search_rows import probes, real_like
from benchmarks.serve_answers import Truth
from benchmarks.serve_clients import by_template
from benchmarks.serve_plots import draw_restart
from benchmarks.snapshots_written import SOON, remove_snapshots, wait_for_snapshots

_PROBES = 8
_SNAPSHOTS_S = 900.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns 1 when a first answer is not the reference's."""
    return over_stores.run(_arguments(arguments), _measure, draw_restart, _tell)


def _tell(figures: dict[str, Any]) -> int:
    print(
        f"restart: {figures['rows']:,} rows, first certified answer {figures['seconds']:.1f} s after exec, "
        f"{figures['without_snapshot_s']:.1f} s without a snapshot; {figures['differences']} differ"
    )
    return int(figures["differences"] > 0)


async def _measure(filled: Filled, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    columns = filled.columns()
    templates = probes(columns.template, real_like, _PROBES, 7)
    truth = Truth(columns)
    request = by_template(templates, filled.model_id)
    removed = await asyncio.to_thread(remove_snapshots, filled)
    say(f"starting Homeward without a snapshot ({removed} old ones removed)")
    starts: dict[str, Start] = {}
    async with started_server(filled.stores, folder / "local", request, SOON) as start:
        starts["without a snapshot"] = start
        say(f"first answer after {start.seconds:.1f} s; waiting until it has written snapshots")
        snapshots = await asyncio.to_thread(wait_for_snapshots, filled, _SNAPSHOTS_S)
    for number in range(1, options.starts + 1):
        async with started_server(filled.stores, folder / "local", request) as start:
            starts[f"start {number}"] = start
            say(f"first answer after {start.seconds:.1f} s")
    first, *others = starts.values()
    return {
        "benchmark": "restart",
        "rows": filled.rows,
        "records": truth.records,
        "seconds": median(start.seconds for start in others),
        "without_snapshot_s": first.seconds,
        "snapshots": snapshots,
        "starts": {name: start.figures() for name, start in starts.items()},
        "differences": sum(truth.differs(templates[0], start.answer) for start in starts.values()),
    }


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = over_stores.parser("restart", __doc__, 1_000_000)
    parser.add_argument("--starts", type=int, default=3, help="with snapshots (3)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
