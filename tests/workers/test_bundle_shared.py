"""The real bundle: the numbers of ONNX's own evaluator, and the same faces alone and in a batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from PIL import Image

from tests.shared import SHARED, needs_shared
from workers.align import align
from workers.bundle_model import load_bundle
from workers.embed import embed
from workers.install import install
from workers.model import FaceModel
from workers.network import load_network

pytestmark = needs_shared
NAME = "yunet-mobilefacenet"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    assert SHARED is not None
    return install(NAME, tmp_path_factory.mktemp("models"), source=SHARED / "models" / NAME).folder


@pytest.fixture(scope="module")
def model(folder: Path) -> FaceModel:
    return load_bundle(folder, torch.device("cpu"))


@pytest.fixture(scope="module")
def photos() -> list[torch.Tensor]:
    """Six London photos of several sizes, (3, H, W) uint8."""
    assert SHARED is not None
    answer = []
    for number, path in enumerate(sorted((SHARED / "photos" / "london").glob("*/*_0[38].jpg"))[:6]):
        side = (1350, 1350, 640, 700, 256, 180)[number]
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB").resize((side, side)))
        answer.append(torch.from_numpy(pixels.copy()).permute(2, 0, 1).contiguous())
    return answer


def _oracle(folder: Path, file: str, batch: np.ndarray) -> list[Any]:
    model = onnx.load(folder / file)
    return list(ReferenceEvaluator(model).run(None, {model.graph.input[0].name: batch}))


def test_the_embedder_equals_onnxs_own_evaluator(folder: Path) -> None:
    crops = np.random.default_rng(0).standard_normal((2, 3, 112, 112)).astype(np.float32)
    network = load_network((folder / "mobilefacenet.onnx").read_bytes(), "mobilefacenet.onnx")
    got = network(torch.from_numpy(crops))[0].detach().numpy()
    want = np.concatenate(
        [_oracle(folder, "mobilefacenet.onnx", crops[row : row + 1])[0] for row in range(2)]
    )
    np.testing.assert_allclose(got, want, atol=5e-5)


def test_the_detector_equals_onnxs_own_evaluator(folder: Path, photos: list[torch.Tensor]) -> None:
    batch = np.zeros((1, 3, 192, 192), dtype=np.float32)
    batch[0, :, :180, :180] = photos[5].numpy()[::-1]
    network = load_network((folder / "yunet_n_dynamic.onnx").read_bytes(), "yunet_n_dynamic.onnx")
    for got, want in zip(
        network(torch.from_numpy(batch)), _oracle(folder, "yunet_n_dynamic.onnx", batch), strict=True
    ):
        np.testing.assert_allclose(got.detach().numpy(), want, atol=2e-3)


def test_every_photo_shows_its_one_face_with_landmarks_in_order(
    model: FaceModel, photos: list[torch.Tensor]
) -> None:
    for photo, found in zip(photos, model.detector.detect(photos, 40), strict=True):
        assert len(found.scores) == 1
        x, y, width, height = found.boxes[0].tolist()
        assert x < photo.shape[2] / 2 < x + width
        assert y < photo.shape[1] / 2 < y + height
        left, right, nose, mouth_left, mouth_right = found.landmarks[0].tolist()
        assert left[0] < nose[0] < right[0]
        assert mouth_left[0] < mouth_right[0]
        assert left[1] < nose[1] < mouth_left[1]


def test_templates_alone_and_in_a_batch_are_the_same(model: FaceModel, photos: list[torch.Tensor]) -> None:
    def templates(batch: list[torch.Tensor]) -> np.ndarray:
        landmarks = torch.cat([found.landmarks for found in model.detector.detect(batch, 40)])
        crops = align(batch, torch.arange(len(batch)), landmarks, model.embedder.crop)
        return np.array(embed(model.embedder, crops, mirror=model.mirror))

    together = templates(photos)
    alone = np.concatenate([templates([photo]) for photo in photos])
    assert together.shape == (6, 128)
    assert (together * alone).sum(axis=1).min() >= 0.9999
