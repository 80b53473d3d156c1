"""Parts of photos, padded to a common size, so that one bilinear sampling serves all of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812 - torch's customary name
from torch import Tensor

_MOST_VALUES = 1 << 24  # of the padded parts of one call: 64 MiB


def sample(parts: Sequence[Tensor], to_part: Tensor, size: int, *, less: float = 0.0) -> Tensor:
    """Crops (n, 3, size, size) float32, less `less`: part i sampled bilinearly where to_part[i] says.

    parts: n of (3, h, w) uint8, each of its own size, perhaps empty; to_part: (n, 2, 3) float64, from
    pixels of the crop to pixels of the part. Outside a part is 0. How far a part is padded follows from
    its own size alone, so that no crop depends on its neighbours in the batch.
    """
    runs = [
        (frame, rows[start : start + at_once])
        for frame, rows in _by_frame(parts, size * 3 // 2).items()
        for at_once in (max(1, _MOST_VALUES // (3 * frame[0] * frame[1])),)
        for start in range(0, len(rows), at_once)
    ]
    if len(runs) == 1 and len(runs[0][1]) == len(parts):
        return _sample(parts, to_part, size, runs[0][0], less)
    crops = torch.zeros((len(parts), 3, size, size), device=to_part.device)
    for frame, rows in runs:
        place = torch.tensor(rows, device=to_part.device)
        crops[place] = _sample([parts[row] for row in rows], to_part[place], size, frame, less)
    return crops


def _sample(
    parts: Sequence[Tensor], to_part: Tensor, size: int, frame: tuple[int, int], less: float
) -> Tensor:
    """As `sample`, of parts that are padded to one frame."""
    height, width = frame
    # `grid_sample` wants -1 to 1 across its input.
    matrix = to_part * to_part.new_tensor((2 / width, 2 / height))[:, None]
    centre = torch.arange(size, dtype=torch.float64, device=to_part.device) + 0.5
    along_row = (centre * matrix[:, :, :1]).float()  # (n, 2, size): what a pixel's column adds
    down = (centre * matrix[:, :, 1:2] + matrix[:, :, 2:] - 1).float()  # and its row
    grid = torch.empty((len(parts), size, size, 2), device=to_part.device)
    for axis in range(2):
        torch.add(along_row[:, axis, None, :], down[:, axis, :, None], out=grid[..., axis])
    return F.grid_sample(_padded(parts, height, width, less), grid, mode="bilinear", align_corners=False)


def _padded(parts: Sequence[Tensor], height: int, width: int, less: float) -> Tensor:
    """(m, 3, height, width) float32 less `less`, 0 beyond each part."""
    padded = torch.full((len(parts), 3, height, width), less, device=parts[0].device)
    for row, part in zip(padded, parts, strict=True):
        row[:, : part.shape[1], : part.shape[2]] = part
    return padded.sub_(less) if less else padded


def _by_frame(parts: Sequence[Tensor], least_px: int) -> dict[tuple[int, int], list[int]]:
    """Positions of the parts that are not empty, by the height and width to which they are padded."""
    rows: dict[tuple[int, int], list[int]] = defaultdict(list)
    for position, part in enumerate(parts):
        _, height, width = part.shape
        if height and width:
            rows[_padded_side(height, least_px), _padded_side(width, least_px)].append(position)
    return rows


def _padded_side(side: int, least_px: int) -> int:
    """`least_px`, or the next step: an eighth to a quarter of the side, so that few sizes occur."""
    if side <= least_px:
        return least_px
    step = 1 << (side.bit_length() - 3)
    return -(-side // step) * step
