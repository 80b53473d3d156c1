"""int8 codes against probes in torch: exact integer products, then the bound in float32.

It is the arithmetic of `index.encode`: a row is m + s c + e, a probe u w + d with w = 128 high + low in two
int8 pieces, and w.c is summed in int32 without a rounding. What rounds, in float32, is w.c itself, its
products with s and u, and the sum with |e|: no more than `index.probe_codes` leaves room for.
"""

from __future__ import annotations

import torch
from torch import Tensor

from index.probe_codes import Probes
from index.torch_sieve import ROWS_STEP, Pairs, Part

# Bytes of a row and probe at the peak: two int32 pieces, their sum, two float32 steps, the masks.
_BYTES_PER_SCORE = 24
_COLUMNS_STEP = 8  # cuBLAS takes int8 matrices whose sides are multiples of it


class ProbePieces:
    """Coded probes on the device."""

    def __init__(self, probes: Probes, device: torch.device) -> None:
        count, _, width = probes.pieces.shape
        self.count = count
        stacked = torch.zeros((-(-2 * count // _COLUMNS_STEP) * _COLUMNS_STEP, width), dtype=torch.int8)
        stacked[: 2 * count] = torch.from_numpy(probes.pieces.swapaxes(0, 1).reshape(2 * count, width))
        self.pieces = stacked.to(device)  # (>= 2 p, w): p high ones, p low ones, zeros
        self.units = torch.from_numpy(probes.units).to(device)  # (p,) float32


class ProductSift:
    """Finds the rows that reach a threshold by matrix products; see `index.torch_sieve.Sift`."""

    def __init__(self, probes: ProbePieces, memory: int) -> None:
        self._probes = probes
        self.rows_at_once = max(
            ROWS_STEP, memory // (4 * len(probes.pieces) + _BYTES_PER_SCORE * probes.count)
        )

    def __call__(self, part: Part, kind_of: Tensor, least: Tensor) -> Pairs:
        """Never None: a part of `rows_at_once` rows is all the room it needs."""
        return reaching(part, self._upper(part), kind_of, least)

    def _upper(self, part: Part) -> Tensor:
        """(b r, p) float32 s u (w.c) + |e|."""
        probes = self._probes
        codes = part.codes.reshape(-1, part.codes.shape[2])
        dots = torch._int_mm(codes, probes.pieces.t())
        whole = torch.add(dots[:, probes.count : 2 * probes.count], dots[:, : probes.count], alpha=128)
        scaled = whole * part.scales.reshape(-1, 1)
        return torch.addcmul(part.errors.reshape(-1, 1), scaled, probes.units)


def reaching(part: Part, upper: Tensor, kind_of: Tensor, least: Tensor) -> Pairs:
    """The allowed pairs of which `upper` (b r, p) is no less than `least` (b, p)."""
    probes = upper.shape[1]
    hits = (upper.reshape(part.blocks, part.rows, probes) >= least[:, None]).reshape(-1, probes)
    allowed = part.allowed.reshape(len(part.allowed), -1)
    hits &= allowed[0][:, None] if len(allowed) == 1 else allowed[kind_of].t()
    rows, of_probe = hits.nonzero(as_tuple=True)
    return rows, of_probe, upper[rows, of_probe]
