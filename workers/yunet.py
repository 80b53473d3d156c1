"""YuNet-style detection: priors at every stride, a pyramid of few levels, one batched NMS.

Decoding follows the network's published head (W. Wu, H. Peng and S. Yu, "YuNet: A Tiny
Millisecond-level Face Detector", 2023): at the cell (row r, column c) of stride s, the score is class
times object score, the box centre is ((c + dx) s, (r + dy) s), its size (exp(dw) s, exp(dh) s),
and landmark i lies at ((c + kx_i) s, (r + ky_i) s), in pixels of the image the network saw.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F  # noqa: N812 - its usual name
from torchvision.ops import batched_nms

from homeward.errors import NotSupported
from workers.bundle import DetectorSpec
from workers.model import Detections
from workers.network import Network, Preprocess

_CANDIDATES = 4096  # kept per photo and level before NMS, best first
_RUN_PIXELS = {"cpu": 1 << 20, "cuda": 1 << 25}  # of one run of the network, padding included


@dataclass(frozen=True, slots=True)
class Level:
    """One working size of one photo: scaled to (height, width), padded to the canvas."""

    height: int
    width: int
    canvas: tuple[int, int]  # height, width


def pyramid(
    height: int, width: int, min_face_px: int, spec: DetectorSpec, working_px: int = 1024
) -> tuple[Level, ...]:
    """Working sizes for a photo of height x width pixels.

    The finest shows faces of `min_face_px` at the network's smallest size; a small photo keeps its
    own resolution, which places landmarks better, and none is enlarged beyond what its smallest
    faces need, nor to a longest side beyond `working_px`: of a photo larger than that, the smallest face
    found grows with it. Coarser levels (each a quarter the side) follow until a face that fills the photo
    is no larger than the network's largest. The canvas depends on the photo alone, never on its
    batch, so that borders look the same in every batch.
    """
    needed = spec.smallest_face_px / min_face_px
    roomy = spec.largest_face_px / max(height, width)
    scale = min(max(needed, min(1.0, roomy)), working_px / max(height, width))
    levels = [_level(height, width, scale, spec.multiple)]
    whole = spec.largest_face_px / min(height, width)
    while scale > 1.5 * whole:
        scale = max(scale / 4, whole)
        levels.append(_level(height, width, scale, spec.multiple))
    return tuple(levels)


def _level(height: int, width: int, scale: float, multiple: int) -> Level:
    rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
    return Level(rows, columns, (_canvas(rows, multiple), _canvas(columns, multiple)))


def _canvas(side: int, multiple: int) -> int:
    """Round up to `multiple`, in coarser steps for long sides (an eighth at most), so that photos of
    nearly one size share a run."""
    step = max(multiple, (1 << (max(side, 1).bit_length() - 1)) // 8)
    step = math.ceil(step / multiple) * multiple
    return math.ceil(side / step) * step


def decode_level(
    outputs: Sequence[Sequence[torch.Tensor]], strides: Sequence[int], canvas: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Read the network's answer for n images of one canvas.

    outputs: per stride the four tensors of `DetectorSpec`. Returns scores (n, a), boxes (n, a, 4) as
    x1, y1, x2, y2 and landmarks (n, a, 5, 2), float32 pixels of the canvas; a = all strides' cells.
    """
    scores, boxes, landmarks = [], [], []
    for stride, (cls, obj, box, points) in zip(strides, outputs, strict=True):
        rows, columns = canvas[0] // stride, canvas[1] // stride
        grid_y, grid_x = torch.meshgrid(
            torch.arange(rows, device=box.device, dtype=torch.float32),
            torch.arange(columns, device=box.device, dtype=torch.float32),
            indexing="ij",
        )
        cells = torch.stack((grid_x, grid_y), dim=-1).reshape(1, -1, 2)  # (1, rc, 2) x, y
        batch, count = box.shape[0], cells.shape[1]
        if box.shape != (batch, count, 4) or points.shape != (batch, count, 10):
            raise NotSupported(
                f"the detector's outputs at stride {stride} do not have the layout it declares"
            )
        scores.append((cls.float().clamp(0, 1) * obj.float().clamp(0, 1)).reshape(batch, count))
        centre = (cells + box[..., :2].float()) * stride
        half = box[..., 2:].float().clamp(max=10).exp() * (stride / 2)
        boxes.append(torch.cat((centre - half, centre + half), dim=-1))
        offsets = points.float().reshape(batch, count, 5, 2)
        landmarks.append((cells[:, :, None] + offsets) * stride)
    return torch.cat(scores, dim=1), torch.cat(boxes, dim=1), torch.cat(landmarks, dim=1)


class YunetDetector:
    """A `Detector` over a network with YuNet's head."""

    def __init__(
        self,
        network: Network,
        spec: DetectorSpec,
        device: torch.device,
        dtype: torch.dtype,
        *,
        working_px: int = 1024,
    ) -> None:
        self._spec = spec
        self._working_px = working_px
        self._device = device
        wanted = [name.replace("{stride}", str(stride)) for stride in spec.strides for name in spec.outputs]
        missing = [name for name in wanted if name not in network.outputs]
        if missing:
            raise NotSupported(f"the detector has no output {', '.join(missing)}")
        self._order = [network.outputs.index(name) for name in wanted]
        self._network = network
        network.place(device, dtype)
        self._prepare = Preprocess(spec, device, dtype)

    @torch.inference_mode()
    def detect(self, photos: Sequence[torch.Tensor], min_face_px: int) -> list[Detections]:
        """See `workers.model.Detector`. Faces whose longer box side is below `min_face_px` are left out."""
        if not photos:
            return []
        runs: dict[tuple[int, int], list[tuple[int, Level]]] = defaultdict(list)
        for number, photo in enumerate(photos):
            for level in pyramid(photo.shape[1], photo.shape[2], min_face_px, self._spec, self._working_px):
                runs[level.canvas].append((number, level))
        found: list[tuple[torch.Tensor, ...]] = []
        for canvas, jobs in runs.items():
            limit = max(1, _RUN_PIXELS[self._device.type] // (canvas[0] * canvas[1]))
            for start in range(0, len(jobs), limit):
                found.extend(self._run(photos, jobs[start : start + limit], canvas))
        return self._merge(found, len(photos), min_face_px)

    def _run(
        self, photos: Sequence[torch.Tensor], jobs: Sequence[tuple[int, Level]], canvas: tuple[int, int]
    ) -> list[tuple[torch.Tensor, ...]]:
        """One run of the network; per job (photo number (m,), scores, boxes, landmarks in the photo)."""
        batch = torch.zeros((len(jobs), 3, *canvas), device=self._device)
        for row, (number, level) in enumerate(jobs):
            batch[row, :, : level.height, : level.width] = _resized(photos[number], level)
        answer = self._network(self._prepare(batch))
        parts = [answer[index] for index in self._order]
        per_stride = [parts[start : start + 4] for start in range(0, len(parts), 4)]
        scores, boxes, landmarks = decode_level(per_stride, self._spec.strides, canvas)
        best, order = scores.topk(min(_CANDIDATES, scores.shape[1]), dim=1)
        results: list[tuple[torch.Tensor, ...]] = []
        for row, (number, level) in enumerate(jobs):
            kept = order[row][best[row] >= self._spec.score_threshold]
            _, height, width = photos[number].shape
            ratio = torch.tensor([width / level.width, height / level.height], device=self._device)
            numbers = torch.full((len(kept),), number, device=self._device)
            box = boxes[row, kept] * ratio.repeat(2)
            results.append((numbers, scores[row, kept], box, landmarks[row, kept] * ratio))
        return results

    def _merge(
        self, found: list[tuple[torch.Tensor, ...]], photos: int, min_face_px: int
    ) -> list[Detections]:
        """NMS over all levels of each photo, all photos at once."""
        numbers, scores, boxes, landmarks = (torch.cat(part) for part in zip(*found, strict=True))
        kept = batched_nms(boxes, scores, numbers, self._spec.nms_iou)
        sides = boxes[:, 2:] - boxes[:, :2]
        usable = torch.isfinite(landmarks).all(dim=(1, 2)) if len(landmarks) else numbers.bool()
        kept = kept[((sides.amax(dim=1) >= min_face_px) & usable)[kept]]
        xywh = torch.cat((boxes[:, :2], sides), dim=1)
        detections = []
        for number in range(photos):
            mine = kept[numbers[kept] == number]
            detections.append(Detections(boxes=xywh[mine], landmarks=landmarks[mine], scores=scores[mine]))
        return detections


def _resized(photo: torch.Tensor, level: Level) -> torch.Tensor:
    """(3, H, W) uint8 -> (3, h, w) float32 0..255, antialiased."""
    if photo.shape[1:] == (level.height, level.width):
        return photo.float()
    image = photo[None] if photo.device.type == "cpu" else photo[None].float()
    size = (level.height, level.width)
    return F.interpolate(image, size=size, mode="bilinear", antialias=True)[0].float()
