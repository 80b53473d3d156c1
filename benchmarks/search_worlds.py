"""The worlds of the random cases: few values that collide, or thousands of rows of real size."""

from __future__ import annotations

from functools import cache
from random import Random

import numpy as np

from benchmarks.search_rows import real_statistics
from homeward.types import Float32
from index.synthetic import draw_templates
from tests.index.random_rows import World


class LargeWorld(World):
    """Rows as many and as wide as to overflow a scan's room: real-like templates, whole runs of ties."""

    def _make_pool(self) -> Float32:
        return large_pool()[: self.templates]


@cache
def large_pool() -> Float32:
    """(2048, 128) real-like templates; some differ from their neighbour in one last bit."""
    pool = draw_templates(*real_statistics(), 2048, seed=3)
    for row in range(1, len(pool), 8):
        pool[row] = pool[row - 1]
        pool[row, 5] = np.nextafter(pool[row, 5], np.float32(0.0))
    return pool


def small_world(chance: Random) -> World:
    return World(
        chance,
        dimension=chance.choice((1, 2, 8, 17, 33)),
        records=chance.choice((1, 3, 12, 60)),
        faces=chance.choice((5, 40, 200)),
        templates=chance.choice((1, 3, 12, 40)),
    )


def large_world(chance: Random) -> World:
    records = chance.choice((40, 900, 4_000))
    templates = chance.choice((1, 3, len(large_pool())))
    return LargeWorld(chance, dimension=128, records=records, faces=6_000, templates=templates)
