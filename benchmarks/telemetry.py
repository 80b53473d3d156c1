"""What metrics and logs cost: searches per second with them over searches per second without.

    .venv/bin/python -m benchmarks.telemetry --json benchmarks/results/telemetry.json
    .venv/bin/python -m benchmarks.telemetry --json FILE --rows 4096 --seconds 1 --turns 2    # a first look

Two servers, `homeward serve` as processes of their own over the same real stores (PostgreSQL, Milvus, S3)
filled with synthetic children, the index in their memory. One has metrics, which are read every five
seconds, and logs a line of JSON for each call into a file; the other has neither. The same clients search by
template at the one and the other in turns, whose order changes; the other server is idle meanwhile.

  throughput_ratio   searches per second with telemetry over without, all turns of each together
  ratios             of each pair of turns, and their median
  with, without      rate, p50, p95, p99 and the server's processor time for each search
  log_lines          that were written, one for each search at least; else the exit code is 1
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import urllib.request
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import over_stores
from benchmarks.filled import Filled
from benchmarks.reporting import say
from benchmarks.search_rows import probes, real_like
from benchmarks.serve_clients import Request, Run, by_template, search
from benchmarks.served import Served, log_of, served
from tests.servers.process import free_port

_PROBES = 256
_WARM_S = 2.0
_SCRAPE_S = 5.0
_QUIET = {"HOMEWARD_INDEX__SNAPSHOT_INTERVAL_S": "0"}
_WITHOUT = {"HOMEWARD_TELEMETRY__LOG_LEVEL": "error", "HOMEWARD_TELEMETRY__STORE_CHECK_S": "0"}
_CALL = "rpc /homeward.v1.SearchService/Search"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns 1 when telemetry did not say what it must."""
    return over_stores.run(_arguments(arguments), _measure, lambda *_: None, _tell)


def _tell(figures: dict[str, Any]) -> int:
    print(
        f"telemetry: {figures['throughput_ratio']:.3f} of the searches per second without it "
        f"({figures['with']['per_s']:.0f}/s with, {figures['without']['per_s']:.0f}/s without; "
        f"{figures['turns']} turns of each, {figures['clients']} clients, {figures['rows']:,} rows)"
    )
    return int(figures["log_lines"] < figures["with"]["searches"])


async def _measure(filled: Filled, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    templates = probes(filled.columns().template, real_like, _PROBES, 7)
    request = by_template(templates, filled.model_id)
    address = f"127.0.0.1:{free_port()}"
    telemetry = {"HOMEWARD_SERVER__METRICS_ADDRESS": address, "HOMEWARD_TELEMETRY__LOG_FORMAT": "json"}
    async with AsyncExitStack() as stack:
        say("starting a server with telemetry and one without")
        watched = await stack.enter_async_context(served(filled.stores, folder / "with", telemetry | _QUIET))
        bare = await stack.enter_async_context(served(filled.stores, folder / "without", _WITHOUT | _QUIET))
        await stack.enter_async_context(_scraped(address))
        for server in (watched, bare):
            await search(server, request, options.clients, _WARM_S)
        totals = {"with": Run(options.clients), "without": Run(options.clients)}
        pairs = [
            await _pair(turn, {"with": watched, "without": bare}, request, options, totals)
            for turn in range(options.turns)
        ]
    log = log_of(folder / "with").read_text(encoding="utf-8")
    ratios = [pair["with"] / pair["without"] for pair in pairs]
    return {
        "benchmark": "telemetry",
        "rows": filled.rows,
        "clients": options.clients,
        "turns": options.turns,
        "throughput_ratio": totals["with"].rate / totals["without"].rate,
        "ratios_median": median(ratios),
        "ratios": ratios,
        "log_lines": sum(_CALL in line for line in log.splitlines()),
        **{name: run.figures() for name, run in totals.items()},
    }


async def _pair(
    turn: int,
    servers: dict[str, Served],
    request: Request,
    options: argparse.Namespace,
    totals: dict[str, Run],
) -> dict[str, float]:
    """Searches per second of both, one after the other; who begins changes with the turn."""
    rates = {}
    for name in sorted(servers, reverse=bool(turn % 2)):
        run = await search(servers[name], request, options.clients, options.seconds)
        rates[name] = run.rate
        totals[name].add(run)
    say(f"turn {turn + 1}: {rates['with']:.0f}/s with, {rates['without']:.0f}/s without")
    return rates


@asynccontextmanager
async def _scraped(address: str) -> AsyncIterator[None]:
    """Read the page as Prometheus does, far more often."""

    def read() -> None:
        with suppress(OSError), urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as reply:
            reply.read()

    async def keep_reading() -> None:
        while True:
            await asyncio.to_thread(read)
            await asyncio.sleep(_SCRAPE_S)

    task = asyncio.create_task(keep_reading())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = over_stores.parser("telemetry", __doc__, 100_000)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--turns", type=int, default=36, help="of each server")
    parser.add_argument("--seconds", type=float, default=1.5, help="of a turn")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
