"""Aligned crops: one similarity warp per face, batched over all faces of all photos.

Coordinates are continuous (pixel i covers [i, i + 1)), in photos and in crops alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - torch's customary name
from torch import Tensor

from workers.mips import halved
from workers.model import CropSpec

_ROWS_AT_ONCE = 5  # a crop is sampled in so many strips, which are what the CPU's threads share out


def similarities(landmarks: Tensor, points: Tensor) -> Tensor:
    """Least-squares similarities from `landmarks` (n, m, 2) to `points` (m, 2), as (n, 2, 3) float64.

    Umeyama, "Least-squares estimation of transformation parameters between two point patterns", 1991,
    without reflection. In the plane, with points as complex numbers, it is one quotient. Landmarks that
    all coincide give non-finite matrices.
    """
    source, target = landmarks.double(), points.double()
    source_mean, target_mean = source.mean(dim=1, keepdim=True), target.mean(dim=0)
    p, q = source - source_mean, target - target_mean
    spread = p.square().sum(dim=(1, 2))
    real = (p * q).sum(dim=(1, 2)) / spread
    imaginary = (p[..., 0] * q[..., 1] - p[..., 1] * q[..., 0]).sum(dim=1) / spread
    turn = torch.stack((real, -imaginary, imaginary, real), dim=1).view(-1, 2, 2)
    shift = target_mean[:, None] - turn @ source_mean.transpose(1, 2)
    return torch.cat((turn, shift), dim=2)


def align(photos: Sequence[Tensor], owner: Tensor, landmarks: Tensor, crop: CropSpec) -> Tensor:
    """Crops (n, 3, S, S) float32 0..255 with the landmarks on the crop's points.

    photos: (3, H, W) uint8 RGB on one device; owner: (n,) int64, the photo of each face; landmarks:
    (n, 5, 2) pixels of that photo. What lies outside a photo is black. Each face is sampled bilinearly
    from its photo halved until 1 to 2 pixels make one of the crop. Non-finite landmarks give NaN crops.
    """
    points = torch.tensor(crop.points, dtype=torch.float64, device=landmarks.device)
    to_crop = similarities(landmarks, points)
    crops = torch.full((len(landmarks), 3, crop.size, crop.size), torch.nan, device=landmarks.device)
    usable = torch.isfinite(to_crop).flatten(1).all(dim=1) & (to_crop[:, :, :2].det() > 0)
    to_photo = _inverse(to_crop)
    zoom = to_photo[:, 0, :2].norm(dim=1)  # photo pixels per crop pixel
    level = torch.where(usable, torch.log2(zoom).floor(), 0.0).clamp(0, 16).long()
    where = torch.stack((owner, level), dim=1)
    for photo, halvings in torch.unique(where[usable], dim=0).tolist():
        rows = torch.nonzero(usable & (owner == photo) & (level == halvings)).flatten()
        crops[rows] = _sample(photos[photo], to_photo[rows], crop.size, halvings)
    return crops


def _inverse(matrices: Tensor) -> Tensor:
    """Inverses of similarities (n, 2, 3), in closed form."""
    turn, shift = matrices[:, :, :2], matrices[:, :, 2:]
    back = turn.transpose(1, 2) / turn.det()[:, None, None]
    return torch.cat((back, -back @ shift), dim=2)


def _sample(photo: Tensor, to_photo: Tensor, size: int, halvings: int) -> Tensor:
    """Crops (k, 3, size, size) of one photo, all from the same level."""
    step = 2**halvings
    corners = torch.tensor(
        ((0, 0, 1), (size, 0, 1), (0, size, 1), (size, size, 1)), dtype=torch.float64, device=photo.device
    )
    reach = (corners @ to_photo.transpose(1, 2)).flatten(0, 1)
    height, width = photo.shape[1:]
    low = ((reach.amin(dim=0) / step).floor().long() - 2) * step
    high = ((reach.amax(dim=0) / step).ceil().long() + 2) * step
    left, top = (max(0, int(value)) for value in low)
    right, bottom = min(width, int(high[0])), min(height, int(high[1]))
    if right - left < step or bottom - top < step:
        return torch.zeros((len(to_photo), 3, size, size), device=photo.device)
    image = photo[None, :, top:bottom, left:right]
    for _ in range(halvings):
        image = halved(image)
    origin = torch.tensor((left, top), dtype=torch.float64, device=photo.device)
    matrix = torch.cat((to_photo[:, :, :2], (to_photo[:, :, 2] - origin)[:, :, None]), dim=2) / step
    return _grid_sample(image[0].float().contiguous(), matrix, size)


def _grid_sample(image: Tensor, matrix: Tensor, size: int) -> Tensor:
    """image (3, h, w) float32; matrix (k, 2, 3): crop pixels to image pixels. (k, 3, size, size)."""
    height, width = image.shape[1:]
    scale = torch.tensor((2 / width, 2 / height), dtype=torch.float64, device=image.device)
    matrix = (matrix * scale[:, None]).float()
    centre = torch.arange(size, dtype=torch.float32, device=image.device) + 0.5
    grid = (
        centre[None, None, :, None] * matrix[:, None, None, :, 0]
        + centre[None, :, None, None] * matrix[:, None, None, :, 1]
        + matrix[:, None, None, :, 2]
        - 1
    )
    strips = _ROWS_AT_ONCE if size % _ROWS_AT_ONCE == 0 else 1
    grid = grid.view(-1, size // strips, size, 2)
    crops = F.grid_sample(
        image.expand(len(grid), -1, -1, -1), grid, mode="bilinear", padding_mode="zeros", align_corners=False
    )
    crops = crops.view(len(matrix), strips, 3, size // strips, size)
    return crops.transpose(1, 2).reshape(len(matrix), 3, size, size)
