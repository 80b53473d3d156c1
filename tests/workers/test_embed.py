"""From crops to templates: unit length, mirrored, and one bad crop is its own problem."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from homeward.errors import TemplateInvalid
from workers.embed import embed
from workers.model import CropSpec


class MeanOfColumns:
    """A net whose vector is the mean of each of the crop's columns: mirroring reverses it."""

    model_id = "columns"
    dimension = 8
    crop = CropSpec(8, ((0.0, 0.0),) * 5)

    def embed(self, crops: torch.Tensor) -> torch.Tensor:
        return crops.mean(dim=(1, 2))


@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 1e30), st.booleans())
def test_templates_have_unit_length_whatever_the_vectors_length(
    seed: int, scale: float, mirror: bool
) -> None:
    crops = torch.rand((3, 3, 8, 8), generator=torch.Generator().manual_seed(seed)) * scale
    for template in embed(MeanOfColumns(), crops, mirror=mirror):
        assert isinstance(template, np.ndarray)
        assert template.dtype == np.float32
        assert abs(np.linalg.norm(template.astype(np.float64)) - 1) < 1e-6


def test_the_mirrored_crop_is_averaged_in() -> None:
    crops = torch.arange(8.0).expand(1, 3, 8, 8)
    (plain,) = embed(MeanOfColumns(), crops, mirror=False)
    (averaged,) = embed(MeanOfColumns(), crops, mirror=True)
    assert isinstance(plain, np.ndarray)
    assert isinstance(averaged, np.ndarray)
    np.testing.assert_allclose(plain, np.arange(8) / np.linalg.norm(np.arange(8)), rtol=1e-6)
    np.testing.assert_allclose(averaged, np.full(8, 8**-0.5), rtol=1e-6)


def test_a_zero_or_broken_vector_is_the_error_of_its_own_crop() -> None:
    crops = torch.ones((5, 3, 8, 8))
    crops[1] = 0
    crops[2] = torch.nan
    crops[3] = torch.inf
    answers = embed(MeanOfColumns(), crops, mirror=True)
    assert [isinstance(answer, TemplateInvalid) for answer in answers] == [False, True, True, True, False]


def test_many_crops_go_through_in_order() -> None:
    crops = torch.zeros((150, 3, 8, 8))
    for row in range(150):
        crops[row, :, :, row % 8] = 1
    answers = embed(MeanOfColumns(), crops, mirror=False)
    assert [int(np.argmax(answer)) for answer in answers if isinstance(answer, np.ndarray)] == [
        row % 8 for row in range(150)
    ]


def test_no_crops_give_no_templates() -> None:
    assert embed(MeanOfColumns(), torch.zeros((0, 3, 8, 8)), mirror=True) == []
