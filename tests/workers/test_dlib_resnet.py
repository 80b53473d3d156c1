"""The torch port of dlib's ResNet against dlib itself."""

from __future__ import annotations

from pathlib import Path

import dlib
import numpy as np
import pytest
import torch

from homeward.errors import Corrupt
from homeward.types import Float32, UInt8
from tests.workers.real_faces import astronaut, rotated
from workers.dlib_resnet import SHA256, DlibResnet, read_weights
from workers.weights import wheel_file

CPU = torch.device("cpu")


def chips() -> UInt8:
    """(6, 150, 150, 3): faces in several poses, other matter, noise and extremes."""
    noise = np.random.default_rng(1).integers(0, 256, (150, 150, 3), dtype=np.uint8)
    cut = [rotated(angle)[50:200, 150:300] for angle in (0, 25)]
    return np.stack(
        [*cut, astronaut()[300:450, 300:450], noise, np.zeros_like(noise), np.full_like(noise, 255)]
    )


@pytest.fixture(scope="module")
def reference() -> Float32:
    path = wheel_file("face_recognition_models", "models/dlib_face_recognition_resnet_model_v1.dat", SHA256)
    net = dlib.face_recognition_model_v1(str(path))
    return np.array([net.compute_face_descriptor(np.ascontiguousarray(chip)) for chip in chips()], np.float32)


def embed(dtype: torch.dtype, pixels: UInt8) -> Float32:
    net = DlibResnet(read_weights(), CPU, dtype, model_id="test")
    vectors: Float32 = net.embed(torch.from_numpy(pixels).permute(0, 3, 1, 2).float()).numpy()
    return vectors


def test_float32_equals_dlib_before_normalisation(reference: Float32) -> None:
    assert np.abs(embed(torch.float32, chips()) - reference).max() <= 1e-5


def test_bfloat16_points_where_dlib_points(reference: Float32) -> None:
    found = embed(torch.bfloat16, chips()).astype(np.float64)
    cosines = (found * reference).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(reference, axis=1)
    assert cosines[:2].min() >= 0.9999  # faces
    assert cosines.min() >= 0.998  # what no face looks like


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_chip_alone_gives_what_it_gives_in_a_batch(dtype: torch.dtype) -> None:
    together = embed(dtype, chips())
    for row, chip in enumerate(chips()):
        (alone,) = embed(dtype, chip[None])
        cosine = float(alone @ together[row] / np.linalg.norm(alone) / np.linalg.norm(together[row]))
        assert cosine >= 0.9999


def test_no_chips_give_no_vectors() -> None:
    assert embed(torch.float32, np.zeros((0, 150, 150, 3), np.uint8)).shape == (0, 128)


def test_a_file_that_is_no_network_is_refused(tmp_path: Path) -> None:
    whole = wheel_file("face_recognition_models", "models/dlib_face_recognition_resnet_model_v1.dat", SHA256)
    for length in (0, 100, 500_000):
        path = tmp_path / "cut.dat"
        path.write_bytes(whole.read_bytes()[:length])
        with pytest.raises(Corrupt):
            read_weights(path)
