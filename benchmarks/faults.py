"""What searches see while shards, a node and the node with Ray's head are killed with kill -9.

    .venv/bin/python -m benchmarks.faults --json benchmarks/results/faults.json     # some eight minutes
    .venv/bin/python -m benchmarks.faults --json FILE --quick                       # five

Three Ray nodes on this machine, each a group of processes of its own that is killed at once; Ray's head keeps
its state in a Redis. Real PostgreSQL and Milvus hold --rows synthetic templates; three shards hold every slot
on two nodes; `homeward serve` is a process of its own that never joins Ray. Searches by template come at
--rate a second whether or not those before have been answered, and a latency is counted from when a search
was due. Every two seconds a record is enrolled near a probe, or one of a probe's first candidates is deleted.

Two runs, each on a Ray cluster of its own: kill -9 of a shard, then of the node on which the controller runs,
with all its processes; and of the node with Ray's head, which comes back after --down seconds. For each kill
and in total:
  wrong          answers that are not the reference's, to the bit, order and evidence, over the records that
                 were there: one with a record whose deletion had returned, too. Must be 0
  unmarked       answers that say "exact" though shards alone cannot have given all of it: they counted fewer
                 records than there were, or no living shard held some of the slots. Must be 0
  slow_fraction  of the searches due in the --window seconds after the kill (while Ray's head is away, all of
                 that time): failed, or slower than 1 s. At most 0.01
  restored_s     from the kill until every slot is on two shards of different nodes again, with nobody's help
and percentiles before and after. `ok` says whether all of this holds; the exit code is 1 otherwise. All share
the cores of one machine: `machine` says how many, and how busy it was.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import machine, write_json
from benchmarks.faults_plot import draw_faults
from benchmarks.faults_runs import NODES, REPLICAS, SHARDS, Run, Served, head, played, shard_and_node, sharing
from benchmarks.faults_truth import Truth, Verdict, percentiles
from benchmarks.faults_watch import Watch
from benchmarks.filled import filled_stores
from benchmarks.open_loop import Answer

SLOW_S = 1.0
SLOW_MOST = 0.01


async def measure(options: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], dict[str, Run]]:
    """Start everything, kill, and judge every answer."""
    window, down = options.window, options.down
    with filled_stores(options.rows, None) as filled:
        async with sharing(filled, folder, options.lost_s) as shared:
            runs = {
                "shard and node": await played(
                    shared, lambda scene: shard_and_node(scene, window), options.rate
                ),
                "head": await played(shared, lambda scene: head(scene, window, down), options.rate),
            }
    return figures(runs, shared, options), runs


def figures(runs: Mapping[str, Run], shared: Served, options: argparse.Namespace) -> dict[str, Any]:
    """What is reported."""
    kills: dict[str, Any] = {}
    parts: list[dict[str, Any]] = []
    for run in runs.values():
        verdicts = _verdicts(run, shared.truth)
        parts.append(_judged(run.answers, verdicts))
        for number, kill in enumerate(run.kills):
            start = run.kills[number - 1].until if number else float("-inf")
            stop = run.kills[number + 1].at if number + 1 < len(run.kills) else float("inf")
            before, after = run.between(kill.at - options.window, kill.at), run.between(kill.at, kill.until)
            kills[kill.what] = {
                **_judged(run.between(max(start, kill.at - options.window), stop), verdicts),
                "slow_fraction": _slow(after),
                "slow_fraction_before": _slow(before),
                "restored_s": kill.restored_s,
                "before": percentiles(before),
                "after": percentiles(after),
            }
    total = {name: sum(part[name] for part in parts) for name in ("searches", "wrong", "unmarked", "failed")}
    worst = max(each["slow_fraction"] for each in kills.values())
    restored = [each["restored_s"] for each in kills.values()]
    slowest = None if None in restored else max(restored)
    is_right = not total["wrong"] and not total["unmarked"]
    answers = [answer for run in runs.values() for answer in run.answers]
    return {
        "ok": is_right and worst <= SLOW_MOST and slowest is not None,
        "total": {**total, "slow_fraction": worst, "restored_s": slowest},
        "kills": kills,
        "shards_back_s": runs["head"].back_s,
        "rows": options.rows,
        "rate": options.rate,
        "window_s": options.window,
        "head_down_s": options.down,
        "nodes": NODES,
        "shards": SHARDS,
        "replicas": REPLICAS,
        "enrolled": shared.writer.enrolled,
        "deleted": shared.writer.deleted,
        "write_errors": shared.writer.errors,
        "errors": dict(Counter(answer.error for answer in answers if answer.error).most_common(10)),
        "machine": machine(),
    }


def _verdicts(run: Run, truth: Truth) -> dict[int, Verdict]:
    """By `id` of the answer."""
    watch = Watch(run.looks)
    return {
        id(answer): truth.verdict(answer, uncovered=watch.was_uncovered(answer))
        for answer in run.answers
        if answer.response is not None
    }


def _judged(answers: Sequence[Answer], verdicts: Mapping[int, Verdict]) -> dict[str, Any]:
    some = [verdicts[id(answer)] for answer in answers if answer.response is not None]
    methods = Counter(answer.response.account.method for answer in answers if answer.response is not None)
    return {
        "searches": len(answers),
        "wrong": sum(one.wrong for one in some),
        "unmarked": sum(one.unmarked for one in some),
        "failed": sum(answer.response is None for answer in answers),
        "methods": dict(methods),
    }


def _slow(answers: Sequence[Answer]) -> float:
    """The share that failed or took too long."""
    late = sum(answer.response is None or answer.seconds > SLOW_S for answer in answers)
    return late / max(1, len(answers))


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, required=True, help="for the figures; the plot goes beside it")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rate", type=float, default=20.0, help="searches a second")
    parser.add_argument("--window", type=float, help="seconds before and after a kill: 60, quick 30")
    parser.add_argument("--down", type=float, help="seconds without Ray's head: 120, quick 60")
    parser.add_argument("--lost-s", type=float, default=10.0, help="index.lost_s of the shards")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    options.window = options.window or (30.0 if options.quick else 60.0)
    options.down = options.down or (60.0 if options.quick else 120.0)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # ends what was started, too
    with tempfile.TemporaryDirectory(prefix="homeward-faults-") as name:
        result, runs = asyncio.run(measure(options, Path(name)))
    write_json(options.json, result)
    draw_faults(runs, options.json.with_suffix(".png"))
    total = result["total"]
    restored = total["restored_s"]
    print(
        f"faults: {total['searches']:,} searches, {total['wrong']} wrong, {total['unmarked']} unmarked, "
        f"{total['slow_fraction']:.2%} slow after a kill at worst, "
        + ("replicas missing" if restored is None else f"restored within {restored:.0f} s")
    )
    return 0 if result["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
