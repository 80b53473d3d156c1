"""Rolling restarts of the gRPC servers under load: what clients with the published service config see.

    .venv/bin/python -m benchmarks.drain --json FILE

Two servers as the chart's Deployment has them, with the configuration, the environment and the hooks that
helm renders, over real stores; each pod is a process with an address of its own, found through DNS as a
headless Service says it. A rolling restart replaces one after the other: the new one is ready before the old
one leaves DNS, gets SIGTERM after the preStop hook and drains. Meanwhile one client searches by template and
by photo with the published service config, and a second one without its retries, which shows what they had to
mend.

Everything runs on this machine's cores: while a server starts, searches wait for cores that a cluster would
have elsewhere.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.balanced import channel, published, without_retries
from benchmarks.common import machine, write_json
from benchmarks.deployment import Deployment, Span, deployed
from benchmarks.faults_load import searches
from benchmarks.filled import Filled, filled_stores
from benchmarks.headless import headless
from benchmarks.open_loop import Answer, searching
from benchmarks.reporting import say, surroundings
from benchmarks.search_rows import probes, real_like
from benchmarks.serve_clients import CONTEXT
from benchmarks.serve_photos import probe_photos
from benchmarks.site import AUTHORITY, released
from homeward.v1 import search_pb2

_ROWS = 20_000
_SERVERS = 2
_AGE_S = 60  # of connections: several end by age as well
_QUIET_S = 20.0  # before the first restart and after the last one
_PROBES = 45
_PHOTOS = 5
_WITHOUT_RETRIES = 0.25  # of the rate
_PHOTO_SCORES = 1e-3
_VALUES = {
    "server": {
        "replicas": _SERVERS,
        "resources": {"limits": {"cpu": "1", "memory": "4Gi"}},
        "connectionAgeSeconds": _AGE_S,
    }
}


async def measure(filled: Filled, rolls: int, rate: float, folder: Path) -> dict[str, Any]:
    """So many rolling restarts under so many searches a second."""
    release = released(filled.stores, folder, values=_VALUES)
    target, config = published(release.rendered)
    requests, what = _requests(filled)
    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(headless(target.partition(":")[0], f"{release.network}2"))
        deployment = await stack.enter_async_context(deployed(release, service, say))
        authority = release.secret("server-tls", AUTHORITY)
        clients = []
        for text, share in ((config, 1.0), (without_retries(config), _WITHOUT_RETRIES)):
            over = await stack.enter_async_context(channel(service, target, text, authority))
            clients.append(await stack.enter_async_context(searching(over, requests, rate * share)))
        asked, plain = clients
        await asyncio.sleep(_QUIET_S)
        for number in range(rolls):
            say(f"rolling restart {number + 1} of {rolls}; {_failed(asked)} of {len(asked)} searches failed")
            await deployment.roll()
        await asyncio.sleep(_QUIET_S)
        await stack.pop_all().aclose()
    return _figures(deployment, asked, plain, requests) | {"rolls": rolls, "photos": what}


def _requests(filled: Filled) -> tuple[list[search_pb2.SearchRequest], str]:
    """By template and, every tenth, by photo; and what the photos show."""
    drawn = probes(filled.columns().template, real_like, _PROBES, seed=3)
    by_template = searches(drawn, filled.model_id)
    photos, what = probe_photos(_PHOTOS)
    by_photo = [search_pb2.SearchRequest(context=CONTEXT, photo=photo, limit=20) for photo in photos]
    turn = len(by_template) // len(by_photo)
    mixed: list[search_pb2.SearchRequest] = []
    for number, request in enumerate(by_photo):
        mixed += [*by_template[number * turn : (number + 1) * turn], request]
    return mixed, what


def _figures(
    deployment: Deployment,
    asked: Sequence[Answer],
    plain: Sequence[Answer],
    requests: Sequence[search_pb2.SearchRequest],
) -> dict[str, Any]:
    ended = deployment.ended
    first = min(begin for begin, _ in deployment.starting[_SERVERS:] + deployment.ending)
    last = max(end for _, end in deployment.ending)

    def outside(one: Answer) -> bool:
        return one.ended < first or one.due > last

    def meets(one: Answer, spans: Sequence[Span]) -> bool:
        return any(one.due <= end and one.ended >= begin for begin, end in spans)

    return {
        "failed": _failed(asked),
        "differing": _differing(asked, requests),
        "searches": len(asked),
        "errors": dict(Counter(one.error for one in asked if one.error)),
        "without_retries": {
            "searches": len(plain),
            "failed": _failed(plain),
            "errors": dict(Counter(one.error for one in plain if one.error)),
        },
        "restarts": len(ended),
        "killed": sum(server.killed for server in ended),
        "stop_s": {"max": round(max(server.stop_s for server in ended), 2)},
        "outside": _latency(asked, outside),
        "during": _latency(asked, lambda one: not outside(one)),
        "while_one_starts": _latency(asked, lambda one: meets(one, deployment.starting[_SERVERS:])),
        "while_one_ends": _latency(
            asked, lambda one: meets(one, deployment.ending) and not meets(one, deployment.starting)
        ),
    }


def _failed(asked: Sequence[Answer]) -> int:
    return sum(one.response is None for one in asked)


def _differing(asked: Sequence[Answer], requests: Sequence[search_pb2.SearchRequest]) -> int:
    """Answers that are not the first one of their request: nothing is enrolled or deleted meanwhile. By
    template they are equal to the last bit; a photo that is embedded twice gives almost the same scores."""
    first: dict[int, list[tuple[str, float]]] = {}
    count = 0
    for one in asked:
        if one.response is None:
            continue
        found = [
            (candidate.record_id, candidate.comparison_score)
            for one_list in one.response.lists
            for candidate in one_list.candidates
        ]
        before = first.setdefault(one.request, found)
        if requests[one.request].HasField("photo"):
            now, then = ([score for _, score in each] for each in (found, before))
            count += len(now) != len(then) or not np.allclose(now, then, atol=_PHOTO_SCORES)
        else:
            count += found != before
    return count


def _latency(asked: Sequence[Answer], wanted: Callable[[Answer], bool]) -> dict[str, float | int]:
    seconds = [one.seconds for one in asked if one.response is not None and wanted(one)]
    if not seconds:
        return {"searches": 0}
    p50, p99 = (round(float(np.percentile(seconds, at)) * 1e3, 1) for at in (50, 99))
    return {
        "searches": len(seconds),
        "p50_ms": p50,
        "p99_ms": p99,
        "max_ms": round(max(seconds) * 1e3, 1),
    }


def main() -> int:
    """Entry point; 1 when a search failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, required=True, help="where the figures are written")
    parser.add_argument("--rolls", type=int, default=10, help="rolling restarts (10)")
    parser.add_argument("--rate", type=float, default=8.0, help="searches a second (8)")
    parser.add_argument("--rows", type=int, default=_ROWS, help=f"faces, a multiple of 16 ({_ROWS:,})")
    options = parser.parse_args()
    before, begun = machine(), time.monotonic()
    with (
        filled_stores(options.rows, None) as filled,
        tempfile.TemporaryDirectory(prefix="homeward-drain-") as folder,
    ):
        figures = asyncio.run(measure(filled, options.rolls, options.rate, Path(folder)))
    figures |= {"rate": options.rate, "rows": options.rows, "connection_age_s": _AGE_S}
    write_json(options.json, figures | surroundings(before))
    print(
        f"{figures['failed']} of {figures['searches']} searches failed in {options.rolls} rolling restarts "
        f"of {_SERVERS} servers ({time.monotonic() - begun:.0f} s); without retries "
        f"{figures['without_retries']['failed']} of {figures['without_retries']['searches']}"
    )
    return 1 if figures["failed"] or figures["differing"] else 0


if __name__ == "__main__":
    sys.exit(main())
