"""Probe templates as integers, with what is lost by that bounded: the probe's half of `index.encode`.

A probe q is kept as u w + d, with w integers of about 15 bits in two bytes. numpy alone, so that a machine
without a compiler can code probes for its accelerator.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from homeward.types import Float32, Float64
from index.score import scan_error

Int8 = npt.NDArray[np.int8]
Int32 = npt.NDArray[np.int32]

COMPONENT_STEP = 16  # templates are padded with zeros to a multiple

_LARGEST = 127
# Rounding in float32: of w.c to float, of two products and two sums, each of numbers below 4, and of the
# threshold itself; 12 roundings of 4 x 2^-24 bound them generously.
_ROUNDING = 12 * 4 * 2.0**-24


def padded(dimension: int) -> int:
    """Components of a code: the template's, rounded up to what the kernels take at a step."""
    return -(-dimension // COMPONENT_STEP) * COMPONENT_STEP


@dataclass(frozen=True, slots=True)
class Probes:
    """Coded probe templates, for all blocks."""

    templates: Float32  # (p, d)
    pieces: Int8  # (p, 2, padded): w = 128 high + low
    units: Float32  # (p,) u
    biases: Int32  # (p, 2) 128 sum(128 high), 128 sum(w), modulo 2^32: row codes are stored + 128
    lost: Float64  # (p,) |d|
    rough: Float64  # (p,) u |low|: what the high piece alone leaves
    rounding: float  # bound of every floating rounding of a bound


def encode_probes(templates: Float32) -> Probes:
    """Codes of checked probe templates (p, d)."""
    count, dimension = templates.shape
    width = padded(dimension)
    wide = templates.astype(np.float64)
    # w.c and 128 high.c, whose numbers are larger by 64 at most, must fit 32 bits. (Stored codes are larger
    # by 128, which is taken back modulo 2^32.)
    largest = min(128 * _LARGEST, (2**31 - 1) // (_LARGEST * width) - 64)
    units = (np.abs(wide).max(axis=1, initial=0.0) / largest).astype(np.float32)
    whole = np.rint(wide / np.maximum(units, np.float32(2.0**-100)).astype(np.float64)[:, np.newaxis])
    whole = np.clip(whole, -largest, largest)
    lost = np.sqrt(((wide - units.astype(np.float64)[:, np.newaxis] * whole) ** 2).sum(axis=1))
    high = np.clip(np.rint(whole / 128), -_LARGEST, _LARGEST)
    pieces = np.zeros((count, 2, width), np.int8)
    pieces[:, 0, :dimension] = high
    pieces[:, 1, :dimension] = whole - 128 * high
    sums = np.stack((128 * high.sum(axis=1), whole.sum(axis=1)), axis=1)
    biases = (128 * sums).astype(np.int64).astype(np.uint64).astype(np.uint32).view(np.int32)
    low = np.sqrt(((whole - 128 * high) ** 2).sum(axis=1))
    return Probes(
        templates=templates,
        pieces=pieces,
        units=units,
        biases=biases,
        lost=lost * (1 + 1e-9) + 1e-30,
        rough=units.astype(np.float64) * low * (1 + 1e-9),
        rounding=_ROUNDING + 2 * scan_error(dimension),
    )
