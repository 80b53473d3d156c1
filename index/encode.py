"""int8 codes of rows, with what is lost by them bounded; those of probes are in `index.probe_codes`.

A row x is kept as m + s c + e: m the block's mean, c integers of [-127, 127], s one scale per row, and e what
is left, of which only the norm is kept. Real templates crowd around their mean, so codes of x - m are several
times finer than codes of x. A probe q is kept as u w + d, with w integers of about 15 bits in two bytes. Then

    q.x = q.m + s u (w.c) + s (d.c) + q.e,   |s (d.c)| <= |d| max|s c|,   |q.e| <= |q| |e|

(Cauchy-Schwarz), and w.c is exact integer arithmetic.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from homeward.types import Float64, UInt8
from index.compiled import compiled_loosely
from index.kernel import GROUP
from index.probe_codes import padded


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
