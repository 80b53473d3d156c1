"""Which rows may matter, found on a torch device: a cut per query that rises from chunk to chunk.

It is the scan of `index.scan` over whole chunks instead of threads. A *sift* gives, for a chunk of rows, the
pairs (row, probe) whose upper bound reaches a threshold; their bounds are kept, and every now and then the
k-th best record's lower bound raises the cut and drops what lies below. The first chunk is small and passes
whole; each settling covers many times the rows before it, so a query's list stays near k times that factor
and no dense matrix of scores outlives its chunk.

Only torch is needed here: a benchmark feeds it rows that no index holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

ROWS_STEP = 64  # chunks have a multiple of so many rows

_FIRST_SCORES = 1 << 17  # rows x probes of the first chunk, whose rows all pass
_FIRST_ROWS = (512, 16_384)  # at least, at most
_FIRST_PER_RECORD = 4  # rows of it for each record wanted, that they may give a cut
_GROWTH = 16  # rows seen at a settling over rows seen at the one before
_KEPT_AT_LEAST = 1 << 18  # pairs kept before they are settled ahead of time


@dataclass(frozen=True, slots=True)
class Part:
    """Rows on the device: `b` blocks of `r` rows each (the same rows of every block), for `p` probes.

    A row's position is its block's base + its number; a record's rows are of one block and lie side by side.
    """

    bases: Tensor  # (b,) int64
    first: int  # number of the first row here
    codes: Tensor  # (b, r, w) what the sift takes: int8 or float16
    scales: Tensor  # (b, r) float32
    errors: Tensor  # (b, r) float32 norm of what the code does not tell of the row
    starts: Tensor  # (b, r) int32 number of the first row of the row's record
    offsets: Tensor  # (b, p) float64 product of the probe and the block's mean
    slack: Tensor  # (b, p) float64 what probe coding and rounding may amount to
    allowed: Tensor  # (c, b, r) bool rows that may be answered with, per kind of query
    speaks: Tensor | None  # (c, b, r) bool of them, those that facts allow; None: all

    @property
    def blocks(self) -> int:
        """How many blocks these are of."""
        return self.scales.shape[0]

    @property
    def rows(self) -> int:
        """Rows of each block."""
        return self.scales.shape[1]

    def cut(self, blocks: slice, rows: slice) -> Part:
        """Some rows of some of the blocks: views of the same memory."""
        return Part(
            self.bases[blocks],
            self.first + rows.start,
            self.codes[blocks, rows],
            self.scales[blocks, rows],
            self.errors[blocks, rows],
            self.starts[blocks, rows],
            self.offsets[blocks],
            self.slack[blocks],
            self.allowed[:, blocks, rows],
            None if self.speaks is None else self.speaks[:, blocks, rows],
        )


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked: `q` queries of `p` probes in all, on the device."""

    query_of: Tensor  # (p,) int64 the query of each probe
    kind_of: Tensor  # (p,) int64 which of `Part.allowed` holds for the probe
    ks: Tensor  # (q,) int64 records wanted
    floors: Tensor  # (q,) float64 no lower score is of interest; -inf: any is
    left_out: tuple[Tensor, Tensor]  # (n,) int64 each: queries, and records (first rows) they leave out


Pairs = tuple[Tensor, Tensor, Tensor]  # (n,) int64 row in the part, (n,) int64 probe, (n,) float32 upper


class Sift(Protocol):
    """Finds the rows of a part that reach a threshold."""

    @property
    def rows_at_once(self) -> int:
        """Rows that it can take in one call."""
        ...

    def __call__(self, part: Part, kind_of: Tensor, least: Tensor) -> Pairs | None:
        """Every allowed row and probe with s (q.c) + e >= least (b, p) float32; rows are numbered through all
        blocks of the part. None if there are more than it has room for: it wants a smaller part."""
        ...


@dataclass(frozen=True, slots=True)
class Kept:
    """Pairs of a query and a row that may matter, each row once per query after settling."""

    queries: Tensor  # (n,) int64
    rows: Tensor  # (n,) int64 positions
    keys: Tensor  # (n,) int64 positions of the first rows of the rows' records
    lower: Tensor  # (n,) float64 bounds of the row's best score over the query's probes
    upper: Tensor
    speaks: Tensor  # (n,) bool whether facts allow the row

    def __len__(self) -> int:
        return len(self.queries)

    def take(self, chosen: Tensor) -> Kept:
        """Those of the mask."""
        at = chosen.nonzero().flatten()
        return Kept(
            self.queries[at],
            self.rows[at],
            self.keys[at],
            self.lower[at],
            self.upper[at],
            self.speaks[at],
        )


class Sieve:
    """One scan: give it all parts, then ask what is left."""

    def __init__(self, sift: Sift, wanted: Wanted) -> None:
        self._sift = sift
        self._wanted = wanted
        self._cuts = wanted.floors.repeat(2, 1)  # (2, q): of records that facts allow, of all records
        probes = max(1, len(wanted.query_of))
        most = int(wanted.ks.max()) if len(wanted.ks) else 0
        least = max(_FIRST_ROWS[0], _FIRST_SCORES // probes, _FIRST_PER_RECORD * most)
        self._due = min(least, _FIRST_ROWS[1])  # rows seen at which all is settled next
        self._seen = 0
        self._kept: list[Kept] = []
        self._held = 0
        self._room = _KEPT_AT_LEAST
        self._facts = False  # whether facts exclude rows of any part

    def take(self, part: Part) -> None:
        """Look at all rows of the part."""
        self._facts |= part.speaks is not None
        at = 0  # in rows of all blocks
        while at < part.blocks * part.rows:
            most = min(self._sift.rows_at_once, self._due - self._seen)
            chunk, at = _next(part, at, max(ROWS_STEP, most - most % ROWS_STEP))
            self._look(chunk)
            self._seen += chunk.blocks * chunk.rows
            if self._seen >= self._due or self._held > self._room:
                self._settle()
                self._due = max(self._due, min(self._seen * _GROWTH, 1 << 60))

    def left(self) -> Kept:
        """Every row that may matter: each whose upper bound reaches the k-th best record's lower bound."""
        self._settle()
        return self._kept[0]

    def _look(self, chunk: Part) -> None:
        wanted = self._wanted
        ceilings = chunk.offsets + chunk.slack
        least = (self._cuts[0][wanted.query_of] - ceilings).to(torch.float32)
        found = self._sift(chunk, wanted.kind_of, least)
        if found is None:
            for half in _halves(chunk):
                self._look(half)
                self._settle()
            return
        kept = self._bounded(chunk, *found)
        self._kept.append(kept)
        self._held += len(kept)

    def _bounded(self, chunk: Part, at: Tensor, probes: Tensor, reached: Tensor) -> Kept:
        """The pairs with their bounds, but for those that facts or the query's caller rule out."""
        wanted = self._wanted
        block = at // chunk.rows
        row = at - block * chunk.rows
        error = chunk.errors[block, row].to(torch.float64)
        middle = chunk.offsets[block, probes] + (reached.to(torch.float64) - error)
        reach = chunk.slack[block, probes] + error
        if chunk.speaks is None:
            speaks = torch.ones_like(at, dtype=torch.bool)
        else:
            speaks = chunk.speaks[wanted.kind_of[probes], block, row]
        queries = wanted.query_of[probes]
        base = chunk.bases[block]
        kept = Kept(
            queries,
            base + chunk.first + row,
            base + chunk.starts[block, row],
            middle - reach,
            middle + reach,
            speaks,
        )
        if not (chunk.speaks is not None or len(wanted.left_out[0])):
            return kept
        chosen = speaks | (kept.upper >= self._cuts[1][queries])
        if len(wanted.left_out[0]):
            span = _span(torch.cat([kept.keys, wanted.left_out[1]]))
            named = wanted.left_out[0] * span + wanted.left_out[1]
            chosen &= ~torch.isin(queries * span + kept.keys, named)
        return kept.take(chosen)

    def _settle(self) -> None:
        if not self._kept:
            nothing = torch.empty(0, dtype=torch.int64, device=self._cuts.device)
            bounds = nothing.to(torch.float64)
            self._kept = [Kept(nothing, nothing, nothing, bounds, bounds, nothing.to(torch.bool))]
        kept, self._cuts = settle(_joined(self._kept), self._wanted.ks, self._cuts, facts=self._facts)
        self._kept = [kept]
        self._held = len(kept)
        self._room = max(_KEPT_AT_LEAST, 2 * self._held)


def settle(kept: Kept, ks: Tensor, cuts: Tensor, *, facts: bool) -> tuple[Kept, Tensor]:
    """Merge a row's repeats (other probes of its query), raise the cuts (2, q), drop what lies below them.

    Returns what is left, ordered by query and row, and the cuts. Without `facts` all rows speak."""
    if not len(kept):
        return kept, cuts
    span = _span(kept.rows)
    ids, order = torch.sort(kept.queries * span + kept.rows)
    same, owner = torch.unique_consecutive(ids, return_inverse=True)
    first = torch.searchsorted(ids, same)
    order_of_first = order[first]
    merged = Kept(
        kept.queries[order_of_first],
        kept.rows[order_of_first],
        kept.keys[order_of_first],
        _largest(kept.lower[order], owner, len(same)),
        _largest(kept.upper[order], owner, len(same)),
        kept.speaks[order_of_first],
    )
    records, record_of = torch.unique_consecutive(merged.queries * span + merged.keys, return_inverse=True)
    queries = records // span
    found = kth_of_each(_largest(merged.lower, record_of, len(records)), queries, ks).repeat(2, 1)
    if facts:
        speaking = torch.where(merged.speaks, merged.lower, -torch.inf)
        found[0] = kth_of_each(_largest(speaking, record_of, len(records)), queries, ks)
    cuts = torch.maximum(cuts, found)
    of_kind = (~merged.speaks).to(torch.int64)
    return merged.take(merged.upper >= cuts[of_kind, merged.queries]), cuts


def kth_of_each(values: Tensor, queries: Tensor, ks: Tensor) -> Tensor:
    """(q,) float64: of each query's values (n,) the k-th largest; -inf where it has fewer. `queries` (n,)."""
    order = torch.argsort(values, descending=True)
    order = order[torch.argsort(queries[order], stable=True)]
    numbers = torch.arange(len(ks) + 1, device=values.device)
    ends = torch.searchsorted(queries[order], numbers)
    at = ends[:-1] + ks - 1
    found = values[order[at.clamp(max=len(values) - 1)]]
    return torch.where(at < ends[1:], found, -torch.inf)


def _largest(values: Tensor, owners: Tensor, count: int) -> Tensor:
    """(count,) the largest of each owner's values."""
    found = torch.full((count,), -torch.inf, dtype=values.dtype, device=values.device)
    return found.scatter_reduce_(0, owners, values, "amax")


def _span(rows: Tensor) -> int:
    """A number above all positions: query x span + position is one number for both."""
    return int(rows.max()) + 1 if len(rows) else 1


def _joined(parts: list[Kept]) -> Kept:
    if len(parts) == 1:
        return parts[0]
    names = ("queries", "rows", "keys", "lower", "upper", "speaks")
    return Kept(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


def _next(part: Part, at: int, most: int) -> tuple[Part, int]:
    """The rows from `at` on, at most so many, as whole blocks or as a piece of one; and where they end."""
    block, row = divmod(at, part.rows)
    whole = min(most // part.rows, part.blocks - block)
    if row == 0 and whole:
        return part.cut(slice(block, block + whole), slice(0, part.rows)), at + whole * part.rows
    stop = min(part.rows, row + most)
    return part.cut(slice(block, block + 1), slice(row, stop)), block * part.rows + stop


def _halves(part: Part) -> Iterator[Part]:
    if part.blocks > 1:
        middle = part.blocks // 2
        yield part.cut(slice(0, middle), slice(0, part.rows))
        yield part.cut(slice(middle, part.blocks), slice(0, part.rows))
        return
    middle = max(ROWS_STEP, part.rows // 2 // ROWS_STEP * ROWS_STEP)
    yield part.cut(slice(0, 1), slice(0, middle))
    if middle < part.rows:
        yield part.cut(slice(0, 1), slice(middle, part.rows))
