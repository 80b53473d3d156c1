"""Pictures that the tiny bundle's detector takes for faces of different people."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def write_people(folder: Path, count: int, *, photos: int = 2, seed: int = 0, faceless: int = 0) -> Path:
    """`folder/<person>/<n>.png`: one red cell in the middle, a pattern of the person's own around it.

    The first `faceless` people's last photo is black.
    """
    rng = np.random.default_rng(seed)
    for person in range(count):
        pattern = rng.integers(0, 256, (96, 96, 3))
        pattern[..., 0] = 0
        for number in range(photos):
            pixels = np.clip(pattern + rng.integers(-12, 13, pattern.shape), 0, 255)
            pixels[..., 0] = 0
            pixels[48:56, 48:56, 0] = 255
            if number == photos - 1 and person < faceless:
                pixels[:] = 0
            path = folder / f"person{seed}-{person}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.astype(np.uint8)).save(path)
    return folder
