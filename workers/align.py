"""Aligned crops: one similarity warp per face, batched over all faces of all photos.

Coordinates are continuous (pixel i covers [i, i + 1)), in photos and in crops alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from workers.mips import halved
from workers.model import CropSpec
from workers.sampling import sample

_MOST_HALVINGS = 16


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
    shape = (len(landmarks), 3, crop.size, crop.size)
    points = torch.tensor(crop.points, dtype=torch.float64, device=landmarks.device)
    to_crop = similarities(landmarks, points)
    usable = torch.isfinite(to_crop).flatten(1).all(dim=1) & (to_crop[:, :, :2].det() > 0)
    rows = torch.nonzero(usable).flatten()
    if not len(rows):
        return torch.full(shape, torch.nan, device=landmarks.device)
    crops = _sampled(photos, owner[rows], _inverse(to_crop[rows]), crop.size)
    if len(rows) == len(landmarks):
        return crops
    return torch.full(shape, torch.nan, device=landmarks.device).index_copy_(0, rows, crops)


def _sampled(photos: Sequence[Tensor], owner: Tensor, to_photo: Tensor, size: int) -> Tensor:
    """Crops (n, 3, size, size); to_photo: (n, 2, 3) float64, crop pixels to pixels of the face's photo."""
    zoom = to_photo[:, 0, :2].norm(dim=1)  # photo pixels per crop pixel
    halvings = torch.log2(zoom).floor().clamp(0, _MOST_HALVINGS)
    step = torch.exp2(halvings)[:, None]
    corners = to_photo.new_tensor(((0, 0, 1), (size, 0, 1), (0, size, 1), (size, size, 1)))
    reach = corners @ to_photo.transpose(1, 2)  # (n, 4, 2)
    frames = to_photo.new_tensor([(photo.shape[2], photo.shape[1]) for photo in photos])[owner]
    low = (((reach.amin(dim=1) / step).floor() - 2) * step).clamp(min=0).minimum(frames)
    high = (((reach.amax(dim=1) / step).ceil() + 2) * step).minimum(frames).maximum(low)
    windows = torch.cat((owner[:, None].double(), halvings[:, None], low, high), dim=1).long()
    parts = [
        _shrunk(photos[photo][:, top:bottom, left:right], times)
        for photo, times, left, top, right, bottom in windows.tolist()
    ]
    shift = to_photo[:, :, 2:] - low[:, :, None]
    return sample(parts, torch.cat((to_photo[:, :, :2], shift), dim=2) / step[:, :, None], size)


def _shrunk(part: Tensor, halvings: int) -> Tensor:
    """(3, h, w) uint8 halved so often; empty when nothing is left."""
    if not halvings:
        return part
    if min(part.shape[1:]) >> halvings == 0:
        return part[:, :0, :0]
    image = part[None]
    for _ in range(halvings):
        image = halved(image)
    return image[0]


def _inverse(matrices: Tensor) -> Tensor:
    """Inverses of similarities (n, 2, 3), in closed form."""
    turn, shift = matrices[:, :, :2], matrices[:, :, 2:]
    back = turn.transpose(1, 2) / turn.det()[:, None, None]
    return torch.cat((back, -back @ shift), dim=2)
