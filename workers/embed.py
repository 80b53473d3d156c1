"""From aligned crops to templates: embed, average with the mirrored crop, normalise, check."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from homeward.errors import TemplateInvalid
from homeward.types import Float32
from workers.model import Embedder

_CHUNK = 64  # crops of one call of the net: bounds its memory (150 px: about 20 MB a crop)
_SMALLEST_NORM = 1e-6


@torch.inference_mode()
def embed(embedder: Embedder, crops: Tensor, *, mirror: bool) -> list[Float32 | TemplateInvalid]:
    """Templates (d,) float32 of norm 1 within 1e-6, in the order of `crops` (n, 3, S, S) 0..255.

    With `mirror`, the vectors of the crop and of its mirror image are averaged first. A vector that is
    zero or not finite is the error of its own crop alone.
    """
    vectors = [_vectors(embedder, chunk, mirror=mirror) for chunk in torch.split(crops, _CHUNK)]
    if not len(crops):
        return []
    return [_template(row) for row in torch.cat(vectors).double().cpu().numpy()]


def _vectors(embedder: Embedder, crops: Tensor, *, mirror: bool) -> Tensor:
    """(n, d) float32, not normalised; both views go through the net as one batch."""
    if not mirror or not len(crops):
        return embedder.embed(crops)
    both = embedder.embed(torch.cat((crops, crops.flip(3))))
    return (both[: len(crops)] + both[len(crops) :]) / 2


def _template(vector: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Float32 | TemplateInvalid:
    norm = float(np.linalg.norm(vector))
    if not np.isfinite(norm) or norm < _SMALLEST_NORM:
        return TemplateInvalid(
            "the face gave no template (its vector is zero or not finite); try another photo of it"
        )
    return (vector / norm).astype(np.float32)
