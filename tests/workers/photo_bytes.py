"""Photos of every format, made in memory."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

from homeward.types import UInt8
from workers.decode import DecodeLimits

LIMITS = DecodeLimits(max_bytes=30 << 20, max_pixels=100_000_000)


def blocks(width: int = 96, height: int = 64, seed: int = 0) -> UInt8:
    """(H, W, 3) RGB in 16-pixel squares of one colour each, which lossy codecs keep well."""
    random = np.random.default_rng(seed)
    coarse = random.integers(30, 226, (height // 16, width // 16, 3), dtype=np.uint8)
    return np.kron(coarse, np.ones((16, 16, 1), np.uint8))


def encode(image: Image.Image | UInt8, kind: str, **options: Any) -> bytes:
    """The image as a file of that Pillow format."""
    stream = io.BytesIO()
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(stream, kind, **options)
    return stream.getvalue()


def exif(orientation: int) -> bytes:
    """An EXIF block that says nothing but the orientation."""
    block = Image.Exif()
    block[0x0112] = orientation
    return block.tobytes()


# What stands in the file when the camera was turned: the upright image is the inverse of EXIF's rule.
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}
