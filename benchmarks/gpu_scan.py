"""The contestants of `benchmarks.gpu`: certified scans of int8 codes and of float16 rows, and plain torch.

A certified scan sieves the rows whose upper bound reaches the k-th lower bound (`index.torch_sieve`) and
gives them their true scores. The peer is what torch's users write: a float16 matrix product and `topk`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from benchmarks.gpu_rescore import true_scores
from benchmarks.gpu_rows import Codes, Gallery, K
from homeward.types import Float32
from index.probe_codes import encode_probes
from index.torch_product import ProbePieces, ProductSift, reaching
from index.torch_sieve import ROWS_STEP, Kept, Pairs, Part, Sieve, Sift, Wanted

PART_ROWS = 1 << 22
_PEER_SCORES = 1 << 29  # rows x probes of one product
_PEER_ROWS = 1 << 26


@dataclass(frozen=True, slots=True)
class Answer:
    """The best rows of a batch of p probes."""

    rows: Tensor  # (p, K) int64 on the device, best first; -1 beyond the gallery
    scores: Tensor  # (p, K) float64
    rescored: int  # rows that got their true score, over all probes


class Contestant(Protocol):
    """One way to search a gallery, made for it."""

    def scan(self, probes: Float32) -> Kept | None:
        """Choose the rows that may matter; None where that is no step of its own."""
        ...

    def answer(self, probes: Float32) -> Answer:
        """Search for all probes (p, d)."""
        ...

    def pass_bytes(self) -> int:
        """Bytes of rows that one pass has to read."""
        ...


class Float16Sift:
    """Finds the float16 rows that reach a threshold; see `index.torch_sieve.Sift`.

    A row x is h + e with h in float16, a probe q is w + b with w in float16: q.x = w.h + b.h + q.e, of which
    |b.h| <= |b| |h| and |q.e| <= |q| |e|. Products of two float16 numbers are exact in float32, their sum is
    not. On a CPU gamma_d with 2^-24 bounds its error. A tensor core adds t >= 4 products to the sum at a
    step, all aligned to the largest and cut off there, in 24 bits or more (M. Fasi, N. Higham, M. Mikaitis,
    S. Pranesh, "Numerical behavior of NVIDIA tensor cores", PeerJ Computer Science 7:e330, 2021, for V100, T4
    and A100; assumed of later ones): each of the t + 1 operands and the result loses less than 2^-23 of
    sum |w_i h_i| <= |w| |h|, in d / t steps less than d 2^-22 |w| |h|. `rounding` takes twice that, and 8
    roundings of numbers below 4 for the rest.
    """

    def __init__(self, probes: Float32, device: torch.device, memory: int) -> None:
        halves = probes.astype(np.float16)
        lost = probes.astype(np.float64) - halves.astype(np.float64)
        self.lost = np.sqrt((lost**2).sum(axis=1)) * (1 + 1e-9)  # (p,) |b|
        self.rounding = probes.shape[1] * 2.0**-21 * 1.002 + 8 * 4 * 2.0**-24
        self.rows_at_once = max(ROWS_STEP, memory // (16 * len(probes)))
        self._probes = torch.from_numpy(halves).to(device)

    def __call__(self, part: Part, kind_of: Tensor, least: Tensor) -> Pairs:
        """Never None."""
        codes = part.codes.reshape(-1, part.codes.shape[2])
        if codes.is_cuda:
            upper = torch.mm(codes, self._probes.t(), out_dtype=torch.float32)
        else:
            upper = codes.float() @ self._probes.float().t()
        upper += part.errors.reshape(-1, 1)
        return reaching(part, upper, kind_of, least)


class Certified:
    """A sieve over codes, then the true scores of what is left."""

    def __init__(self, gallery: Gallery, codes: Codes, *, kernels: bool, fused: bool, memory: int) -> None:
        self._gallery = gallery
        self._codes = codes
        self._kernels = kernels
        self._fused = fused
        self._memory = memory
        self._device = codes.codes.device
        rows = min(PART_ROWS, len(codes.codes))
        self._numbers = torch.arange(rows, dtype=torch.int32, device=self._device)
        self._allowed = torch.ones((1, 1, rows), dtype=torch.bool, device=self._device)

    def scan(self, probes: Float32) -> Kept:
        """The rows that may matter."""
        count = len(probes)
        sift, offsets, slack = self._sift(probes)
        numbers = torch.arange(count, device=self._device)
        none = numbers[:0]
        wanted = Wanted(
            query_of=numbers,
            kind_of=torch.zeros_like(numbers),
            ks=torch.full((count,), K, device=self._device),
            floors=torch.full((count,), -torch.inf, dtype=torch.float64, device=self._device),
            left_out=(none, none),
        )
        sieve = Sieve(sift, wanted)
        for part in self._parts(offsets, slack):
            sieve.take(part)
        return sieve.left()

    def answer(self, probes: Float32) -> Answer:
        """Scan, fetch the originals of what is left, score, rank."""
        kept = self.scan(probes)
        originals = self._gallery.originals
        rows = originals[kept.rows.to(originals.device)].to(self._device, torch.float32)
        moved = torch.from_numpy(probes).to(self._device)
        scores = true_scores(rows, moved, kept.queries, kernels=self._kernels)
        order = torch.argsort(scores, descending=True, stable=True)
        order = order[torch.argsort(kept.queries[order], stable=True)]
        queries = kept.queries[order]
        first = torch.searchsorted(queries, torch.arange(len(probes), device=self._device))
        place = torch.arange(len(order), device=self._device) - first[queries]
        led = (place < K).nonzero().flatten()
        best = torch.full((len(probes), K), -1, device=self._device)
        found = torch.full((len(probes), K), -torch.inf, dtype=torch.float64, device=self._device)
        best[queries[led], place[led]] = kept.rows[order[led]]
        found[queries[led], place[led]] = scores[order[led]]
        return Answer(best, found, len(kept))

    def pass_bytes(self) -> int:
        """Codes, scales and error norms, and a byte per row that says whether it counts."""
        return self._codes.memory_bytes() + len(self._codes.codes)

    def _sift(self, probes: Float32) -> tuple[Sift, Tensor, Tensor]:
        """The sift, and offset and slack (1, p) of each probe."""
        codes = self._codes
        offsets = (probes.astype(np.float64) @ codes.mean)[np.newaxis]
        sift: Sift
        if codes.codes.dtype == torch.float16:
            sift = Float16Sift(probes, self._device, self._memory)
            slack = codes.reach * sift.lost + sift.rounding
        else:
            coded = encode_probes(probes)
            pieces = ProbePieces(coded, self._device)
            slack = codes.reach * coded.lost + coded.rounding
            if self._fused:
                from index.triton_scan import FusedSift

                sift = FusedSift(pieces, self._memory)
            else:
                sift = ProductSift(pieces, self._memory)
        moved = [torch.from_numpy(one).to(self._device) for one in (offsets, slack[np.newaxis])]
        return sift, moved[0], moved[1]

    def _parts(self, offsets: Tensor, slack: Tensor) -> Iterator[Part]:
        codes = self._codes
        for start in range(0, len(codes.codes), PART_ROWS):
            here = slice(start, start + PART_ROWS)
            some = codes.codes[here]
            scales = codes.scales[here] if codes.scales.dim() else codes.scales.expand(len(some))
            yield Part(
                bases=torch.tensor([start], device=self._device),
                first=0,
                codes=some[None],
                scales=scales[None],
                errors=codes.errors[here][None],
                starts=self._numbers[None, : len(some)],
                offsets=offsets,
                slack=slack,
                allowed=self._allowed[:, :, : len(some)],
                speaks=None,
            )


class Peer:
    """A float16 product and `topk`, in as few pieces as memory allows."""

    def __init__(self, gallery: Gallery) -> None:
        self._rows = gallery.float16.codes

    def scan(self, probes: Float32) -> None:
        """It has no such step."""

    def answer(self, probes: Float32) -> Answer:
        """The best rows by float16 scores: neither exact nor certified."""
        moved = torch.from_numpy(probes).to(self._rows.device, torch.float16)
        step = min(_PEER_ROWS, max(ROWS_STEP, _PEER_SCORES // len(probes)))
        values, places = [], []
        for start in range(0, len(self._rows), step):
            scores = moved @ self._rows[start : start + step].t()
            top = torch.topk(scores, min(K, scores.shape[1]), dim=1)
            values.append(top.values)
            places.append(top.indices + start)
        best = torch.topk(torch.cat(values, 1), K, dim=1)
        return Answer(torch.cat(places, 1).gather(1, best.indices), best.values.double(), 0)

    def pass_bytes(self) -> int:
        """The float16 rows."""
        return self._rows.numel() * self._rows.element_size()


def contestants(gallery: Gallery, *, kernels: bool, memory: int) -> dict[str, Callable[[], Contestant]]:
    """Makers by name; those of kernels only where they work."""

    def certified(codes: Codes, *, fused: bool = False) -> Callable[[], Contestant]:
        return lambda: Certified(gallery, codes, kernels=kernels, fused=fused, memory=memory)

    found: dict[str, Callable[[], Contestant]] = {
        "int8": certified(gallery.int8),
        "int8_fused": certified(gallery.int8, fused=True),
        "float16": certified(gallery.float16),
        "peer": lambda: Peer(gallery),
    }
    if not kernels:
        del found["int8_fused"]
    return found
