"""Galleries drawn on the device, in the forms that the contestants of `benchmarks.gpu` scan.

Rows come from the mean and covariance of real templates, chunk by chunk; a chunk is coded as int8 and as
float16, its float32 rows go where there is room for them, and the true best rows of a few probes are kept:
the float64 reference of every prefix of the gallery costs no second pass. Each row is a record of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.search_rows import real_statistics
from homeward.types import Float32, Float64
from index.probe_codes import padded

CHUNK_ROWS = 1 << 18
K = 10
_NEAR = 0.85  # share of an enrolled template in every other probe
_NORM_MARGIN = 1.000004  # as in `index.encode`
_REAL_DIMENSION = 128
_SPARE = 6 << 30  # bytes of the device left for scans


@dataclass(frozen=True, slots=True)
class Codes:
    """Rows as a scan reads them: x = mean + scale x code + e, |e| <= error."""

    codes: Tensor  # (n, w) int8 or float16
    scales: Tensor  # (n,) float32; () of one for float16
    errors: Tensor  # (n,) float32
    mean: Float64  # (d,) zero for float16
    reach: float  # largest |scale x code|

    def memory_bytes(self) -> int:
        """Bytes on the device."""
        return sum(one.numel() * one.element_size() for one in (self.codes, self.scales, self.errors))


@dataclass(frozen=True, slots=True)
class Gallery:
    """n rows in all forms, the probes, and what the reference says of some of them."""

    int8: Codes
    float16: Codes
    originals: Tensor  # (n, d) float32 on the device or on the host, or the float16 rows
    kept: str  # what `originals` are, in words
    probes: Float32  # (p, d)
    truth: dict[int, tuple[Tensor, Tensor]]  # rows of a prefix -> (s, K) int64 rows, (s, K) float64 scores

    def prefix(self, rows: int) -> Gallery:
        """The first rows alone: views."""
        return Gallery(
            _prefix(self.int8, rows),
            _prefix(self.float16, rows),
            self.originals[:rows],
            self.kept,
            self.probes,
            {rows: self.truth[rows]},
        )


def draw_gallery(
    sizes: Sequence[int], dimension: int, probes: int, sample: int, device: torch.device, seed: int = 1
) -> Gallery:
    """Rows for the largest of `sizes`, which are multiples of 64, with the truth of each for the first
    `sample` probes."""
    rows = max(sizes)
    draw = _Draw(dimension, device, seed)
    width = padded(dimension)
    codes = Codes(
        torch.zeros((rows, width), dtype=torch.int8, device=device),
        torch.empty(rows, dtype=torch.float32, device=device),
        torch.empty(rows, dtype=torch.float32, device=device),
        np.zeros(dimension),
        0.0,
    )
    halves = torch.empty((rows, dimension), dtype=torch.float16, device=device)
    half_errors = torch.empty(rows, dtype=torch.float32, device=device)
    originals, kept = _room(rows, dimension, device)
    best = _Best(sample, device)
    truth: dict[int, tuple[Tensor, Tensor]] = {}
    mean, wanted, reach, start = None, None, 0.0, 0
    for stop in _stops(sizes):
        some = draw.rows(stop - start)
        if mean is None or wanted is None:
            mean, wanted = some.mean(0, dtype=torch.float64), draw.probes(some, probes)
        here = slice(start, stop)
        reach = max(reach, _code(some, mean, codes, here))
        halves[here] = some
        half_errors[here] = _norms(some.double() - halves[here].double())
        if originals is not None:
            originals[here] = some.to(originals.device)
        best.look(some, wanted[:sample], start)
        if stop in sizes:
            truth[stop] = (best.rows.clone(), best.scores.clone())
        start = stop
    assert mean is not None
    assert wanted is not None
    return Gallery(
        Codes(codes.codes, codes.scales, codes.errors, mean.cpu().numpy(), reach),
        Codes(halves, torch.ones((), device=device), half_errors, np.zeros(dimension), 1.001),
        halves if originals is None else originals,
        kept,
        wanted.cpu().numpy(),
        truth,
    )


def bytes_of(rows: int, dimension: int) -> int:
    """Bytes on the device of so many rows in the scanned forms."""
    return rows * (padded(dimension) + 2 * dimension + 12) + _SPARE


class _Draw:
    """Real-like templates; wider ones are several real-like ones behind each other."""

    def __init__(self, dimension: int, device: torch.device, seed: int) -> None:
        if dimension % _REAL_DIMENSION:
            raise ValueError(f"dimensions are multiples of {_REAL_DIMENSION}")
        self._pieces = dimension // _REAL_DIMENSION
        mean, covariance = real_statistics()
        values, vectors = np.linalg.eigh(covariance)
        factor = vectors * np.sqrt(np.clip(values, 0.0, None))
        self._mean = torch.from_numpy(mean).to(device, torch.float32)
        self._factor = torch.from_numpy(factor.T.copy()).to(device, torch.float32)
        self._generator = torch.Generator(device).manual_seed(seed)
        self._device = device

    def rows(self, count: int) -> Tensor:
        """(count, d) float32 unit rows."""
        shape = (count * self._pieces, _REAL_DIMENSION)
        normal = torch.randn(shape, generator=self._generator, device=self._device)
        return _unit((self._mean + normal @ self._factor).reshape(count, -1))

    def probes(self, enrolled: Tensor, count: int) -> Tensor:
        """(count, d): every other one near an enrolled row, the rest near nobody's."""
        fresh = self.rows(count)
        picked = torch.randint(len(enrolled), (count,), generator=self._generator, device=self._device)
        share = torch.zeros((count, 1), device=self._device)
        share[::2] = _NEAR
        return _unit(share * enrolled[picked] + (1 - share) * fresh)


class _Best:
    """The best rows so far of some probes, by the comparison score: the float64 sum in index order."""

    def __init__(self, probes: int, device: torch.device) -> None:
        self.rows = torch.full((probes, K), -1, dtype=torch.int64, device=device)
        self.scores = torch.full((probes, K), -torch.inf, dtype=torch.float64, device=device)

    def look(self, rows: Tensor, probes: Tensor, start: int) -> None:
        columns = rows.t().contiguous()
        wide = probes.double().t()
        scores = torch.zeros((len(probes), len(rows)), dtype=torch.float64, device=rows.device)
        for component, column in enumerate(columns):
            scores.addcmul_(wide[component][:, None], column.double()[None, :])
        top = torch.topk(scores, min(K, len(rows)), dim=1)
        found = torch.cat([self.scores, top.values], 1)
        order = torch.argsort(found, dim=1, descending=True, stable=True)[:, :K]
        self.scores = found.gather(1, order)
        self.rows = torch.cat([self.rows, top.indices + start], 1).gather(1, order)


def _code(rows: Tensor, mean: Tensor, into: Codes, here: slice) -> float:
    """Code rows around the mean as `index.encode.encode_rows` does; returns their largest |s c|."""
    rest = rows.double() - mean
    scales = (rest.abs().amax(1) / 127.0).float()
    step = scales.double()[:, None]
    whole = torch.round(rest / step.clamp(min=1e-300)).clamp(-127, 127)
    into.codes[here, : rows.shape[1]] = whole.to(torch.int8)
    into.scales[here] = scales
    into.errors[here] = _norms(rest - step * whole)
    return float((step[:, 0] * torch.linalg.vector_norm(whole, dim=1)).max()) * 1.000001


def _norms(lost: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(lost, dim=1)
    return (norms * _NORM_MARGIN + 1e-30).float()


def _unit(rows: Tensor) -> Tensor:
    wide = rows.double()
    norms: Tensor = torch.linalg.vector_norm(wide, dim=1, keepdim=True)
    return (wide / norms).float()


def _stops(sizes: Sequence[int]) -> list[int]:
    """Where chunks end: at every chunk's worth of rows, and at every size."""
    return sorted({*range(CHUNK_ROWS, max(sizes), CHUNK_ROWS), *sizes})


def _prefix(codes: Codes, rows: int) -> Codes:
    scales = codes.scales[:rows] if codes.scales.dim() else codes.scales
    return Codes(codes.codes[:rows], scales, codes.errors[:rows], codes.mean, codes.reach)


def _room(rows: int, dimension: int, device: torch.device) -> tuple[Tensor | None, str]:
    """Room for the float32 rows, and where it is."""
    size = 4 * rows * dimension
    if device.type == "cuda" and torch.cuda.mem_get_info(device)[0] > size + _SPARE:
        return torch.empty((rows, dimension), device=device), "float32 in the device's memory"
    if _host_free() > size + size // 8:
        return torch.empty((rows, dimension)), "float32 in the host's memory"
    return None, "float16 in the device's memory: scores are not the true ones"


def _host_free() -> int:
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return int(fields["MemAvailable"].split()[0]) * 1024
