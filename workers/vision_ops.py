"""torchvision's compiled operators, without its Python package: that imports every model and torch's
compiler, which takes seconds in each process that starts.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_RGB = 3  # torchvision.io.ImageReadMode.RGB


def nms(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Indices (int64, by falling score) of those boxes (n, 4) x1, y1, x2, y2 that overlap no better one by
    more than `threshold` (intersection over union). Scores are (n,)."""
    _operators("_C")
    kept: Tensor = torch.ops.torchvision.nms(boxes, scores, threshold)
    return kept


def decode_jpeg(encoded: Tensor) -> Tensor:
    """(3, H, W) uint8 RGB of a JPEG's bytes ((n,) uint8 on the CPU); not turned as EXIF says. Raises
    `RuntimeError` for what libjpeg refuses."""
    _operators("image")
    planes: Tensor = torch.ops.image.decode_jpeg(encoded, _RGB, False)
    return planes


@cache
def _operators(library: str) -> None:
    """Register the operators of one of torchvision's libraries."""
    spec: Any = importlib.util.find_spec("torchvision")
    folder = Path(spec.submodule_search_locations[0])
    file = folder / f"{library}.so"
    if file.is_file():
        torch.ops.load_library(str(file))  # type: ignore[no-untyped-call]
    else:  # built otherwise than the wheels are: the package knows where
        importlib.import_module("torchvision.io" if library == "image" else "torchvision")
