"""The comparison score: the one function by which every answer of Homeward is ordered.

It is the float64 sum, in index order (component 0, 1, 2, ...), of the products of the float32
components. The product of two float32 numbers has at most 48 significant bits, so it is exact in
float64; only the additions round, and their order is fixed. Therefore a fused multiply-add gives
the same bits as a multiplication and an addition, and neither batch size, slicing, memory layout
nor device can change a score. A matrix product adds in an order of its own: fit for scanning
(`scan_error` bounds how far off it is), not for answering.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from homeward.errors import TemplateInvalid
from homeward.types import Float32, Float64

NORM_TOLERANCE = 1e-6
_BLOCK = 1024  # rows converted to float64 at a time: they stay in the processor's cache


def score(rows: Float32, probe: Float32) -> Float64:
    """Comparison scores of `rows` (n, d) with one probe (d,), or row by row with probes (n, d).

    Returns (n,) float64. The same pair gives the same bits in every call.
    """
    count, dimension = rows.shape
    paired = probe.ndim == 2
    column = None if paired else probe.astype(np.float64)[:, np.newaxis]
    scores = np.empty(count, dtype=np.float64)
    for start in range(0, count, _BLOCK):
        stop = min(start + _BLOCK, count)
        # One contiguous line per component, so that the additions below run over whole lines.
        products = np.array(rows[start:stop].T, dtype=np.float64, order="C")
        products *= probe[start:stop].T.astype(np.float64) if column is None else column
        total = np.zeros(stop - start, dtype=np.float64)
        for component in range(dimension):
            total += products[component]
        scores[start:stop] = total
    return scores


def scan_error(dimension: int) -> float:
    """How far a float32 dot product of two checked templates can be from `score`, at most.

    |fl(x.y) - x.y| <= gamma_d |x|.|y| with gamma_d = d u / (1 - d u) and u = 2^-24 holds for every
    order of the additions, with and without fused multiply-add (Higham, Accuracy and Stability of
    Numerical Algorithms, 2nd ed., section 3.1). The rest covers products that underflow to zero,
    norms of 1 + `NORM_TOLERANCE` and the float64 rounding of `score` itself.
    """
    unit = 2.0**-24
    gamma = dimension * unit / (1.0 - dimension * unit)
    return gamma * (1.0 + 4.0 * NORM_TOLERANCE) + dimension * (2.0**-125 + 2.0**-51)


def check_template(array: npt.NDArray[np.generic], dimension: int) -> Float32:
    """Return the template (d,) as contiguous float32, or raise `TemplateInvalid` saying what is wrong."""
    if array.ndim != 1 or array.shape[0] != dimension:
        shape = "x".join(str(side) for side in array.shape) or "scalar"
        raise TemplateInvalid(
            f"the template has shape {shape}; this model's have {dimension} components", dimension=dimension
        )
    row: Float32 = check_templates(array[np.newaxis, :], dimension)[0]
    return row


def check_templates(array: npt.NDArray[np.generic], dimension: int) -> Float32:
    """Return templates (n, d) as contiguous float32, or raise `TemplateInvalid` for the first bad row."""
    if array.dtype != np.float32:
        raise TemplateInvalid(f"templates are float32, not {array.dtype}")
    if array.ndim != 2 or array.shape[1] != dimension:
        shape = "x".join(str(side) for side in array.shape) or "scalar"
        raise TemplateInvalid(
            f"the templates have shape {shape}; this model's have {dimension} components", dimension=dimension
        )
    rows = np.ascontiguousarray(array, dtype=np.float32)
    wide = rows.astype(np.float64)
    norms = np.sqrt((wide * wide).sum(axis=1))
    # A NaN or an infinity anywhere makes the norm NaN or infinite, and fails this comparison too.
    bad = np.flatnonzero(~(np.abs(norms - 1.0) <= NORM_TOLERANCE))
    if bad.size:
        row = int(bad[0])
        where = f"template {row}" if len(rows) > 1 else "the template"
        if not np.isfinite(rows[row]).all():
            raise TemplateInvalid(f"{where} holds a value that is not finite", row=row)
        raise TemplateInvalid(
            f"{where} has norm {norms[row]:.9g}; it must be 1 within {NORM_TOLERANCE:g}: normalise it in "
            "float64 before converting it to float32",
            row=row,
        )
    return rows
