"""A decoded photo that lies on the model's device already."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from homeward.types import UInt8

_SMALL_PX = 256


@dataclass(frozen=True, slots=True)
class DevicePhoto:
    """What `workers.decode.DecodedPhoto` is, but on the device."""

    planes: Tensor  # (3, H, W) uint8 RGB, upright
    width: int  # of the upright photo at full size
    height: int
    media_type: str
    sha256: str  # of the photo's bytes, 64 hex digits


def small_pixels(planes: Tensor) -> UInt8:
    """(h, w, 3) uint8 on the CPU: averages of squares, the shorter side 256 to 511 pixels; of a photo that is
    smaller than that, its pixels. For what needs no more, such as hashes: a photo takes long to copy back."""
    factor = min(planes.shape[1:]) // _SMALL_PX
    if factor > 1:
        averages = torch.nn.functional.avg_pool2d(planes[None].to(torch.float32), factor)[0]
        planes = averages.round().to(torch.uint8)
    pixels: UInt8 = np.ascontiguousarray(planes.permute(1, 2, 0).cpu().numpy())
    return pixels


def turned(planes: Tensor, orientation: int) -> Tensor:
    """(3, h, w) as stored -> (3, H, W) as seen: `workers.decode_modes.upright` for tensors."""
    if orientation in (2, 3, 7, 8):
        planes = planes.flip(2)
    if orientation in (3, 4, 6, 7):
        planes = planes.flip(1)
    if orientation in (5, 6, 7, 8):
        planes = planes.transpose(1, 2)
    return planes
