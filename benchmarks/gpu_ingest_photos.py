"""JPEGs of a given size for `benchmarks.gpu_ingest`, from real photos where there are some."""

from __future__ import annotations

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import cycle, islice

import numpy as np
from PIL import Image, ImageOps

from homeward.errors import NotFound

_QUALITY = 90
_NOISE = 3.0  # standard deviation in levels: a photo enlarged without any has a third of a camera's bytes
_DENSEST_SHIFT = 97  # pixels between the noise of one photo and the next


@dataclass(frozen=True, slots=True)
class Photos:
    """Encoded photos of one size."""

    jpegs: tuple[bytes, ...]
    source: str


def draw_photos(width: int, height: int, count: int) -> Photos:
    """So many JPEGs of that size, the same on every call. Raises `NotFound` without anything to draw from."""
    images, source, centre = _images(count)
    noise = np.random.default_rng(1).normal(0.0, _NOISE, (height, width, 1)).astype(np.float32)

    def encoded(number: int, image: Image.Image) -> bytes:
        fitted = ImageOps.fit(image, (width, height), Image.Resampling.BICUBIC, centering=centre)
        pixels = np.asarray(fitted, np.float32) + np.roll(noise, _DENSEST_SHIFT * number, axis=1)
        stream = io.BytesIO()
        kept = Image.fromarray(np.rint(pixels).clip(0, 255).astype(np.uint8))
        kept.save(stream, "JPEG", quality=_QUALITY, subsampling="4:2:0")
        return stream.getvalue()

    with ThreadPoolExecutor(4) as threads:  # Pillow lets go of the interpreter while it works
        return Photos(tuple(threads.map(encoded, range(count), images)), source)


def _images(count: int) -> tuple[list[Image.Image], str, tuple[float, float]]:
    """Upright RGB images, where they are from, and what of them stays when they are cut."""
    try:
        from benchmarks.common import shared_photos

        paths = sorted((shared_photos() / "london").glob("*/*.jpg"))
    except (ImportError, NotFound):
        paths = []
    if paths:
        images = [Image.open(path).convert("RGB") for path in paths[:count]]
        return list(islice(cycle(images), count)), "Face Research Lab London Set", (0.5, 0.4)
    return list(islice(_astronauts(), count)), "scikit-image's astronaut, turned", (0.4, 0.1)


def _astronauts() -> Iterator[Image.Image]:
    try:
        import skimage.data
    except ImportError as error:
        raise NotFound("no photos: set HOMEWARD_SHARED, or install scikit-image for its astronaut") from error
    image = Image.fromarray(skimage.data.astronaut())  # type: ignore[no-untyped-call]
    random = np.random.default_rng(1)
    while True:
        angle = float(random.uniform(-12, 12))
        yield image.rotate(angle, center=(225, 130), resample=Image.Resampling.BICUBIC)
