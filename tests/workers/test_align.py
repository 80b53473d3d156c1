"""The aligning warp: it recovers known similarities and puts every landmark on its point."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.workers.real_faces import astronaut, tensor
from workers.align import align, similarities
from workers.dlib_resnet import CHIP_POINTS, CHIP_PX
from workers.model import CropSpec

CROP = CropSpec(CHIP_PX, CHIP_POINTS)
POINTS = torch.tensor(CHIP_POINTS, dtype=torch.float64)


def turned(points: torch.Tensor, degrees: float, zoom: float, x: float, y: float) -> torch.Tensor:
    angle = math.radians(degrees)
    turn = zoom * torch.tensor(
        ((math.cos(angle), -math.sin(angle)), (math.sin(angle), math.cos(angle))), dtype=torch.float64
    )
    return points @ turn.T + torch.tensor((x, y), dtype=torch.float64)


@given(st.floats(-180, 180), st.floats(0.05, 20), st.floats(-3000, 3000), st.floats(-3000, 3000))
def test_a_known_similarity_is_recovered(degrees: float, zoom: float, x: float, y: float) -> None:
    landmarks = turned(POINTS, degrees, zoom, x, y)
    (matrix,) = similarities(landmarks[None], POINTS)
    torch.testing.assert_close(landmarks @ matrix[:, :2].T + matrix[:, 2], POINTS, atol=1e-6, rtol=0)


@given(st.integers(0, 2**32 - 1))
def test_no_other_similarity_fits_noisy_landmarks_better(seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    noisy = POINTS + torch.randn((5, 2), generator=random, dtype=torch.float64) * 8
    (best,) = similarities(noisy[None], POINTS)

    def error(matrix: torch.Tensor) -> float:
        return float((noisy @ matrix[:, :2].T + matrix[:, 2] - POINTS).square().sum())

    a, b, x, y = (torch.randn(4, generator=random, dtype=torch.float64) * 1e-3).tolist()
    nudge = torch.tensor(((a, -b, 100 * x), (b, a, 100 * y)), dtype=torch.float64)
    assert error(best) <= error(best + nudge) + 1e-9


@settings(max_examples=15, deadline=None)
@given(st.floats(-60, 60), st.floats(0.6, 5))
def test_landmarks_land_on_the_points_of_the_crop(degrees: float, zoom: float) -> None:
    side = int(160 * zoom + 20)
    landmarks = turned(POINTS - 75, degrees, zoom, side / 2, side / 2).float()
    photo = np.zeros((side, side, 3), np.uint8)
    rows, columns = np.mgrid[0:side, 0:side] + 0.5
    for x, y in landmarks.tolist():  # soft spots: hard edges would hide parts of a pixel
        spot = 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * (4 * zoom) ** 2))
        photo = np.maximum(photo, spot.astype(np.uint8)[:, :, None])
    crop = align([tensor(photo)], torch.zeros(1, dtype=torch.int64), landmarks[None], CROP)[0, 0]
    grid = torch.arange(CHIP_PX) + 0.5
    for x, y in CHIP_POINTS:
        near = crop * ((grid[None] - x).abs() < 10) * ((grid[:, None] - y).abs() < 10)
        assert float((near * grid[None]).sum() / near.sum()) == pytest.approx(x, abs=0.15)
        assert float((near * grid[:, None]).sum() / near.sum()) == pytest.approx(y, abs=0.15)


def test_an_upright_crop_of_equal_size_copies_pixels() -> None:
    landmarks = (POINTS + torch.tensor((150.0, 60.0))).float()
    crops = align([tensor(astronaut())], torch.zeros(1, dtype=torch.int64), landmarks[None], CROP)
    expected = tensor(astronaut())[:, 60 : 60 + CHIP_PX, 150 : 150 + CHIP_PX].float()
    torch.testing.assert_close(crops[0], expected, atol=0.05, rtol=0)


def test_shrinking_does_not_alias() -> None:
    checks = np.zeros((1280, 1280, 3), np.uint8)
    checks[::2, 1::2] = 255
    checks[1::2, ::2] = 255
    landmarks = turned(POINTS - 75, 0, 4.7, 640, 640).float()
    (crop,) = align([tensor(checks)], torch.zeros(1, dtype=torch.int64), landmarks[None], CROP)
    assert float((crop - 127.5).abs().max()) < 3


def test_all_faces_of_all_photos_come_in_order_and_as_alone() -> None:
    photos = [tensor(astronaut()), tensor(np.ascontiguousarray(astronaut()[:300, ::-1]))]
    landmarks = torch.stack(
        [
            turned(POINTS - 75, angle, zoom, 220, 130).float()
            for angle, zoom in ((0, 1), (30, 2.5), (9, 0.4), (-8, 1))
        ]
    )
    owner = torch.tensor([1, 0, 0, 1])
    together = align(photos, owner, landmarks, CROP)
    for row in range(4):
        alone = align(
            [photos[int(owner[row])]], torch.zeros(1, dtype=torch.int64), landmarks[row : row + 1], CROP
        )
        torch.testing.assert_close(together[row], alone[0], atol=0.02, rtol=0)


def test_outside_the_photo_is_black() -> None:
    white = tensor(np.full((100, 100, 3), 255, np.uint8))
    landmarks = turned(POINTS - 75, 0, 1, 5000, 5000).float()
    (crop,) = align([white], torch.zeros(1, dtype=torch.int64), landmarks[None], CROP)
    assert float(crop.abs().max()) == 0


def test_coinciding_or_infinite_landmarks_spoil_their_own_crop_only() -> None:
    good = turned(POINTS - 75, 0, 1, 220, 130).float()
    landmarks = torch.stack((good, torch.full((5, 2), 50.0), torch.full((5, 2), torch.inf), good))
    crops = align([tensor(astronaut())], torch.zeros(4, dtype=torch.int64), landmarks, CROP)
    assert torch.isfinite(crops).flatten(1).all(dim=1).tolist() == [True, False, False, True]


def test_no_faces_give_no_crops() -> None:
    crops = align([tensor(astronaut())], torch.zeros(0, dtype=torch.int64), torch.zeros((0, 5, 2)), CROP)
    assert crops.shape == (0, 3, CHIP_PX, CHIP_PX)
