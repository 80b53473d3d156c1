"""The Triton kernel that gives true scores; apart, because it needs Triton at import."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

_TILE = 128


def _ordered(
    rows: tl.tensor,  # (count, dimension) float32
    probes: tl.tensor,  # (p, dimension) float32
    probe_of: tl.tensor,  # (count,) int64
    found: tl.tensor,  # (count,) float64
    count: tl.tensor,
    dimension: tl.tensor,
    tile: tl.constexpr,
) -> None:
    """Each lane adds up one row's products, component after component, in float64."""
    at = tl.program_id(0).to(tl.int64) * tile + tl.arange(0, tile)
    there = at < count
    probe = tl.load(probe_of + at, mask=there, other=0)
    total = tl.zeros((tile,), dtype=tl.float64)
    for component in range(0, dimension):
        one = tl.load(rows + at * dimension + component, mask=there, other=0.0).to(tl.float64)
        other = tl.load(probes + probe * dimension + component, mask=there, other=0.0).to(tl.float64)
        total += one * other
    tl.store(found + at, total, mask=there)


ordered_kernel: Any = triton.jit(_ordered)


def ordered_scores(rows: Tensor, probes: Tensor, probe_of: Tensor) -> Tensor:
    """(n,) float64 comparison scores of rows (n, d) float32 with their probes, of probes (p, d)."""
    found = torch.empty(len(rows), dtype=torch.float64, device=rows.device)
    if len(rows):
        ordered_kernel[(triton.cdiv(len(rows), _TILE),)](
            rows.contiguous(), probes.contiguous(), probe_of, found, len(rows), rows.shape[1], tile=_TILE
        )
    return found
