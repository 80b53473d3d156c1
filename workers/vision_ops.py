"""torchvision's compiled operator, without its Python package: that imports every model and torch's
compiler, which takes seconds in each process that starts.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def nms(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Indices (int64, by falling score) of those boxes (n, 4) x1, y1, x2, y2 that overlap no better one by
    more than `threshold` (intersection over union). Scores are (n,)."""
    _load_operators()
    kept: Tensor = torch.ops.torchvision.nms(boxes, scores, threshold)
    return kept


@cache
def _load_operators() -> None:
    spec: Any = importlib.util.find_spec("torchvision")
    file = Path(spec.submodule_search_locations[0]) / "_C.so"
    if file.is_file():
        torch.ops.load_library(str(file))  # type: ignore[no-untyped-call]
    else:  # built otherwise than the wheels are: the package knows where
        importlib.import_module("torchvision")
