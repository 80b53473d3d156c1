"""One photo's bytes to upright 8-bit RGB, or a typed refusal.

`decode` is pure and single-threaded; run it on untrusted bytes only inside `workers.sandbox`.
"""

from __future__ import annotations

from dataclasses import dataclass

from homeward.config import WorkerSettings
from homeward.types import UInt8


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """What a photo may cost. Checked from its headers, before memory is taken for its pixels."""

    max_bytes: int
    max_pixels: int  # width x height at full size
    min_side_px: int = 16
    scale_to_px: int = 0  # longest side of the pixels returned at most; 0: full size

    @staticmethod
    def from_settings(settings: WorkerSettings) -> DecodeLimits:
        """The limits an operator set."""
        return DecodeLimits(max_bytes=settings.max_photo_bytes, max_pixels=settings.max_photo_pixels)


@dataclass(frozen=True, slots=True)
class DecodedPhoto:
    """One photo, upright (EXIF orientation applied), its first frame, without its colour profile."""

    pixels: UInt8  # (H, W, 3) RGB, C-contiguous
    width: int  # of the upright photo at full size; `pixels` is smaller when scaled at decode
    height: int
    media_type: str  # "image/jpeg", ...
    sha256: str  # of the photo's bytes, 64 hex digits


def decode(data: bytes, limits: DecodeLimits) -> DecodedPhoto:
    """Decode one photo. Raises `PhotoRejected` with the reason, and nothing else."""
    raise NotImplementedError
