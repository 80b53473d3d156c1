"""A real photograph that a package ships, in the forms the tests of the face model want."""

from __future__ import annotations

import hashlib
from functools import cache

import numpy as np
import skimage.data
import torch
from PIL import Image

from homeward.types import UInt8
from workers.decode import DecodedPhoto
from workers.default_model import load_default_model
from workers.model import FaceModel

ASTRONAUT_FACE = (178.0, 64.0, 270.0, 186.0)  # x1, y1, x2, y2: forehead to chin, by eye


@cache
def default_model(precision: str = "float32") -> FaceModel:
    """The default model on the CPU, loaded once."""
    return load_default_model(torch.device("cpu"), precision)


@cache
def astronaut() -> UInt8:
    """(512, 512, 3) uint8: one smiling woman, in front of a flag and a shuttle."""
    pixels: UInt8 = np.array(skimage.data.astronaut())  # type: ignore[no-untyped-call]
    return pixels


def rotated(degrees: float) -> UInt8:
    """The astronaut turned about her face."""
    image = Image.fromarray(astronaut())
    return np.array(image.rotate(degrees, center=(225, 125), resample=Image.Resampling.BICUBIC))


def resized(width: int, height: int) -> UInt8:
    """The astronaut at another size."""
    return np.array(Image.fromarray(astronaut()).resize((width, height), Image.Resampling.LANCZOS))


def group(columns: int, rows: int, tile: int = 200) -> UInt8:
    """Several astronauts beside and above one another, each her head and shoulders."""
    head = np.array(
        Image.fromarray(astronaut()[0:280, 85:365]).resize((tile, tile), Image.Resampling.LANCZOS)
    )
    return np.ascontiguousarray(np.tile(head, (rows, columns, 1)))


def tensor(pixels: UInt8) -> torch.Tensor:
    """(3, H, W), a view in the layout of decoded photos."""
    return torch.from_numpy(pixels).permute(2, 0, 1)


def decoded(pixels: UInt8, *, times: float = 1) -> DecodedPhoto:
    """As the decoder hands it over; `times`: how much larger the photo was before it was shrunk."""
    height, width = pixels.shape[:2]
    sha256 = hashlib.sha256(pixels.tobytes()).hexdigest()
    return DecodedPhoto(pixels, round(width * times), round(height * times), "image/png", sha256)
