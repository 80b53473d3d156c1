"""How usable a face image is, 0 to 100, with its components and the reasons when it is low.

The components are cheap stand-ins, on the aligned crop and the landmarks, for measures of
ISO/IEC 29794-5 (inter-eye distance, sharpness, under- and over-exposure, dynamic range, head pose,
margins), and the reasons use its words; the numbers are not the standard's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - torch's customary name
from torch import Tensor

from homeward.types import Quality

_WORST_SHARE = 0.6  # of the score is the worst component, the rest is their mean
_REASON_BELOW = 50.0
_FACE_SHARE = 0.7  # of the crop's side is face; the rest is hair and background
_SHARPNESS_NONE, _SHARPNESS_FULL = -6.5, -4.0  # log2 of detail over contrast
_MEASURE_PX = 150  # sharpness is measured on crops of this size
_NOSE_AHEAD = 0.45  # how far the nose tip stands before the eyes' plane, in inter-eye distances
_EYES_TO_MOUTH = 1.03  # in inter-eye distances, of a frontal face
_NOSE_DOWN = 0.58  # where the nose tip lies from the eyes (0) to the mouth (1) of a frontal face
_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True, slots=True)
class FaceView:
    """What is known of n faces before they are assessed."""

    crops: Tensor  # (n, 3, S, S) float32 RGB 0..255, aligned
    landmarks: Tensor  # (n, 5, 2) pixels of the upright photo at full size
    boxes: Tensor  # (n, 4) x, y, width, height, same pixels
    scores: Tensor  # (n,) of the detector, 0..1
    frames: Tensor  # (n, 2) width and height of each face's photo


@torch.inference_mode()
def assess(view: FaceView) -> list[Quality]:
    """One `Quality` per face, in order. Nothing here can fail: what cannot be measured counts as 0."""
    if not len(view.crops):
        return []
    luma = _luma(view.crops)
    under, over, span = _exposure(luma)
    yaw, pitch, roll = head_angles(view.landmarks)
    components = {
        "size": _ramp(inter_eye_px(view.landmarks), 8, 52),
        "sharpness": _sharpness(luma),
        "exposure": torch.minimum(torch.minimum(under, over), span),
        "pose": torch.minimum(torch.minimum(_ramp(yaw, 75, 15), _ramp(pitch, 65, 15)), _ramp(roll, 90, 20)),
        "margin": _ramp(_share_outside(view), 0.5, 0.0),
        "detector_score": _ramp(view.scores, 0.6, 1.0),
    }
    table = torch.nan_to_num(torch.stack(list(components.values()), dim=1).float()).clamp(0, 100)
    score = _WORST_SHARE * table.amin(dim=1) + (1 - _WORST_SHARE) * table.mean(dim=1)
    low = {
        "inter-eye distance too small": components["size"],
        "unsharp (de-focus or motion blur)": components["sharpness"],
        "under-exposure": under,
        "over-exposure": over,
        "low dynamic range": span,
        "head pose not frontal (yaw)": _ramp(yaw, 75, 15),
        "head pose not frontal (pitch)": _ramp(pitch, 65, 15),
        "head pose not frontal (roll)": _ramp(roll, 90, 20),
        "face near image border": components["margin"],
        "face detected with low confidence": components["detector_score"],
    }
    flags = (torch.nan_to_num(torch.stack(list(low.values()), dim=1).float()) < _REASON_BELOW).tolist()
    return [
        Quality(
            score=round(total, 1),
            components={name: round(value, 1) for name, value in zip(components, row, strict=True)},
            reasons=tuple(reason for reason, is_low in zip(low, flagged, strict=True) if is_low),
        )
        for total, row, flagged in zip(score.tolist(), table.tolist(), flags, strict=True)
    ]


def inter_eye_px(landmarks: Tensor) -> Tensor:
    """Distance of the eyes (n,), landmarks (n, 5, 2)."""
    distance: Tensor = (landmarks[:, 1] - landmarks[:, 0]).norm(dim=1)
    return distance


def head_angles(landmarks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sizes of yaw, pitch and roll (n,) in degrees, from where the nose tip lies among eyes and mouth.

    A coarse estimate (a rigid mean head, parallel projection), good enough to tell a profile.
    """
    landmarks = landmarks.double()
    left, right, nose, mouth_left, mouth_right = landmarks.unbind(dim=1)
    eyes, mouth = (left + right) / 2, (mouth_left + mouth_right) / 2
    across = right - left
    roll = torch.atan2(across[:, 1], across[:, 0]).abs()
    down = mouth - eyes
    length = down.norm(dim=1).clamp(min=1e-6)
    down = down / length[:, None]
    aside = torch.stack((down[:, 1], -down[:, 0]), dim=1)  # right-hand side of an upright face
    # Turning shortens what lies across by the cosine and moves the nose by the sine: the eyes-to-mouth
    # length keeps the scale in yaw.
    inter_eye = length / _EYES_TO_MOUTH
    nose_from_eyes = nose - eyes
    yaw = torch.asin(((nose_from_eyes * aside).sum(dim=1) / (_NOSE_AHEAD * inter_eye)).clamp(-1, 1)).abs()
    nose_down = (nose_from_eyes * down).sum(dim=1) / length
    pitch = torch.atan((nose_down - _NOSE_DOWN) * _EYES_TO_MOUTH / _NOSE_AHEAD).abs()
    return yaw.rad2deg(), pitch.rad2deg(), roll.rad2deg()


def _luma(crops: Tensor) -> Tensor:
    """(n, 1, m, m) brightness of the face's part of the crops, at the size sharpness is measured."""
    edge = round(_MEASURE_PX * (1 - _FACE_SHARE) / 2)
    if crops.shape[2] == _MEASURE_PX:
        return _weighted(crops[:, :, edge:-edge, edge:-edge])
    size = (_MEASURE_PX, _MEASURE_PX)
    luma = F.interpolate(_weighted(crops), size=size, mode="bilinear", align_corners=False, antialias=True)
    return luma[:, :, edge:-edge, edge:-edge]


def _weighted(crops: Tensor) -> Tensor:
    red, green, blue = torch.split(crops.float(), 1, dim=1)
    return red * _LUMA[0] + green * _LUMA[1] + blue * _LUMA[2]


def _sharpness(luma: Tensor) -> Tensor:
    """Fine detail as a share of all: mean difference to a 3x3 mean over the contrast, on a log scale.

    Relative to the contrast, so that a dark or flat photo is not also called unsharp.
    """
    rows = luma[:, :, :-2] + luma[:, :, 1:-1] + luma[:, :, 2:]
    mean = (rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]) / 9  # faster than the CPU's pooling
    detail = (luma[:, :, 1:-1, 1:-1] - mean).abs().mean(dim=(1, 2, 3))
    contrast = (luma - luma.mean(dim=(2, 3), keepdim=True)).square().mean(dim=(1, 2, 3)).sqrt().clamp(min=4.0)
    return _ramp(torch.log2((detail / contrast).clamp(min=1e-6)), _SHARPNESS_NONE, _SHARPNESS_FULL)


def _exposure(luma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Goodness (n,) as to under-exposure, over-exposure and dynamic range."""
    values = luma[:, :, ::2, ::2].flatten(1)
    low, high = (values.kthvalue(int(share * values.shape[1]) + 1, dim=1).values for share in (0.05, 0.95))
    mean = values.mean(dim=1)
    dark = (values < 16).float().mean(dim=1)
    bright = (values > 248).float().mean(dim=1)
    under = torch.minimum(_ramp(mean, 15, 80), _ramp(dark, 0.6, 0.2))
    over = torch.minimum(_ramp(mean, 245, 190), _ramp(bright, 0.4, 0.05))
    return under, over, _ramp(high - low, 8, 60)


def _share_outside(view: FaceView) -> Tensor:
    """The part (n,) of each box's area that lies outside its photo."""
    low = view.boxes[:, :2].clamp(min=0)
    high = torch.minimum(view.boxes[:, :2] + view.boxes[:, 2:], view.frames.to(view.boxes))
    inside = (high - low).clamp(min=0).prod(dim=1)
    return 1 - inside / view.boxes[:, 2:].prod(dim=1).clamp(min=1e-6)


def _ramp(value: Tensor, zero: float, full: float) -> Tensor:
    """0 at `zero`, 100 at `full`, straight between, flat beyond."""
    return ((value - zero) / (full - zero) * 100).clamp(0, 100)
