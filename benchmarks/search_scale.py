"""The exact index and faiss's flat index over the same rows: memory, times, answers held to the reference."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np

from benchmarks.search_differences import expected
from benchmarks.search_rows import ONE_PERCENT, Draw, gallery, probes
from benchmarks.search_timing import Side, Times, alternate, anonymous_bytes, say
from homeward.types import Filter, Float32, Query
from index.columns import Columns
from index.filters import admitted
from index.shard import Shard

K = 20
EVERYTHING = Filter()
PROBES = 1024
_WRITE_ROWS = 50_000  # of one change: a load writes parts, too
_WARM_ROWS = 3_000


@dataclass(frozen=True, slots=True)
class Subject:
    """What is searched, and with what."""

    columns: Columns
    probes: Float32  # (PROBES, d)
    shard: Shard
    flat: faiss.IndexFlatIP
    threads: int
    build_s: dict[str, float]
    bytes_per_row: dict[str, float]  # anonymous memory; of ours what is not in the originals' file

    def queries(self, number: int, batch: int, k: int = K, wanted: Filter = EVERYTHING) -> list[Query]:
        """The batch of this number, of one probe each."""
        return [Query(probe[np.newaxis], k, filter=wanted) for probe in self.batch(number, batch)]

    def batch(self, number: int, batch: int) -> Float32:
        """(batch, d) the probes of the batch of this number."""
        start = number * batch % PROBES
        return self.probes[start : start + batch]

    def sides(self, batch: int, k: int = K) -> dict[str, Side]:
        """Ours and the peer, to be called with the number of a batch."""
        return {
            "ours": lambda number: self.shard.search_many(self.queries(number, batch, k)),
            "flat": lambda number: self.flat.search(self.batch(number, batch), k),
        }

    def other_flats(self) -> dict[str, Side]:
        """faiss's flat index on one probe in two other ways: by one thread alone, which may beat several that
        wait for each other, and cut into a part for each thread, which copies the vectors."""
        split = faiss.IndexShards(self.columns.dimension, True)
        for rows in np.array_split(self.columns.template, self.threads):
            part = faiss.IndexFlatIP(self.columns.dimension)
            part.add(rows)
            split.add_shard(part)

        def one_thread(number: int) -> object:
            faiss.omp_set_num_threads(1)
            found = self.flat.search(self.batch(number, 1), K)
            faiss.omp_set_num_threads(self.threads)
            return found

        return {
            "flat_one_thread": one_thread,
            "flat_split": lambda number: split.search(self.batch(number, 1), K),
        }


@contextmanager
def subject(draw: Draw, rows: int, folder: Path, threads: int, seed: int) -> Iterator[Subject]:
    """Both indexes over `rows` rows; ours is built first, with nothing else changing in memory."""
    templates = draw(rows, seed)
    dimension = templates.shape[1]
    columns = gallery(templates, seed)
    asked = probes(templates, draw, PROBES, seed + 1)
    faiss.omp_set_num_threads(threads)
    _warm(columns, folder, threads)
    say(f"building an index of {rows:,} x {dimension}")
    before, started = anonymous_bytes(), time.perf_counter()
    shard = Shard(dimension, folder=folder, threads=threads)
    for part in _parts(columns):
        shard.apply(upserts=part)
    ours_s = time.perf_counter() - started
    after, started = anonymous_bytes(), time.perf_counter()
    flat = faiss.IndexFlatIP(dimension)
    flat.add(templates)
    flat_s = time.perf_counter() - started
    os.sync()  # the originals' pages: else they are written while we measure
    held = {"ours": after - before, "flat": anonymous_bytes() - after}
    try:
        yield Subject(
            columns, asked, shard, flat, threads,
            build_s={"ours": ours_s, "flat": flat_s},
            bytes_per_row={name: size / rows for name, size in held.items()},
        )  # fmt: skip
    finally:
        shard.close()


def one_figures(subject: Subject, budget_s: float, bandwidth: float) -> dict[str, object]:
    """One probe, beside the peer's other ways, too."""
    times = alternate(subject.sides(1) | subject.other_flats(), calls=5, most=40, budget_s=budget_s)
    limit = limit_ms(len(subject.columns), subject.columns.dimension, bandwidth)
    best = min(each.ms for name, each in times.items() if name != "ours")
    return {
        **_figures(times, 1),
        "speedup_flat_best": best / times["ours"].ms,
        "bandwidth_ratio": times["ours"].ms / limit,
        "limit_ms": limit,
    }


def batch_figures(subject: Subject, batch: int, budget_s: float) -> dict[str, object]:
    """So many probes at once."""
    return _figures(alternate(subject.sides(batch), most=20, budget_s=budget_s), batch)


def filter_figures(subject: Subject, budget_s: float) -> dict[str, object]:
    """One probe with and without filters that keep a hundredth of the rows."""
    born = subject.columns.born_from
    # The days of birth of a hundredth of the rows: their ranges overlap it.
    low, high = int(np.quantile(born, 0.5)), int(np.quantile(born, 0.508))
    wanted = {"agency": ONE_PERCENT, "born": Filter(born=(low, high))}
    sides: dict[str, Side] = {"none": subject.sides(1)["ours"]}
    for name, each in wanted.items():
        sides[name] = _filtered(subject, each)
    times = alternate(sides, calls=5, budget_s=budget_s)
    return {
        name: {
            "ratio": times[name].ms / times["none"].ms,
            "latency_ms": times[name].ms,
            "kept": float(admitted(Query(subject.probes[:1], K, filter=each), subject.columns).mean()),
        }
        for name, each in wanted.items()
    }


def speed(times: dict[str, Times], rows: int, dimension: int, bandwidth: float) -> dict[str, float]:
    """A point of a sweep."""
    return {
        **{f"{name}_ms": each.ms for name, each in times.items()},
        "limit_ms": limit_ms(rows, dimension, bandwidth),
    }


def limit_ms(rows: int, dimension: int, bandwidth: float) -> float:
    """How long it takes to read the codes, a scale and an error of every row once."""
    return 1e3 * rows * (dimension + 8) / bandwidth


def compare_answers(subject: Subject, plain: int, filtered: int) -> dict[str, float]:
    """Sampled answers beside the reference's: how many, how many differ, and the share of the reference's
    candidates that was found. A batch of 64 is compared with its queries one by one, too."""
    some = [query for number in range(plain) for query in subject.queries(number, 1)]
    some += [query for number in range(filtered) for query in subject.queries(number, 1, wanted=ONE_PERCENT)]
    different = wanted_records = found_records = 0
    for query, found in zip(some, subject.shard.search_many(some), strict=True):
        wanted = expected(query, subject.columns)
        records = {one.record_id for one in wanted.candidates}
        different += found != wanted
        wanted_records += len(records)
        found_records += len(records & {one.record_id for one in found.candidates})
    together = subject.queries(1, 64)
    alone = [subject.shard.search(query) for query in together]
    different += sum(a != b for a, b in zip(alone, subject.shard.search_many(together), strict=True))
    return {
        "compared": len(some) + len(together),
        "differences": different,
        "recall": found_records / wanted_records if wanted_records else 1.0,
    }


def cores() -> int:
    """Threads of both sides by default."""
    return len(os.sched_getaffinity(0))


def _figures(times: dict[str, Times], batch: int) -> dict[str, object]:
    return {
        "speedup_flat": times["flat"].ms / times["ours"].ms,
        "latency_ms": {name: each.ms for name, each in times.items()},
        "least_ms": {name: each.least_ms for name, each in times.items()},
        "probes_per_s": {name: 1e3 * batch / each.ms for name, each in times.items()},
        "rounds": times["ours"].rounds,
        "calls": times["ours"].calls,
    }


def _filtered(subject: Subject, wanted: Filter) -> Side:
    return lambda number: subject.shard.search_many(subject.queries(number, 1, wanted=wanted))


def _parts(columns: Columns) -> Iterator[Columns]:
    """The rows in parts that cut no record."""
    start = 0
    while start < len(columns):
        stop = min(start + _WRITE_ROWS, len(columns))
        while stop < len(columns) and (columns.record[stop] == columns.record[stop - 1]).all():
            stop += 1
        yield columns.take(slice(start, stop))
        start = stop


def _warm(columns: Columns, folder: Path, threads: int) -> None:
    """Compile, and start what is started once: that is not the memory of rows."""
    shard = Shard(columns.dimension, folder=folder, threads=threads)
    some = columns.take(slice(0, _WARM_ROWS))
    shard.apply(upserts=some)
    shard.apply(upserts=some.take(slice(0, 10)))
    shard.search_many([Query(some.template[at : at + 1], K, filter=ONE_PERCENT) for at in range(3)])
    shard.search(Query(some.template[:1], K))
    shard.close()
