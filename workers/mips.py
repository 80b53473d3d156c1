"""Photos at halved sizes (a mip pyramid, 8-bit), and square crops out of them at the size that fits.

Halving 8-bit pixels costs a quarter of the memory traffic of floats, and that traffic is what large
photos cost; floats are made only of the levels that somebody looks at.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - torch's customary name
from torch import Tensor

_SMALLEST_SIDE = 12  # halving stops before a side falls below this
_MOST_LEVELS = 15
_ENOUGH = 0.8  # of a crop's pixels must be on the level it is taken from
GREY = 127.5  # taken off every pixel, so that 0 is what lies outside a photo


def halved(images: Tensor) -> Tensor:
    """(b, 3, h, w) uint8 -> (b, 3, h // 2, w // 2): means of 2x2. An odd last row or column is dropped.

    Pixel (x, y) of the input is shown at (x, y) / 2.
    """
    height, width = images.shape[2] // 2, images.shape[3] // 2
    return _resized(images[:, :, : 2 * height, : 2 * width], height, width, antialias=False)


class Group:
    """Photos of one batch that have equal size. Level i is 2^i times smaller."""

    def __init__(self, members: Sequence[int], photos: Sequence[Tensor]) -> None:
        """members: positions in the batch; photos: (3, H, W) uint8, all of one size."""
        self.members = tuple(members)
        self.height, self.width = photos[0].shape[1:]
        self._photos = photos
        self._bytes: dict[int, Tensor] = {}
        levels = 1
        while min(self.height, self.width) >> levels >= _SMALLEST_SIDE:
            levels += 1
        self.levels = levels

    def resized(self, height: int, width: int) -> Tensor:
        """All photos less GREY at (b, 3, height, width) float32, antialiased."""
        level = 0
        while level + 1 < self.levels and self._covers(level + 1, height, width):
            level += 1
        return _resized(self._level(level), height, width, antialias=True).float().sub_(GREY)

    def region(self, member: int, level: int, box: tuple[int, int, int, int]) -> Tensor:
        """Part x1, y1, x2, y2 of one photo at one level, less GREY: (3, y2 - y1, x2 - x1) float32."""
        left, top, right, bottom = box
        whole = self._photos[member] if level == 0 else self._level(level)[member]
        return torch.sub(whole[:, top:bottom, left:right], GREY).contiguous()

    def size_at(self, level: int) -> tuple[int, int]:
        """Width and height."""
        return self.width >> level, self.height >> level

    def _covers(self, level: int, height: int, width: int) -> bool:
        return self.height >> level >= height and self.width >> level >= width

    def _level(self, level: int) -> Tensor:
        if level not in self._bytes:
            if level == 0:
                self._bytes[level] = _stacked(self._photos)
            elif level == 1:  # the photos themselves are seldom needed as one tensor
                self._bytes[level] = _stacked([halved(photo[None])[0] for photo in self._photos])
            else:
                self._bytes[level] = halved(self._level(level - 1))
        return self._bytes[level]


def group_by_size(photos: Sequence[Tensor]) -> list[Group]:
    """Group (3, H, W) uint8 photos of equal size, in the order in which the sizes appear."""
    by_size: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for position, photo in enumerate(photos):
        by_size[tuple(photo.shape)].append(position)
    return [Group(members, [photos[member] for member in members]) for members in by_size.values()]


def crop_squares(groups: Sequence[Group], photo: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Crops (n, 3, size, size) float32, less GREY, of `boxes` (n, 4) x1, y1, x2, y2 of `photo` (n,).

    Each is sampled bilinearly from the smallest level that has enough pixels for it; outside the photo
    is 0. `photo` is sorted.
    """
    crops = boxes.new_zeros((len(boxes), 3, size, size))
    sides = (boxes[:, 2] - boxes[:, 0]).clamp(min=1)
    level = torch.log2(sides / (_ENOUGH * size)).floor().clamp(0, _MOST_LEVELS)
    place = {photo: (group, slot) for group in groups for slot, photo in enumerate(group.members)}
    order = torch.argsort(photo * (_MOST_LEVELS + 1) + level.long(), stable=True)
    runs, counts = torch.unique_consecutive(
        torch.stack((photo[order], level.long()[order]), dim=1), dim=0, return_counts=True
    )
    for (member, wanted), rows in zip(runs.tolist(), torch.split(order, counts.tolist()), strict=True):
        group, slot = place[member]
        index = min(wanted, group.levels - 1)
        crops[rows] = _sample(group, slot, index, boxes[rows] / 2**index, size)
    return crops


def _sample(group: Group, slot: int, level: int, boxes: Tensor, size: int) -> Tensor:
    """Crops of one photo at one level, from the part of it that the boxes (k, 4) touch."""
    width, height = group.size_at(level)
    x1, y1 = (boxes[:, :2].amin(dim=0).floor() - 1).long().clamp(min=0).tolist()
    x2, y2 = (boxes[:, 2:].amax(dim=0).ceil() + 1).long().tolist()
    x2, y2 = min(x2, width), min(y2, height)
    if x2 <= x1 or y2 <= y1:
        return boxes.new_zeros((len(boxes), 3, size, size))
    image = group.region(slot, level, (x1, y1, x2, y2))
    centres = (torch.arange(size, dtype=torch.float32, device=boxes.device) + 0.5) / size
    across = boxes[:, 0:1] - x1 + (boxes[:, 2:3] - boxes[:, 0:1]) * centres
    down = boxes[:, 1:2] - y1 + (boxes[:, 3:4] - boxes[:, 1:2]) * centres
    grid = torch.stack(
        (
            (across * (2 / (x2 - x1)) - 1)[:, None, :].expand(-1, size, -1),
            (down * (2 / (y2 - y1)) - 1)[:, :, None].expand(-1, -1, size),
        ),
        dim=3,
    )
    return F.grid_sample(image.expand(len(boxes), -1, -1, -1), grid, align_corners=False)


def _stacked(photos: Sequence[Tensor]) -> Tensor:
    """(b, 3, h, w) in channels_last order, which is how decoders lay pixels out."""
    if len(photos) == 1:
        return photos[0][None].contiguous(memory_format=torch.channels_last)
    return torch.stack([photo.permute(1, 2, 0) for photo in photos]).permute(0, 3, 1, 2)


def _resized(images: Tensor, height: int, width: int, *, antialias: bool) -> Tensor:
    """Bilinear; 8 bits in and out on every device."""
    if images.shape[2:] == (height, width):
        return images
    source = images if images.device.type == "cpu" else images.float()  # CUDA has no 8-bit kernel
    result = F.interpolate(
        source, size=(height, width), mode="bilinear", align_corners=False, antialias=antialias
    )
    return result if result.dtype == torch.uint8 else result.round_().clamp_(0, 255).to(torch.uint8)
