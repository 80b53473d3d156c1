"""Sampling of many padded parts at once against sampling each part by itself."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given, settings
from hypothesis import strategies as st

from workers import sampling
from workers.sampling import sample

SIZE = 12


def part(height: int, width: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)


def alone(pixels: torch.Tensor, to_part: torch.Tensor, less: float) -> torch.Tensor:
    """As the definition has it, in float64."""
    _, height, width = pixels.shape
    centre = torch.arange(SIZE, dtype=torch.float64) + 0.5
    x, y = torch.meshgrid(centre, centre, indexing="xy")
    where = torch.stack((x, y, torch.ones_like(x)), dim=2) @ to_part.T
    grid = where * torch.tensor((2 / width, 2 / height)) - 1
    return F.grid_sample(pixels[None].double() - less, grid[None], align_corners=False)[0].float()


sides = st.integers(0, 70)
matrices = st.tuples(*[st.floats(-6, 6)] * 4, *[st.floats(-20, 60)] * 2)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(sides, sides, matrices), min_size=1, max_size=6), st.sampled_from((0.0, 127.5)))
def test_parts_of_many_sizes_give_what_each_gives_alone(
    cases: list[tuple[int, int, tuple[float, ...]]], less: float
) -> None:
    parts = [part(height, width, seed) for seed, (height, width, _) in enumerate(cases)]
    to_part = torch.tensor(
        [[[a, b, x], [c, d, y]] for _, _, (a, b, c, d, x, y) in cases], dtype=torch.float64
    )
    crops = sample(parts, to_part, SIZE, less=less)
    for pixels, matrix, crop in zip(parts, to_part, crops, strict=True):
        expected = alone(pixels, matrix, less) if pixels.numel() else torch.zeros_like(crop)
        torch.testing.assert_close(crop, expected, atol=0.1, rtol=0)  # pixels are 0..255, positions float32


def test_a_crop_has_the_same_bits_whatever_its_neighbours_are() -> None:
    parts = [part(40, 30, 0), part(64, 9, 1), part(19, 23, 2), part(0, 5, 3)]
    to_part = torch.tensor([[[1.3, 0.2, 2.0], [-0.2, 1.3, 4.0]]], dtype=torch.float64).repeat(4, 1, 1)
    together = sample(parts, to_part, SIZE, less=127.5)
    for row in range(4):
        assert torch.equal(together[row], sample(parts[row : row + 1], to_part[:1], SIZE, less=127.5)[0])


def test_memory_is_bounded_by_taking_turns(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    parts = [part(30, 30, seed) for seed in range(5)]
    to_part = torch.tensor([[[1.0, 0.0, 3.0], [0.0, 1.0, 4.0]]], dtype=torch.float64).repeat(5, 1, 1)
    at_once = sample(parts, to_part, SIZE)
    monkeypatch.setattr(sampling, "_MOST_VALUES", 1)
    assert torch.equal(sample(parts, to_part, SIZE), at_once)
