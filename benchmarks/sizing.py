"""How much of everything a gallery needs: reckoned from measured figures, never measured itself.

    .venv/bin/python -m benchmarks.sizing --templates 1e9 --replicas 2
    .venv/bin/python -m benchmarks.sizing --inputs
    .venv/bin/python -m benchmarks.sizing --rewrite docs/sizing.md   # after a figure was measured anew

Prints a table in Markdown, a column for each number of templates. docs/sizing.md shows such tables and says
what stands behind them.
"""

from __future__ import annotations

import argparse
import math
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import sizing_inputs as measured

_DAY_S = 86_400.0
_SHOWN = re.compile(
    r"^(?P<command>    \.venv/bin/python -m benchmarks\.sizing(?P<words>.*))\n\n(?:\|.*\n)+", re.MULTILINE
)


@dataclass(frozen=True, slots=True)
class Site:
    """What an operator says. Each default is an assumption, not a measurement."""

    templates: float
    replicas: int = 2
    searches_per_s: float = 10.0  # by photo, at the busiest
    scan_s: float = 1.0  # in which one lone probe is to be scanned, with all replicas' cores at work
    busy: float = 0.5  # share of a core that may be used at the busiest
    photo_bytes: float = 500_000.0
    templates_per_photo: float = 1.0
    shard_memory: float = 32 * 2**30  # of a shard's pod
    shard_full: float = 0.75  # of it that rows may take: the rest is Python, searches under way, growth
    load_cores: float = 64.0


@dataclass(frozen=True, slots=True)
class Needs:
    """What it needs. Bytes, cores, seconds; of everything, not of each process."""

    photos: float
    one_server_bytes: float  # memory of the index in one server
    index_bytes: float  # memory of all replicas on shards
    original_bytes: float  # disk of all replicas
    shards: int
    scan_one_cores: float
    scan_cores: float
    server_cores: float
    postgres_bytes: float
    faces_bytes: float
    milvus_bytes: float
    milvus_memory: float
    photo_bytes: float
    snapshot_bytes: float
    log_bytes_per_day: float
    load_small_days: float
    load_large_days: float
    load_bytes_per_s: float
    start_s: float  # of one shard, from snapshots
    start_milvus_s: float  # of one shard, without
    milvus_search_s: float


def needs(site: Site) -> Needs:
    """The arithmetic."""
    rows = site.templates
    millions = rows / 1e6
    index = rows * measured.SHARD_ROW.value
    shards = max(site.replicas, math.ceil(index * site.replicas / (site.shard_memory * site.shard_full)))
    photos = rows / site.templates_per_photo
    one = millions * measured.SCAN_ONE.value / 1e3 / site.scan_s
    many = millions * measured.SCAN_MANY.value / 1e3 * site.searches_per_s / site.busy
    embed = measured.SEARCH_PHOTO.value - measured.SEARCH_TEMPLATE.value + measured.SEARCH_ELSEWHERE.value
    large = measured.LARGE_PACE.value * site.load_cores
    held = rows * site.replicas / shards / 1e6  # millions of rows of a shard
    return Needs(
        photos=photos,
        one_server_bytes=rows * measured.SERVER_ROW.value,
        index_bytes=index * site.replicas,
        original_bytes=rows * measured.original_bytes() * site.replicas,
        shards=shards,
        scan_one_cores=one,
        scan_cores=max(one, many),
        server_cores=embed / 1e3 * site.searches_per_s / site.busy,
        postgres_bytes=rows * measured.POSTGRES_ROW.value,
        faces_bytes=rows * measured.FACES_TABLE.value,
        milvus_bytes=rows * measured.MILVUS_ROW.value,
        milvus_memory=rows * measured.MILVUS_MEMORY.value,
        photo_bytes=photos * site.photo_bytes,
        snapshot_bytes=rows * measured.SNAPSHOT_ROW.value,
        log_bytes_per_day=site.searches_per_s * _DAY_S * measured.LOG_LINE.value,
        load_small_days=photos / (measured.LOAD_PACE.value * site.load_cores) / _DAY_S,
        load_large_days=photos / large / _DAY_S,
        load_bytes_per_s=large * site.photo_bytes * 2,  # read from the source, written to the store
        start_s=held * measured.SNAPSHOT_START.value,
        start_milvus_s=held * measured.MILVUS_START.value,
        milvus_search_s=millions / measured.MILVUS_SEARCH.value,
    )


def size(count: float) -> str:
    """Bytes in words, decimal."""
    for unit, one in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= one:
            return f"{_figures(count / one)} {unit}"
    return f"{_figures(count / 1e3)} kB"


def span(seconds: float) -> str:
    """Seconds in words."""
    for unit, one in (("d", _DAY_S), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * one:
            return f"{_figures(seconds / one)} {unit}"
    return f"{_figures(seconds)} s"


def _figures(number: float) -> str:
    """Two figures, or all before the point."""
    if number >= 10:
        return f"{number:,.0f}"
    return f"{number:.1f}" if number >= 1 else f"{number:.2g}"


def _up(number: float) -> str:
    """Whole cores."""
    return f"{max(1, math.ceil(number)):,}"


_ROWS: tuple[tuple[str, Callable[[Site, Needs], str]], ...] = (
    ("photos", lambda _, n: f"{n.photos:,.0f}"),
    ("**index in each server**: memory", lambda _, n: size(n.one_server_bytes)),
    ("**index on shards**: memory, all replicas", lambda _, n: size(n.index_bytes)),
    ("originals on local disks, all replicas", lambda _, n: size(n.original_bytes)),
    ("shards", lambda _, n: f"{n.shards:,}"),
    ("cores for one lone scan in time", lambda _, n: _up(n.scan_one_cores)),
    ("cores of all shards, at the busiest", lambda _, n: _up(n.scan_cores)),
    ("cores of a shard", lambda _, n: _up(math.ceil(n.scan_cores) / n.shards)),
    ("**servers**: cores, at the busiest", lambda _, n: _up(n.server_cores)),
    ("log of searches, a day at the busiest", lambda _, n: size(n.log_bytes_per_day)),
    ("**PostgreSQL**: disk", lambda _, n: size(n.postgres_bytes)),
    ("of that the table that searches read", lambda _, n: size(n.faces_bytes)),
    ("**Milvus**: memory of its query nodes", lambda _, n: size(n.milvus_memory)),
    ("its object store", lambda _, n: size(n.milvus_bytes)),
    ("one search that Milvus answers alone, on two cores", lambda _, n: span(n.milvus_search_s)),
    ("**S3**: photos", lambda _, n: size(n.photo_bytes)),
    ("snapshots", lambda _, n: size(n.snapshot_bytes)),
    ("**first load** of 250 px photos", lambda _, n: span(n.load_small_days * _DAY_S)),
    ("of 1350 px photos", lambda _, n: span(n.load_large_days * _DAY_S)),
    ("network meanwhile, source and store", lambda _, n: f"{size(n.load_bytes_per_s)}/s"),
    ("a shard's start from snapshots", lambda _, n: span(n.start_s)),
    ("without them, from Milvus", lambda _, n: span(n.start_milvus_s)),
)


def table(sites: Sequence[Site]) -> str:
    """Markdown, a column for each site."""
    found = [needs(site) for site in sites]
    head = ["templates", *(f"{site.templates:,.0f}" for site in sites)]
    rows = [
        [name, *(say(site, need) for site, need in zip(sites, found, strict=True))] for name, say in _ROWS
    ]
    return _markdown(head, rows)


def inputs() -> str:
    """Markdown: every figure the tables rest on, and where it is kept."""
    rows = []
    for one in measured.MEASURED:
        what = f"{one.what} ({one.note})" if one.note else one.what
        rows.append([what, f"{one.value:,.4g} {one.unit}", f"`{one.benchmark}`", f"`{one.path}`"])
    return _markdown(["measured", "figure", "command", "in its file"], rows)


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    default = Site(templates=0)
    made = argparse.ArgumentParser(
        prog="benchmarks.sizing", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--templates", type=float, nargs="+", default=[1e6, 1e7, 1e8, 1e9])
    made.add_argument("--replicas", type=int, default=default.replicas, help="shards that hold each slot")
    made.add_argument(
        "--searches", type=float, default=default.searches_per_s, help="a second, by photo, at the busiest"
    )
    made.add_argument(
        "--scan-seconds", type=float, default=default.scan_s, help="in which a lone probe is to be scanned"
    )
    made.add_argument("--busy", type=float, default=default.busy, help="share of a core that may be used")
    made.add_argument("--photo-bytes", type=float, default=default.photo_bytes)
    made.add_argument("--templates-per-photo", type=float, default=default.templates_per_photo)
    made.add_argument(
        "--shard-gib", type=float, default=default.shard_memory / 2**30, help="memory of a shard"
    )
    made.add_argument("--load-cores", type=float, default=default.load_cores, help="that a load has")
    made.add_argument("--rewrite", type=Path, help="a page: put what its commands print below each of them")
    made.add_argument("--inputs", action="store_true", help="print the figures it reckons with instead")
    return made


def report(words: Sequence[str] | None = None) -> str:
    """What the command line prints."""
    given = parser().parse_args(words)
    if given.inputs:
        return inputs()
    if given.rewrite:
        given.rewrite.write_text(rewritten(given.rewrite.read_text(encoding="utf-8")), encoding="utf-8")
        return f"{given.rewrite} is rewritten; the figures in its text are not"
    numbers = (*given.templates, given.replicas, given.searches, given.scan_seconds, given.photo_bytes)
    numbers += (given.templates_per_photo, given.shard_gib, given.load_cores)
    if not all(0 < number < math.inf for number in numbers) or not 0 < given.busy <= 1:
        parser().error("every number is above 0 and finite, and --busy at most 1")
    return table(
        [
            Site(
                templates=templates,
                replicas=given.replicas,
                searches_per_s=given.searches,
                scan_s=given.scan_seconds,
                busy=given.busy,
                photo_bytes=given.photo_bytes,
                templates_per_photo=given.templates_per_photo,
                shard_memory=given.shard_gib * 2**30,
                load_cores=given.load_cores,
            )
            for templates in given.templates
        ]
    )


def rewritten(page: str) -> str:
    """The page with the table below each of its commands as the command prints it now."""
    return _SHOWN.sub(lambda found: f"{found['command']}\n\n{report(shlex.split(found['words']))}\n", page)


if __name__ == "__main__":
    print(report())
    sys.exit(0)
