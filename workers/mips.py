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

from workers.sampling import sample

_SMALLEST_SIDE = 12  # halving stops before a side falls below this
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

    def level(self, level: int, member: int) -> Tensor:
        """One photo at one level: (3, h, w) uint8."""
        return self._photos[member] if level == 0 else self._level(level)[member]

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
    is 0.
    """
    if not len(boxes):
        return boxes.new_zeros((0, 3, size, size))
    place = {photo: (group, slot) for group in groups for slot, photo in enumerate(group.members)}
    groups_of = [place[member] for member in photo.tolist()]
    limits = boxes.new_tensor([(group.width, group.height, group.levels - 1) for group, _ in groups_of])
    sides = (boxes[:, 2] - boxes[:, 0]).clamp(min=1)
    level = torch.log2(sides / (_ENOUGH * size)).floor().clamp(min=0).minimum(limits[:, 2])
    shrunk = torch.exp2(level)[:, None]
    boxes = boxes / shrunk
    low = (boxes[:, :2].floor() - 1).clamp(min=0)
    high = (boxes[:, 2:].ceil() + 1).minimum((limits[:, :2] / shrunk).floor()).maximum(low)
    windows = torch.cat((level[:, None], low, high), dim=1).long().tolist()
    parts = [
        group.level(index, slot)[:, top:bottom, left:right]
        for (group, slot), (index, left, top, right, bottom) in zip(groups_of, windows, strict=True)
    ]
    corner, zoom = (boxes[:, :2] - low).double(), ((boxes[:, 2:] - boxes[:, :2]) / size).double()
    return sample(parts, torch.cat((torch.diag_embed(zoom), corner[:, :, None]), dim=2), size, less=GREY)


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
