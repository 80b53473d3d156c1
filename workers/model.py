"""The seam between the pipeline and a face model: a detector and an embedder in torch.

The default model and every installed bundle implement these two protocols, nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch


@dataclass(frozen=True, slots=True)
class Detections:
    """Faces of one photo, unordered, in pixels of the photo that was given.

    boxes (n, 4) float32 x, y, width, height; landmarks (n, 5, 2) float32 x, y in the order image-left
    eye, image-right eye, nose, image-left mouth corner, image-right mouth corner; scores (n,) 0..1.
    """

    boxes: torch.Tensor
    landmarks: torch.Tensor
    scores: torch.Tensor


@dataclass(frozen=True, slots=True)
class CropSpec:
    """The aligned crop an embedder wants: `size` x `size` pixels with the five landmarks at `points`."""

    size: int
    points: tuple[tuple[float, float], ...]  # 5 x (x, y), pixels of the crop


class Detector(Protocol):
    """Finds faces. Must give the same faces for a photo alone and in a batch."""

    def detect(self, photos: Sequence[torch.Tensor], min_face_px: int) -> list[Detections]:
        """photos: (3, H, W) uint8 RGB on the model's device, each of its own size."""
        ...


class Embedder(Protocol):
    """Turns aligned crops into vectors."""

    model_id: str  # names weights, preprocessing and alignment: templates of two ids never meet
    dimension: int
    crop: CropSpec

    def embed(self, crops: torch.Tensor) -> torch.Tensor:
        """(n, 3, S, S) float32 RGB 0..255 -> (n, d) float32, before normalisation."""
        ...


@dataclass(frozen=True, slots=True)
class FaceModel:
    """What the pipeline runs: one detector, one embedder, on one device."""

    name: str  # "default", or the bundle's name
    detector: Detector
    embedder: Embedder
    device: torch.device
    mirror: bool = True  # average with the mirrored crop's vector, then normalise

    @property
    def model_id(self) -> str:
        """Id that every template of this model carries."""
        return self.embedder.model_id
