"""Templates of nobody, drawn to lie as real ones do: distractors for the demo, tests and benchmarks."""

from __future__ import annotations

import numpy as np

from homeward.types import Float32, Float64


def draw_templates(mean: Float64, covariance: Float64, count: int, seed: int) -> Float32:
    """(count, d) float32 unit rows from the normal distribution of real templates' mean (d,) and
    covariance (d, d), projected onto the sphere. A singular covariance (fewer templates than
    dimensions) is fine. The same seed gives the same rows on the same machine."""
    values, vectors = np.linalg.eigh(covariance)
    factor = vectors * np.sqrt(np.clip(values, 0.0, None))
    generator = np.random.default_rng(seed)
    rows = np.empty((count, len(mean)), dtype=np.float32)
    step = 16_384
    for start in range(0, count, step):
        normal = generator.standard_normal((min(step, count - start), len(mean)))
        drawn = mean + normal @ factor.T
        rows[start : start + step] = unit_rows(drawn)
    return rows


def unit_rows(rows: Float64) -> Float32:
    """Rows scaled to norm 1 in float64, then rounded to float32: within the tolerance of a template."""
    scaled = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return np.ascontiguousarray(scaled, dtype=np.float32)
