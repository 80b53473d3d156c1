"""int8 codes of templates and of probes, with what is lost by them bounded.

A row x is kept as m + s c + e: m the block's mean, c integers of [-127, 127], s one scale per row, and e what
is left, of which only the norm is kept. Real templates crowd around their mean, so codes of x - m are several
times finer than codes of x. A probe q is kept as u w + d, with w integers of about 15 bits in two bytes. Then

    q.x = q.m + s u (w.c) + s (d.c) + q.e,   |s (d.c)| <= |d| max|s c|,   |q.e| <= |q| |e|

(Cauchy-Schwarz), and w.c is exact integer arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from homeward.types import Float32, Float64, UInt8
from index.compiled import compiled_loosely
from index.kernel import COMPONENT_STEP, GROUP
from index.score import NORM_TOLERANCE, scan_error

Int8 = npt.NDArray[np.int8]
Int32 = npt.NDArray[np.int32]

_LARGEST = 127
_NORM = 1.0 + NORM_TOLERANCE
# Rounding in float32: of w.c to float, of two products and two sums, each of numbers below 4, and of the
# threshold itself; 12 roundings of 4 x 2^-24 bound them generously.
_ROUNDING = 12 * 4 * 2.0**-24


def padded(dimension: int) -> int:
    """Components of a code: the template's, rounded up to what the kernel takes at a step."""
    return -(-dimension // COMPONENT_STEP) * COMPONENT_STEP


@dataclass(frozen=True, slots=True)
class Probes:
    """Coded probe templates, for all blocks."""

    templates: Float32  # (p, d)
    pieces: Int8  # (p, 2, padded): w = 128 high + low
    units: Float32  # (p,) u
    biases: Int32  # (p,) 128 sum(w) modulo 2^32: row codes are stored + 128
    lost: Float64  # (p,) |d|
    rounding: float  # bound of every floating rounding of a bound


def encode_probes(templates: Float32) -> Probes:
    """Codes of checked probe templates (p, d)."""
    count, dimension = templates.shape
    width = padded(dimension)
    wide = templates.astype(np.float64)
    # w.c must fit 32 bits with room for the sum of the stored codes' offsets.
    largest = min(128 * _LARGEST, (2**31 - 1) // (_LARGEST * width))
    units = (np.abs(wide).max(axis=1, initial=0.0) / largest).astype(np.float32)
    whole = np.rint(wide / np.maximum(units, np.float32(2.0**-100)).astype(np.float64)[:, np.newaxis])
    whole = np.clip(whole, -largest, largest)
    lost = np.sqrt(((wide - units.astype(np.float64)[:, np.newaxis] * whole) ** 2).sum(axis=1))
    high = np.clip(np.rint(whole / 128), -_LARGEST, _LARGEST)
    pieces = np.zeros((count, 2, width), np.int8)
    pieces[:, 0, :dimension] = high
    pieces[:, 1, :dimension] = whole - 128 * high
    biases = (128 * whole.sum(axis=1)).astype(np.int64).astype(np.uint64).astype(np.uint32).view(np.int32)
    return Probes(
        templates, pieces, units, biases, lost * (1 + 1e-9) + 1e-30, _ROUNDING + 2 * scan_error(dimension)
    )


@compiled_loosely
def encode_rows(
    templates: Any, mean: Any, codes: Any, scales: Any, errors: Any, start: int
) -> float:  # pragma: no cover - compiled
    """Code rows (n, d) float32 around `mean` (d,) float64 into a block's arrays, from row `start` on.

    `codes` is the block's flat bytes in the kernel's order, `scales` and `errors` its float32 columns.
    Returns the largest |s c| of the rows.
    """
    count, dimension = templates.shape
    width = (dimension + 15) // 16 * 16
    rest = np.zeros(width, np.float64)
    largest = 0.0
    for number in range(count):
        row = start + number
        base = row // 16 * (16 * width) + row % 16 * 4
        reach = 0.0
        for one in range(dimension):
            rest[one] = np.float64(templates[number, one]) - mean[one]
            reach = max(reach, abs(rest[one]))
        scale = np.float32(reach / 127.0)
        step = np.float64(scale)
        inverse = 1.0 / step if step > 0.0 else 0.0
        lost = 0.0
        long = 0.0
        for quad in range(width // 4):
            for one in range(4):
                value = rest[4 * quad + one]
                code = min(127.0, max(-127.0, np.rint(value * inverse)))
                left = value - step * code
                lost += left * left
                long += code * code
                codes[base + 64 * quad + one] = np.uint8(int(code) + 128)
        scales[row] = scale
        # A little more than the norm, which covers |q| <= 1 + 1e-6 and the roundings of this very sum.
        errors[row] = np.float32(np.sqrt(lost) * 1.000004 + 1e-30)
        largest = max(largest, step * np.sqrt(long))
    return largest * 1.000001


def code_bytes(rows: int, dimension: int) -> int:
    """Bytes of the codes of so many rows."""
    return -(-rows // GROUP) * GROUP * padded(dimension)


def decode_row(codes: UInt8, row: int, dimension: int) -> Float64:
    """The integers c of one row (d,), for tests and the reference backend."""
    width = padded(dimension)
    one = np.arange(dimension)
    base = row // GROUP * (GROUP * width) + row % GROUP * 4
    found: Float64 = codes[base + one // 4 * 64 + one % 4].astype(np.float64) - 128.0
    return found
