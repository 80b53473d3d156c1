"""Faces in photos by MTCNN's cascade, batched over the photos and over their candidates.

Coordinates are continuous (pixel i covers [i, i + 1)). Boxes inside this module are float32
(n, 4) x1, y1, x2, y2 in pixels of their photo. Every decision is made per photo, in an order that
its batch cannot change.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - torch's customary name
from torch import Tensor

from workers.mips import Group, crop_squares, group_by_size
from workers.model import Detections
from workers.mtcnn import ONET_SIZE, PNET_STRIDE, PNET_WINDOW, RNET_SIZE, MtcnnNets
from workers.vision_ops import nms

FACE_PX = 40  # what the smallest face measures when a photo is shrunk to the longest side allowed
_SCALE_STEP = 0.709  # between the sizes of face P-net is shown: about half the area
_LARGEST_FACE = 1.3  # in longest sides of the photo: the frame may cut the face
_PAD_BELOW_PX = 40  # P-net inputs smaller than this are padded, so that faces may reach past the frame
_PAD_PX = PNET_WINDOW // 2
_PNET_SCORE, _RNET_SCORE, _ONET_SCORE = 0.6, 0.7, 0.8
_NMS_WITHIN_SCALE, _NMS = 0.5, 0.7
_MAX_PROPOSALS = 2000  # of one photo: noise that looks like thousands of faces costs no more
_SPREAD = 128  # pixels less grey are divided by this
_PNET_PIXELS = 1 << 18  # of one P-net call on a CPU
_CHUNK = 512  # crops of one R-net or O-net call
_APART = 2.0**20  # pixels between the frames of different photos and scales in one suppression


@dataclass(frozen=True, slots=True)
class _Found:
    """Boxes of all photos, sorted by photo, then by score descending."""

    photo: Tensor  # (n,) int64, position in the batch
    box: Tensor  # (n, 4) float32
    score: Tensor  # (n,) float32

    def pick(self, rows: Tensor) -> _Found:
        return _Found(self.photo[rows], self.box[rows], self.score[rows])


class MtcnnDetector:
    """The default `Detector`.

    `working_px` caps the work on large photos: a photo whose longest side is longer is searched as if
    it were shrunk to it first, so that its smallest face found grows (`smallest_face_px`). `face_px`: the
    smallest face wanted of photos at full size; a photo shrunk at decode is asked for smaller ones.
    """

    def __init__(
        self, nets: MtcnnNets, device: torch.device, *, working_px: int = 1024, face_px: int = FACE_PX
    ) -> None:
        self._nets = nets
        self._device = device
        self._working_px = working_px
        self._face_px = min(face_px, FACE_PX)

    @torch.inference_mode()
    def detect(self, photos: Sequence[Tensor], min_face_px: int) -> list[Detections]:
        """photos: (3, H, W) uint8 RGB on the device, each of its own size; boxes in their pixels."""
        groups = group_by_size(photos)
        found = self._propose(groups, min_face_px)
        found = self._refine(groups, found)
        found, landmarks = self._decide(groups, found)
        faces = []
        for position in range(len(photos)):
            rows = found.photo == position
            box = found.box[rows]
            box = torch.cat((box[:, :2], box[:, 2:] - box[:, :2]), dim=1)
            faces.append(Detections(box, landmarks[rows], found.score[rows]))
        return faces

    def smallest_face_px(self, height: int, width: int, min_face_px: int) -> float:
        """Side of the smallest face looked for in such a photo: `min_face_px`, or more above the cap.

        With working_px 1024 a 1350 px photo is searched for faces from 53 px, a 4000 px one from 157.
        """
        capped = self._face_px * max(height, width) / self._working_px
        return max(float(min_face_px), capped)

    def _propose(self, groups: Sequence[Group], min_face_px: int) -> _Found:
        """P-net over all scales of all photos."""
        photos, boxes, scores, levels = [], [], [], []
        for group in groups:
            members = torch.tensor(group.members, device=self._device)
            smallest = self.smallest_face_px(group.height, group.width, min_face_px)
            for level, scale in enumerate(_scales(PNET_WINDOW / smallest, max(group.height, group.width))):
                member, box, score = self._windows(group, scale)
                photos.append(members[member])
                boxes.append(box)
                scores.append(score)
                levels.append(torch.full_like(member, level))
        if not photos:
            return _Found(
                torch.zeros(0, dtype=torch.int64, device=self._device),
                torch.zeros((0, 4), device=self._device),
                torch.zeros(0, device=self._device),
            )
        found = _Found(torch.cat(photos), torch.cat(boxes), torch.cat(scores))
        order = _best_first(found)
        found, scale_of = found.pick(order), torch.cat(levels)[order]
        found = found.pick(_suppress(found, scale_of, _NMS_WITHIN_SCALE))
        return found.pick(_suppress(found, torch.zeros_like(found.photo), _NMS))

    def _windows(self, group: Group, scale: float) -> tuple[Tensor, Tensor, Tensor]:
        """P-net at one scale: member of the group (n,), box (n, 4), score (n,)."""
        rows, columns = _even(group.height * scale), _even(group.width * scale)
        image = group.resized(rows, columns).div_(_SPREAD)
        pad = _PAD_PX if min(rows, columns) < _PAD_BELOW_PX else 0
        if pad:
            image = F.pad(image, (pad, pad, pad, pad))
        probability, offsets = self._scanned(image.contiguous(memory_format=torch.channels_last))
        member, row, column = torch.nonzero(probability > _PNET_SCORE, as_tuple=True)
        corner = torch.stack((column, row), dim=1).float() * PNET_STRIDE - pad
        window = torch.cat((corner, corner + PNET_WINDOW), dim=1)
        box = window + offsets[member, :, row, column] * PNET_WINDOW
        to_photo = box.new_tensor((group.width / columns, group.height / rows)).repeat(2)
        return member, box * to_photo, probability[member, row, column]

    def _scanned(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """P-net of (b, 3, h, w), in parts that a CPU's caches hold."""
        at_once = len(image) if image.is_cuda else max(1, _PNET_PIXELS // (image.shape[2] * image.shape[3]))
        parts = [self._nets.pnet(part) for part in torch.split(image, at_once)]
        if len(parts) == 1:
            return parts[0]
        probability, offsets = zip(*parts, strict=True)
        return torch.cat(probability), torch.cat(offsets)

    def _refine(self, groups: Sequence[Group], found: _Found) -> _Found:
        """R-net: drops most proposals and moves the rest."""
        square = _square(found.box)
        scores, boxes = [], []
        for rows in _chunks(len(square)):
            crops = crop_squares(groups, found.photo[rows], square[rows], RNET_SIZE).div_(_SPREAD)
            score, offsets = self._nets.rnet(crops.contiguous(memory_format=torch.channels_last))
            scores.append(score)
            boxes.append(_moved(square[rows], offsets))
        if not scores:
            return found
        found = _Found(found.photo, torch.cat(boxes), torch.cat(scores))
        found = found.pick(torch.nonzero(found.score > _RNET_SCORE).flatten())
        found = found.pick(_best_first(found))
        return found.pick(_suppress(found, torch.zeros_like(found.photo), _NMS))

    def _decide(self, groups: Sequence[Group], found: _Found) -> tuple[_Found, Tensor]:
        """O-net: the faces, with landmarks (n, 5, 2)."""
        square = _square(found.box)
        scores, boxes, points = [], [], []
        for rows in _chunks(len(square)):
            crops = crop_squares(groups, found.photo[rows], square[rows], ONET_SIZE).div_(_SPREAD)
            score, offsets, landmarks = self._nets.onet(crops.contiguous(memory_format=torch.channels_last))
            side = square[rows, 2:3] - square[rows, 0:1]
            scores.append(score)
            boxes.append(_moved(square[rows], offsets))
            points.append(landmarks * side[:, None] + square[rows, None, :2])
        if not scores:
            return found, found.box.new_zeros((0, 5, 2))
        found = _Found(found.photo, torch.cat(boxes), torch.cat(scores))
        landmarks = torch.cat(points)
        order = torch.nonzero(found.score > _ONET_SCORE).flatten()
        order = order[_best_first(found.pick(order))]
        order = order[_suppress_contained(found.pick(order))]
        return found.pick(order), landmarks[order]


def _scales(first: float, longest: int) -> Iterator[float]:
    """From the smallest face wanted to one somewhat larger than the frame."""
    scale = min(first, 1.0)
    while True:
        yield scale
        scale *= _SCALE_STEP
        if longest * scale * _LARGEST_FACE < PNET_WINDOW:
            return


def _even(side: float) -> int:
    """The nearest even number of pixels, at least 2: P-net's pooling then has no odd row."""
    return max(2, 2 * round(side / 2))


def _chunks(count: int) -> Iterator[slice]:
    return (slice(start, start + _CHUNK) for start in range(0, count, _CHUNK))


def _square(box: Tensor) -> Tensor:
    """Grow the shorter side about the centre."""
    centre = (box[:, :2] + box[:, 2:]) / 2
    half = (box[:, 2:] - box[:, :2]).amax(dim=1, keepdim=True) / 2
    return torch.cat((centre - half, centre + half), dim=1)


def _moved(box: Tensor, offsets: Tensor) -> Tensor:
    """Corners moved by offsets in box sides."""
    return box + offsets * (box[:, 2:] - box[:, :2]).repeat(1, 2)


def _best_first(found: _Found) -> Tensor:
    """Rows by photo, then score descending, then as they came; at most _MAX_PROPOSALS of a photo."""
    order = torch.argsort(found.score, descending=True, stable=True)
    order = order[torch.argsort(found.photo[order], stable=True)]
    photo = found.photo[order]
    rank = torch.arange(len(order), device=order.device) - torch.searchsorted(photo, photo)
    return order[rank < _MAX_PROPOSALS]


def _suppress(found: _Found, level: Tensor, threshold: float) -> Tensor:
    """Rows that survive non-maximum suppression (intersection over union) per photo and level.

    Frames are shifted apart in float64, which moves no overlap. The CPU's kernel is quadratic, so it
    gets one photo at a time; CUDA gets all at once.
    """
    frame = (found.photo * (int(level.max()) + 1) + level) if len(level) else level
    box = found.box.double() + frame[:, None] * _APART
    counts = [len(box)] if box.is_cuda else torch.bincount(found.photo).tolist()
    keep, start = [], 0
    for count in counts:
        end = start + count
        if count:
            keep.append(nms(box[start:end], found.score[start:end].double(), threshold) + start)
        start = end
    if not keep:
        return torch.zeros(0, dtype=torch.int64, device=box.device)
    return torch.cat(keep).sort().values


def _suppress_contained(found: _Found) -> Tensor:
    """Rows whose box shares at most _NMS of the smaller of two areas with any better one kept."""
    photo = found.photo.cpu()
    x1, y1, x2, y2 = found.box.cpu().double().unbind(dim=1)
    area = (x2 - x1) * (y2 - y1)
    keep: list[int] = []
    for row in range(len(photo)):
        rivals = torch.tensor([other for other in keep if photo[other] == photo[row]], dtype=torch.int64)
        across = (torch.minimum(x2[rivals], x2[row]) - torch.maximum(x1[rivals], x1[row])).clamp(min=0)
        down = (torch.minimum(y2[rivals], y2[row]) - torch.maximum(y1[rivals], y1[row])).clamp(min=0)
        share = across * down / torch.minimum(area[rivals], area[row])
        if not bool((share > _NMS).any()):
            keep.append(row)
    return torch.tensor(keep, dtype=torch.int64, device=found.photo.device)
