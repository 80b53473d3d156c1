"""Enrolment as a plain script does it: one process, one photo at a time, one write per photo.

dlib's HOG detector, its 5-point landmarks and its ResNet with the parameters of `face_recognition`'s
functions (all faces described, no jitter), photos decoded by Pillow, each most central face
written to Milvus Lite through the same adapter as Homeward's.
"""

from __future__ import annotations

import io
import math
from importlib import resources
from pathlib import Path
from typing import Any

import dlib
import numpy as np
from PIL import Image

from homeward.config import GallerySettings
from homeward.ids import face_id, photo_sha256
from homeward.types import DAY_MAX, DAY_MIN, FaceRow, UInt8
from index.open import open_gallery

HOG_WINDOW_PX = 80  # the smallest face dlib's HOG detector finds
_MODEL_ID = "dlib-hog-5point-resnet"


class PeerLoop:
    """A model and a gallery. `close` it."""

    def __init__(self, folder: Path, smallest_face_px: int) -> None:
        """`smallest_face_px`: photos are enlarged for the detector so that such a face fills its window.

        By a factor of two that is done as the detector does it (`upsample_num_times=1`, the default of
        `face_recognition`), by any other with Pillow's bilinear resize, which is faster.
        """
        models = resources.files("face_recognition_models") / "models"
        self._detector: Any = dlib.get_frontal_face_detector()
        self._landmarks: Any = dlib.shape_predictor(str(models / "shape_predictor_5_face_landmarks.dat"))
        self._network: Any = dlib.face_recognition_model_v1(
            str(models / "dlib_face_recognition_resnet_model_v1.dat")
        )
        self._enlarge = HOG_WINDOW_PX / smallest_face_px
        self._gallery = open_gallery(GallerySettings(), folder, _MODEL_ID, 128)

    def enrol(self, photo: bytes, record: str) -> bool:
        """Decode, detect, describe, write; whether there was a face."""
        with Image.open(io.BytesIO(photo)) as image:
            rgb = image.convert("RGB")
        pixels = np.asarray(rgb)
        boxes = self._detect(rgb, pixels)
        shapes = [self._landmarks(pixels, box) for box in boxes]
        described = [np.array(self._network.compute_face_descriptor(pixels, shape)) for shape in shapes]
        if not described:
            return False
        height, width = pixels.shape[:2]
        centres = [box.center() for box in boxes]
        central = min(
            range(len(boxes)), key=lambda i: math.dist((centres[i].x, centres[i].y), (width / 2, height / 2))
        )
        self._write(photo, record, central, described[central])
        return True

    def close(self) -> None:
        """Close the gallery."""
        self._gallery.close()

    def _detect(self, rgb: Image.Image, pixels: UInt8) -> list[Any]:
        if self._enlarge == 1:
            return list(self._detector(pixels, 0))
        if self._enlarge == 2:
            return list(self._detector(pixels, 1))
        size = (round(rgb.width * self._enlarge), round(rgb.height * self._enlarge))
        enlarged = np.asarray(rgb.resize(size, Image.Resampling.BILINEAR))
        return [
            dlib.rectangle(
                *(round(edge / self._enlarge) for edge in (box.left(), box.top(), box.right(), box.bottom()))
            )
            for box in self._detector(enlarged, 0)
        ]

    def _write(self, photo: bytes, record: str, ordinal: int, descriptor: Any) -> None:
        sha256 = photo_sha256(photo)
        template = (descriptor / np.linalg.norm(descriptor)).astype(np.float32)
        days = {f"{name}_{end}": edge for name in ("born", "event", "taken") for end, edge in _EDGES}
        row = FaceRow(
            face_id=face_id(record, sha256, _MODEL_ID, ordinal),
            record_id=record,
            photo_sha256=sha256,
            ordinal=ordinal,
            agency=1,
            gallery=1,
            load=0,
            sex=0,
            place=0,
            template=template,
            **days,
        )
        self._gallery.upsert([row])


_EDGES = (("from", DAY_MIN), ("to", DAY_MAX))
