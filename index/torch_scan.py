"""The scan of an index on a torch device: the contract of `index.scan`'s compiled scan, bound for bound.

A scan reads a mirror of the view's blocks in the device's memory (`index.torch_mirror`), decides filters and
facts there (`index.torch_filters`), and sieves all rows by exact integer products (`index.torch_sieve`,
`index.torch_product`). It returns, per query, every row whose upper bound reaches the k-th best record's
lower bound: true scores are the caller's to compute. Any number of probes share the pass.

Tests run all of it on torch's "cpu". On "cuda" it has not run: the machine it was written on has none.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from index.origins import FilterTables, Int64
from index.scan import Batch
from index.torch_filters import Rules
from index.torch_mirror import Mirror, Stretch
from index.torch_product import ProbePieces, ProductSift
from index.torch_sieve import Kept, Part, Sieve, Sift, Wanted
from index.view import View

MEMORY = 256 << 20  # bytes that a scan's matrices may take
_MOST = 1 << 40  # k beyond any index

Bounded = tuple[Int64, Int64, npt.NDArray[np.uint8]]


class TorchScan:
    """Scans one index on one device. Thread-safe: searches take turns, each has the device to itself.

    `device` is "cuda", "cuda:N" or "cpu". `fused` takes the Triton kernel of `index.triton_scan` in place of
    matrix products. `memory` bounds what a scan needs beside the mirror, and the rows it returns.
    """

    def __init__(self, device: str | torch.device, *, fused: bool = False, memory: int = MEMORY) -> None:
        self.device = torch.device(device)
        self._fused = fused
        self._memory = memory
        self._mirror = Mirror(self.device)
        self._turn = threading.Lock()

    def memory_bytes(self) -> int:
        """Bytes that the mirror takes on the device."""
        return self._mirror.memory_bytes()

    def follow(self, view: View) -> None:
        """Have the device hold the blocks as this view has them, and nothing of what has gone, before a
        search asks for it. The caller must hold off the overwriting of deleted rows, as a search does."""
        with self._turn, torch.inference_mode():
            self._mirror.follow(view)

    def bounded(self, view: View, batch: Batch, tables: FilterTables) -> tuple[list[Bounded], Int64]:
        """Per query the rows that may matter: positions (block << 32 | row), where their records begin,
        whether facts allow them (1) or exclude all of their record (0); and per filter that filters how many
        rows and records it lets through, (f, 2)."""
        with self._turn, torch.inference_mode():
            stretches = self._mirror.follow(view)
            rules = Rules(batch.queries, tables, view, self.device)
            wanted = self._wanted(batch, rules)
            sieve = Sieve(self._sift(batch), wanted)
            for part in self._parts(view, batch, stretches, rules):
                sieve.take(part)
            return _by_query(sieve.left(), len(batch.queries)), rules.counts()

    def _sift(self, batch: Batch) -> Sift:
        pieces = ProbePieces(batch.probes, self.device)
        if not self._fused:
            return ProductSift(pieces, self._memory)
        from index.triton_scan import FusedSift

        return FusedSift(pieces, self._memory)

    def _wanted(self, batch: Batch, rules: Rules) -> Wanted:
        query_of = batch.query_of.astype(np.int64)
        named = [np.full(len(keys), query) for query, keys in enumerate(batch.left_out)]
        none = np.empty(0, np.int64)
        floors = [-np.inf if query.min_score is None else query.min_score for query in batch.queries]
        return Wanted(
            query_of=self._moved(query_of),
            kind_of=self._moved(rules.kind_of_query[query_of]),
            ks=self._moved(np.array([min(query.k, _MOST) for query in batch.queries], np.int64)),
            floors=self._moved(np.array(floors, np.float64)),
            left_out=(
                self._moved(np.concatenate([none, *named])),
                self._moved(np.concatenate([none, *batch.left_out])),
            ),
        )

    def _parts(self, view: View, batch: Batch, stretches: list[Stretch], rules: Rules) -> Iterator[Part]:
        """All rows of the view, as many blocks at a time as their masks leave room for."""
        probes = batch.probes
        offsets = view.means @ probes.templates.astype(np.float64).T
        slack = view.reaches[:, np.newaxis] * probes.lost + probes.rounding
        for stretch in stretches:
            slab, count = stretch.slab, len(stretch.members)
            step = max(1, self._memory // (rules.bytes_per_row * slab.rows))
            for first in range(0, count, step):
                last = min(first + step, count)
                slots = slice(stretch.slots.start + first, stretch.slots.start + last)
                members = np.array(stretch.members[first:last], np.int64)
                masks = rules.masks(stretch, first, last)
                yield Part(
                    bases=self._moved(members << 32),
                    first=0,
                    codes=slab.codes[slots],
                    scales=slab.scales[slots],
                    errors=slab.errors[slots],
                    starts=slab.columns["start"][slots],
                    offsets=self._moved(offsets[members]),
                    slack=self._moved(slack[members]),
                    allowed=masks.allowed,
                    speaks=masks.speaks,
                )

    def _moved(self, array: npt.NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(array).to(self.device)


def _by_query(kept: Kept, queries: int) -> list[Bounded]:
    """On the host, by query; `kept` is in the order of the queries."""
    numbers = kept.queries.cpu().numpy()
    rows, keys = kept.rows.cpu().numpy(), kept.keys.cpu().numpy()
    speaks = kept.speaks.cpu().numpy().astype(np.uint8)
    ends = np.searchsorted(numbers, np.arange(queries + 1))
    parts = [slice(int(begin), int(end)) for begin, end in pairwise(ends)]
    return [(rows[part], keys[part], speaks[part]) for part in parts]
