"""How soon another server shows an enrolment, and whether any shows a deleted child, while many search.

    .venv/bin/python -m benchmarks.fresh --json benchmarks/results/fresh.json
    .venv/bin/python -m benchmarks.fresh --json FILE --where server
    .venv/bin/python -m benchmarks.fresh --json FILE --rows 20000 --pairs 50 --searching 8   # a first look

Two `homeward serve` processes share PostgreSQL, Milvus and S3. Their index lies on two shards of a real Ray
on this machine, each of which holds all slots, or (--where server) in each server's memory. Real photos of
250 x 250, each of another person, are enrolled over gRPC, at one server and the other in turns, by several
callers at a time; from each reply on the other server is searched with the face's template. --searching
clients search both servers all the while, as fast as they are answered.

  pairs                 enrolments that were searched for
  missed                those that were not shown by a search with min_rev = the enrolment's rev, or by a
                        search without one that began more than a second after the reply; must be 0
  max_s, p50_s, p99_s   from the enrolment's reply until the first answer, without min_rev, that shows it
  asked                 the same until that search began
  deleted_seen          searches, at both servers, that began after a deletion's reply and showed the record;
                        must be 0. Every second pair is deleted again
The exit code is 1 when something was missed or a deleted child was seen. Some five minutes on two cores.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks import over_stores
from benchmarks.filled import Filled
from benchmarks.filled_children import draw
from benchmarks.fresh_pairs import Seen, Server, connected, delete_all, delete_and_look, enrol_and_find
from benchmarks.fresh_people import Person, people
from benchmarks.ray_shards import running_shards
from benchmarks.reporting import say
from benchmarks.serve_clients import Request, Run, by_template, percentiles, search
from benchmarks.serve_plots import draw_fresh
from benchmarks.served import Served, served
from cluster.shard_process import IndexModel

_SHARDS = 2
_PROBES = 256
_SLICE_S = 2.0  # of the searching clients
_SAY_PAIRS = 100


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns 1 when something was missed or a deleted child was seen."""
    return over_stores.run(_arguments(arguments), _measure, draw_fresh, _tell)


def _tell(figures: dict[str, Any]) -> int:
    print(
        f"fresh: {figures['pairs']} enrolments, {figures['missed']} missed, shown at the other server after "
        f"p50 {figures['p50_s'] * 1e3:.0f} ms, p99 {figures['p99_s'] * 1e3:.0f} ms, at most "
        f"{figures['max_s']:.2f} s; {figures['deleted_seen']} of {figures['deleted_searches']} searches "
        f"showed a deleted child; {figures['searching_clients']} clients made "
        f"{figures['searching']['per_s']:.0f} searches/s meanwhile"
    )
    return int(bool(figures["missed"] or figures["deleted_seen"]))


async def _measure(filled: Filled, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    say("embedding the people who will be enrolled, to search for them")
    some, what = await people(options.pairs)
    request = by_template(draw(_PROBES, filled.model_id), filled.model_id)
    say("starting two servers" + (", and the shards on Ray" if options.where == "shards" else ""))
    async with (
        _two_servers(filled, options.where, folder) as both,
        connected((both[0].address, both[1].address), filled.model_id) as servers,
    ):
        say(f"enrolling {len(some)} people, {options.callers} at a time")
        seen, pending, done = Seen(), iter(enumerate(some)), asyncio.Event()
        searching = asyncio.create_task(_search_on(both, request, options.searching, done))
        started = time.monotonic()
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(options.callers):
                    group.create_task(_caller(seen, servers, pending, started + options.limit_s))
        finally:
            wall_s = time.monotonic() - started
            done.set()
            background = await searching
            if options.keep:  # the stores are to be as they were
                say(f"deleting {len(seen.left)} records again")
                await delete_all(seen, servers[0])
    searched = background.figures()
    del searched["client_cpu_ms_each"]  # this process does more than that
    found: dict[str, Any] = asdict(seen)
    times = {name: found.pop(name) for name in ("enrol_s", "asked_s", "shown_s", "demanded_s")}
    del found["left"]
    shown = percentiles(seen.shown_s)
    return {
        "benchmark": "fresh",
        "where": options.where,
        "shards": _SHARDS if options.where == "shards" else 0,
        "rows": filled.rows,
        "pairs": seen.pairs,
        "pairs_wanted": options.pairs,
        "missed": seen.missed_late + seen.missed_on_demand,
        "max_s": max(seen.shown_s),
        "p50_s": shown["p50_ms"] / 1e3,
        "p99_s": shown["p99_ms"] / 1e3,
        "asked": {"max_s": max(seen.asked_s), **percentiles(seen.asked_s)},
        "on_demand": {"max_s": max(seen.demanded_s), **percentiles(seen.demanded_s)},
        "enrol": {"per_s": seen.pairs / wall_s, **percentiles(seen.enrol_s)},
        "callers": options.callers,
        "searching_clients": options.searching,
        "searching": searched,
        "enrolled_by": f"EnrolRecord over gRPC with real photos: {what}",
        **{name: value for name, value in found.items() if name != "pairs"},
        "times": times,
    }


@asynccontextmanager
async def _two_servers(filled: Filled, where: str, folder: Path) -> AsyncIterator[tuple[Served, Served]]:
    """Both, while the context lasts."""
    async with AsyncExitStack() as stack:
        environment: dict[str, str] = {}
        if where == "shards":
            model = IndexModel(filled.model_id, filled.dimension)
            shards = running_shards(filled.stores, model, folder / "ray", _SHARDS, replicas=_SHARDS)
            environment = (await stack.enter_async_context(shards)).environment
        first, second = [
            await stack.enter_async_context(served(filled.stores, folder / name, environment))
            for name in ("first", "second")
        ]
        yield first, second


async def _search_on(both: tuple[Served, Served], request: Request, clients: int, done: asyncio.Event) -> Run:
    """Search both servers by half of the clients each, until it is done."""
    run = Run(clients)
    while not done.is_set():
        halves = await asyncio.gather(*(search(one, request, clients // 2, _SLICE_S) for one in both))
        wall_s = max(half.wall_s for half in halves)
        for half in halves:
            run.add(half)
            run.wall_s -= half.wall_s
        run.wall_s += wall_s
    return run


async def _caller(
    seen: Seen, servers: tuple[Server, Server], pending: Iterator[tuple[int, Person]], end: float
) -> None:
    for number, person in pending:
        at, other = servers if number % 2 == 0 else servers[::-1]
        record = await enrol_and_find(seen, at, other, number, person)
        if record is not None and number // 2 % 2 == 0:  # by each of the servers
            await delete_and_look(seen, other, servers, person, record)
        if seen.pairs % _SAY_PAIRS == 0:
            say(f"{seen.pairs} pairs, {seen.missed_late + seen.missed_on_demand} missed")
        if time.monotonic() > end:
            break


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = over_stores.parser("fresh", __doc__, 100_000)
    parser.add_argument("--where", choices=("shards", "server"), default="shards", help="the index (shards)")
    parser.add_argument("--pairs", type=int, default=1000, help="enrolments to search for (1,000)")
    parser.add_argument("--callers", type=int, default=8, help="that enrol at the same time (8)")
    parser.add_argument("--searching", type=int, default=32, help="clients that search meanwhile (32)")
    parser.add_argument(
        "--limit-s", type=float, default=420.0, help="no enrolment begins after so long (420)"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
