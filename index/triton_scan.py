"""The scan's inner step as one Triton kernel: int8 products, bounds, threshold, a list of what reaches it.

The matrix of scores never leaves the chip: a program takes a tile of rows and probes, multiplies on the
tensor cores in int32 (exact), and appends the few pairs that reach their threshold at a place it takes from a
shared counter. So a pass reads each code once per group of probes and writes next to nothing.

Checked by Triton's interpreter and compiled for sm_90 without a device; it has not run on a GPU. So
nothing chooses it by itself: `index.torch_scan.TorchScan(..., fused=True)` does.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from index.torch_product import ProbePieces, ProductSift
from index.torch_sieve import Pairs, Part

_ROWS_AT_ONCE = 1 << 24  # offsets of rows in an allowed mask stay below 2^31
_PAIRS = 1 << 22  # room for what one call finds
_TILE_ROWS = (128, 64)  # the first that divides a block's rows
_FEW, _MANY = 16, 64  # probes of a tile
_STAGES = 2


def _sift(  # noqa: PLR0917 - a kernel takes arrays, not objects
    codes: tl.tensor,  # (rows, width) int8
    scales: tl.tensor,  # (rows,) float32
    errors: tl.tensor,  # (rows,) float32
    pieces: tl.tensor,  # (>= 2 probes, width) int8: high ones, then low ones
    units: tl.tensor,  # (probes,) float32
    least: tl.tensor,  # (blocks, probes) float32
    allowed: tl.tensor,  # (kinds, rows) uint8
    kind_of: tl.tensor,  # (probes,) int64
    found_rows: tl.tensor,  # (room,) int32
    found_probes: tl.tensor,  # (room,) int32
    found_upper: tl.tensor,  # (room,) float32
    counter: tl.tensor,  # (1,) int64
    rows: tl.tensor,
    probes: tl.tensor,
    width: tl.tensor,
    block_rows: tl.tensor,
    room: tl.tensor,
    tile_rows: tl.constexpr,
    tile_probes: tl.constexpr,
    step: tl.constexpr,
) -> None:
    """One tile of rows, all in one block, and one group of probes. The groups of a tile follow one another,
    so that all but the first find its codes in the cache."""
    groups = tl.cdiv(probes, tile_probes)
    tile = tl.program_id(0) // groups
    group = tl.program_id(0) % groups
    row = tile.to(tl.int64) * tile_rows + tl.arange(0, tile_rows)
    probe = group * tile_probes + tl.arange(0, tile_probes)
    row_there, probe_there = row < rows, probe < probes
    high = tl.zeros((tile_rows, tile_probes), dtype=tl.int32)
    low = tl.zeros((tile_rows, tile_probes), dtype=tl.int32)
    for begin in range(0, width, step):
        one = begin + tl.arange(0, step)
        there = one < width
        code = tl.load(
            codes + row[:, None] * width + one[None, :], mask=row_there[:, None] & there[None, :], other=0
        )
        at = pieces + probe[None, :] * width + one[:, None]
        here = probe_there[None, :] & there[:, None]
        high = tl.dot(code, tl.load(at, mask=here, other=0), high, out_dtype=tl.int32)
        low = tl.dot(code, tl.load(at + probes * width, mask=here, other=0), low, out_dtype=tl.int32)
    scale = tl.load(scales + row, mask=row_there, other=0.0)
    error = tl.load(errors + row, mask=row_there, other=0.0)
    unit = tl.load(units + probe, mask=probe_there, other=0.0)
    upper = (high * 128 + low).to(tl.float32) * scale[:, None] * unit[None, :] + error[:, None]
    block = tile.to(tl.int64) * tile_rows // block_rows
    threshold = tl.load(least + block * probes + probe, mask=probe_there, other=float("inf"))
    reached = (upper >= threshold[None, :]) & row_there[:, None] & probe_there[None, :]
    if tl.sum(tl.sum(reached.to(tl.int32), 1), 0) > 0:
        kind = tl.load(kind_of + probe, mask=probe_there, other=0)
        may = tl.load(allowed + kind[None, :] * rows + row[:, None], mask=reached, other=0)
        hits = (reached & (may != 0)).to(tl.int32)
        of_row = tl.sum(hits, 1)
        count = tl.sum(of_row, 0)
        start = tl.atomic_add(counter, count.to(tl.int64))
        left = tl.maximum(tl.minimum(room - start, tile_rows * tile_probes), 0).to(tl.int32)
        place = (tl.cumsum(of_row, 0) - of_row)[:, None] + tl.cumsum(hits, 1) - 1
        fits = (hits != 0) & (place < left)
        tl.store(found_rows + start + place, (row[:, None] + tl.zeros_like(place)).to(tl.int32), mask=fits)
        tl.store(found_probes + start + place, probe[None, :] + tl.zeros_like(place), mask=fits)
        tl.store(found_upper + start + place, upper, mask=fits)


sift_kernel: Any = triton.jit(_sift)


class FusedSift:
    """Finds the rows that reach a threshold in one kernel; see `index.torch_sieve.Sift`."""

    rows_at_once = _ROWS_AT_ONCE

    def __init__(self, probes: ProbePieces, memory: int, room: int = _PAIRS) -> None:
        device = probes.pieces.device
        self._probes = probes
        self._by_product = ProductSift(probes, memory)
        self._rows = torch.empty(room, dtype=torch.int32, device=device)
        self._of_probe = torch.empty(room, dtype=torch.int32, device=device)
        self._upper = torch.empty(room, dtype=torch.float32, device=device)

    def __call__(self, part: Part, kind_of: Tensor, least: Tensor) -> Pairs | None:
        """None if more pairs are found than there is room for, unless matrix products can take the part."""
        probes = self._probes
        rows, width = part.blocks * part.rows, part.codes.shape[2]
        counter = torch.zeros(1, dtype=torch.int64, device=self._rows.device)
        tile_rows = next(one for one in _TILE_ROWS if part.rows % one == 0 or part.blocks == 1)
        tile_probes = _FEW if probes.count <= _FEW else _MANY
        grid = (triton.cdiv(rows, tile_rows) * triton.cdiv(probes.count, tile_probes),)
        sift_kernel[grid](
            part.codes.reshape(rows, width),
            part.scales.reshape(rows),
            part.errors.reshape(rows),
            probes.pieces,
            probes.units,
            least.contiguous(),
            part.allowed.reshape(-1, rows).contiguous().view(torch.uint8),
            kind_of,
            self._rows,
            self._of_probe,
            self._upper,
            counter,
            rows,
            probes.count,
            width,
            part.rows,
            len(self._rows),
            tile_rows=tile_rows,
            tile_probes=tile_probes,
            step=code_step(width),
            num_warps=4 if tile_probes == _FEW else 8,
            num_stages=_STAGES,
        )
        found = int(counter)
        if found > len(self._rows):
            return self._by_product(part, kind_of, least) if rows <= self._by_product.rows_at_once else None
        return self._rows[:found].long(), self._of_probe[:found].long(), self._upper[:found].clone()


def code_step(width: int) -> int:
    """Components multiplied at a step: a power of two from 32 to 128."""
    return min(128, max(32, 1 << (width - 1).bit_length()))
