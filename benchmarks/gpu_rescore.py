"""True scores on the device, and the check that the kernels work there before anything is measured with them.

    .venv/bin/python -m benchmarks.gpu_rescore [DEVICE]

ends with 0 when, on small random rows, both kernels give what plain torch gives.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from torch import Tensor

from index.probe_codes import encode_probes
from index.score import score
from index.torch_product import ProbePieces, ProductSift
from index.torch_sieve import Part


def true_scores(rows: Tensor, probes: Tensor, probe_of: Tensor, *, kernels: bool) -> Tensor:
    """(n,) float64 comparison scores (`index.score`) of rows (n, d) with their probes; probes (p, d).

    The product of two float32 numbers is exact in float64 and the sums run in index order, so every way of
    computing it here gives the same bits.
    """
    if kernels:
        from benchmarks.gpu_kernels import ordered_scores

        return ordered_scores(rows, probes, probe_of)
    if rows.device.type == "cpu":
        return torch.from_numpy(score(rows.numpy(), probes[probe_of].numpy()))
    columns, others = rows.t().contiguous(), probes.t().contiguous()
    total = torch.zeros(len(rows), dtype=torch.float64, device=rows.device)
    for column, other in zip(columns, others, strict=True):
        total.addcmul_(column.double(), other[probe_of].double())
    return total


def check(device: torch.device, rows: int = 1280) -> None:
    """Raise `AssertionError` if a kernel and plain torch differ."""
    from index.triton_scan import FusedSift

    generator = torch.Generator().manual_seed(2)
    for dimension, probes in ((128, 1), (128, 70), (512, 17), (33, 3)):
        drawn = torch.randn((rows + probes, dimension), generator=generator)
        drawn = (drawn.double() / drawn.double().norm(dim=1, keepdim=True)).float()
        coded = encode_probes(drawn[rows:].numpy())
        pieces = ProbePieces(coded, device)
        width = coded.pieces.shape[2]
        codes = torch.randint(-127, 128, (1, rows, width), generator=generator, dtype=torch.int8)
        codes[:, :, dimension:] = 0
        part = Part(
            bases=torch.zeros(1, dtype=torch.int64, device=device),
            first=0,
            codes=codes.to(device),
            scales=(torch.rand((1, rows), generator=generator) * 1e-3).to(device),
            errors=(torch.rand((1, rows), generator=generator) * 1e-2).to(device),
            starts=torch.arange(rows, dtype=torch.int32, device=device)[None],
            offsets=torch.zeros((1, probes), dtype=torch.float64, device=device),
            slack=torch.zeros((1, probes), dtype=torch.float64, device=device),
            allowed=(torch.rand((1, 1, rows), generator=generator) < 0.7).to(device),
            speaks=None,
        )
        kind = torch.zeros(probes, dtype=torch.int64, device=device)
        least = torch.full((1, probes), 0.06, device=device)
        one, other = (sift(pieces, 1 << 26)(part, kind, least) for sift in (FusedSift, ProductSift))
        assert one is not None
        assert other is not None
        pairs, wanted = _by_pair(*one), _by_pair(*other)
        near = {pair for pair, upper in (pairs | wanted).items() if abs(upper - 0.06) < 1e-6}
        assert (pairs.keys() ^ wanted.keys()) <= near, f"{len(pairs)} pairs, not {len(wanted)}"
        assert wanted, "nothing reached the threshold"
        assert all(abs(pairs[pair] - wanted[pair]) < 1e-6 for pair in pairs.keys() & wanted.keys())
        found, plain = (
            true_scores(drawn[:rows].to(device), drawn[rows:].to(device), of.to(device), kernels=kernels)
            for of in (torch.arange(rows) % probes,)
            for kernels in (True, False)
        )
        assert np.array_equal(found.cpu().numpy(), plain.cpu().numpy()), "true scores differ"


def _by_pair(rows: Tensor, probes: Tensor, upper: Tensor) -> dict[tuple[int, int], float]:
    pairs = zip(rows.tolist(), probes.tolist(), strict=True)
    return dict(zip(pairs, upper.tolist(), strict=True))


if __name__ == "__main__":
    check(torch.device(sys.argv[1] if len(sys.argv) > 1 else "cuda"))
