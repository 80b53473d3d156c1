"""Every pixel layout that Pillow gives, to 8-bit RGB; and turning pixels upright.

Colour profiles are ignored: embedders are trained on photos whose profiles were ignored too, and
one hostile parser less is in the way. Transparency is composited over white, the paper that cut-out
portraits are printed on. Deeper samples are scaled to 8 bits, never clipped.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from homeward.types import UInt8

_WHITE = (255, 255, 255)
_STRIPE_SAMPLES = 1 << 22  # samples scaled at a time, so that a large photo needs no second copy
_TAG_BITS_PER_SAMPLE = 258


def to_rgb(image: Image.Image) -> Image.Image:
    """A loaded image of any mode as mode RGB, of the same size. Raises ValueError for none we know."""
    mode = image.mode
    if mode in ("I", "F") or mode.startswith("I;16"):
        samples = np.asarray(image)
        return _from_samples(samples, *_sample_range(image, samples))
    if image.has_transparency_data:
        rgba = image if image.mode == "RGBA" else image.convert("RGBA")
        canvas = Image.new("RGB", image.size, _WHITE)
        canvas.paste(rgba, mask=rgba)
        return canvas
    if mode == "RGB":
        return image
    if mode == "LAB":
        return _from_lab(image)
    return image.convert("RGB")  # 1, L, P, CMYK, YCbCr, HSV, RGBX


def upright(pixels: UInt8, orientation: int) -> UInt8:
    """(h, w, 3) as stored -> (H, W, 3) as seen, C-contiguous; orientation 1..8 after EXIF 2.32, 4.6.4."""
    if orientation not in range(2, 9):
        return np.ascontiguousarray(pixels)
    # A pixel is moved as one three-byte item: 2.5 times faster than moving its three samples.
    whole = np.ascontiguousarray(pixels).view("V3")[:, :, 0]
    turned = {
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.T,
        6: lambda a: a[::-1].T,
        7: lambda a: a[::-1, ::-1].T,
        8: lambda a: a[:, ::-1].T,
    }[orientation](whole)
    contiguous = np.ascontiguousarray(turned)
    return contiguous.view(np.uint8).reshape(*contiguous.shape, 3)


def _sample_range(image: Image.Image, samples: npt.NDArray[Any]) -> tuple[float, float]:
    """Which samples are black and white.

    Where the file does not say, it is the usual unit that holds them all, else their own range.
    """
    if image.mode.startswith("I;16"):
        # Scanners write 12-bit TIFFs, whose samples Pillow hands out unscaled.
        tags: Any = getattr(image, "tag_v2", {})
        bits = tags.get(_TAG_BITS_PER_SAMPLE, (16,))
        depth = bits[0] if isinstance(bits, tuple) and bits and bits[0] in range(9, 17) else 16
        return 0.0, float((1 << depth) - 1)
    if image.mode == "I" and image.format == "PPM":  # Pillow has scaled any depth to 16 bits
        return 0.0, 65535.0
    low, high = np.inf, -np.inf
    for stripe in _stripes(samples):
        finite = stripe[np.isfinite(stripe)]
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    units = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0)
    for unit in units:
        if low >= 0 and high <= unit:
            return 0.0, unit
    return low, high


def _from_samples(samples: npt.NDArray[Any], black: float, white: float) -> Image.Image:
    """(H, W) samples to grey RGB; whatever is not finite becomes black."""
    grey = np.empty(samples.shape, np.uint8)
    factor = np.float32(255.0 / (white - black) if white > black else 0.0)
    for source, target in zip(_stripes(samples), _stripes(grey), strict=True):
        scaled = np.nan_to_num(source.astype(np.float32), posinf=black, neginf=black, nan=black)
        scaled -= np.float32(black)
        scaled *= factor
        np.clip(np.rint(scaled, out=scaled), 0, 255, out=scaled)
        target[...] = scaled.astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")


def _stripes(samples: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    rows = max(1, _STRIPE_SAMPLES // max(1, samples.shape[1]))
    return [samples[at : at + rows] for at in range(0, samples.shape[0], rows)]


def _from_lab(image: Image.Image) -> Image.Image:
    """CIE L*a*b* (TIFF) through the two profiles that littleCMS builds in."""
    from PIL import ImageCms

    transform = ImageCms.buildTransform(
        ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB"
    )
    converted = ImageCms.applyTransform(image, transform)
    if converted is None:
        raise ValueError("littleCMS did not convert the L*a*b* image")
    return converted
