"""Galleries and probes of nobody for measuring a search: real-like templates, or random directions."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from homeward.types import DAY_MAX, DAY_MIN, Filter, Float32, Float64
from index.columns import INTEGER_COLUMNS, Columns
from index.synthetic import draw_templates, unit_rows

STATISTICS = Path(__file__).parents[1] / "cluster" / "demo" / "template_statistics.npz"
FACES_MAX = 5  # rows of a record: 1 to 5, as many of each
AGENCIES = 100  # as many records of each: a filter on one keeps 1 % of the rows
ONE_PERCENT = Filter(agencies=frozenset({7}))
_BORN = (5_000, 20_000)  # days of birth are spread evenly over 1983 to 2024

Draw = Callable[[int, int], Float32]  # (count, seed) -> (count, d) unit rows


@cache
def real_statistics() -> tuple[Float64, Float64]:
    """Mean (128,) and covariance (128, 128) of real templates of the default model."""
    with np.load(STATISTICS, allow_pickle=False) as file:
        return file["mean"].astype(np.float64), file["covariance"].astype(np.float64)


def real_like(count: int, seed: int) -> Float32:
    """(count, 128) templates that crowd together as real ones do."""
    return draw_templates(*real_statistics(), count, seed)


def real_like_512(count: int, seed: int) -> Float32:
    """(count, 512): four real-like templates each, one behind the other."""
    four = draw_templates(*real_statistics(), 4 * count, seed)
    return unit_rows(four.reshape(count, -1).astype(np.float64))


def random_unit(count: int, seed: int) -> Float32:
    """(count, 128) directions drawn evenly from the sphere."""
    generator = np.random.default_rng(seed)
    rows = np.empty((count, 128), np.float32)
    for start in range(0, count, 65_536):
        some = slice(start, min(start + 65_536, count))
        rows[some] = unit_rows(generator.standard_normal((some.stop - start, 128)))
    return rows


def gallery(templates: Float32, seed: int) -> Columns:
    """Rows of these templates, a record's side by side, with ids and facts by chance."""
    generator = np.random.default_rng(seed)
    count = len(templates)
    sizes = generator.integers(1, FACES_MAX + 1, count)
    record_of = np.repeat(np.arange(count), sizes)[:count]
    records = int(record_of[-1]) + 1 if count else 0

    def ids(words: int, number: int) -> np.ndarray:
        return generator.integers(0, 2**64, (number, words), dtype=np.uint64)

    def of_record(low: int, high: int) -> np.ndarray:
        return generator.integers(low, high, records, dtype=np.int32)[record_of]

    born = of_record(*_BORN)
    columns = {name: np.zeros(count, np.int32) for name in INTEGER_COLUMNS}
    columns |= {
        "agency": of_record(0, AGENCIES),
        "gallery": of_record(0, 2),
        "sex": of_record(0, 3),
        "place": of_record(0, 500),
        "born_from": born,
        "born_to": born + np.int32(30),
        "taken_from": np.full(count, DAY_MIN, np.int32),
        "taken_to": np.full(count, DAY_MAX, np.int32),
    }
    return Columns(
        face=ids(2, count),
        record=ids(2, records)[record_of],
        photo=ids(4, count),
        template=templates,
        **columns,
    )


def probes(templates: Float32, draw: Draw, count: int, seed: int) -> Float32:
    """(count, d) probes as real ones lie: every other one near an enrolled template, the rest near none."""
    generator = np.random.default_rng(seed)
    fresh = draw(count, seed).astype(np.float64)
    near = templates[generator.integers(0, len(templates), count)].astype(np.float64)
    share = np.where(np.arange(count) % 2 == 0, 0.85, 0.0)[:, np.newaxis]
    return unit_rows(share * near + (1 - share) * fresh)
