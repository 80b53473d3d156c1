"""Detection by a network with YuNet's head: where it looks, and that a batch changes nothing."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import box_iou

from tests.workers import tiny_bundle
from workers.bundle import parse_bundle
from workers.bundle_model import load_bundle
from workers.model import FaceModel
from workers.registry import installable
from workers.yunet import decode_level, pyramid

_FILES = {"detector.onnx": b"d", "embedder.onnx": b"e"}
SPEC = installable("yunet-mobilefacenet").bundle.detector


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> FaceModel:
    return load_bundle(tiny_bundle.write(tmp_path_factory.mktemp("bundles") / "tiny"), torch.device("cpu"))


def _photo(height: int, width: int, *cells: tuple[int, int]) -> torch.Tensor:
    """Black, with 8 x 8 red cells at (row, column) of the 8-pixel grid."""
    photo = torch.zeros((3, height, width), dtype=torch.uint8)
    for row, column in cells:
        photo[0, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 255
    return photo


@given(st.integers(16, 9000), st.integers(16, 9000), st.integers(20, 400))
def test_every_face_from_the_smallest_to_the_frame_fits_some_level(
    height: int, width: int, smallest: int
) -> None:
    levels = pyramid(height, width, smallest, SPEC, working_px=30_000)
    scales = [level.height / height for level in levels]
    assert scales == sorted(scales, reverse=True)
    rounding = 1 / min(height, width)
    assert smallest * (scales[0] + rounding) >= SPEC.smallest_face_px or scales[0] >= 1 - rounding
    assert min(height, width) * min(scales) <= 1.5 * SPEC.largest_face_px + 1 + min(height, width) * rounding
    for finer, coarser in pairwise(scales):
        # No face falls between two levels: what the finer finds largest the coarser finds smallest.
        assert SPEC.largest_face_px / finer >= SPEC.smallest_face_px / (coarser + rounding)
    for level in levels:
        assert all(side % SPEC.multiple == 0 for side in level.canvas)
        assert level.canvas[0] >= level.height
        assert level.canvas[1] >= level.width


@given(st.integers(16, 5000), st.integers(16, 5000), st.integers(20, 400))
def test_no_photo_is_enlarged_beyond_what_its_smallest_faces_need(
    height: int, width: int, smallest: int
) -> None:
    needed = max(1.0, SPEC.smallest_face_px / smallest)
    first = pyramid(height, width, smallest, SPEC, working_px=1024)[0]
    assert first.height <= math.ceil(height * needed)
    assert max(first.height, first.width) <= 1024


def test_a_prior_decodes_to_its_cell_and_offsets() -> None:
    shape = (1, 4, 1)
    cls, obj = torch.full(shape, 0.8), torch.full(shape, 0.5)
    box = torch.tensor([0.5, 0.25, math.log(2), math.log(3)]).expand(1, 4, 4)
    points = torch.arange(10, dtype=torch.float32).expand(1, 4, 10)
    scores, boxes, landmarks = decode_level([(cls, obj, box, points)], [8], (16, 16))
    torch.testing.assert_close(scores, torch.full((1, 4), 0.4))
    # Cell 3 is row 1, column 1: centre ((1 + .5) 8, (1 + .25) 8), 16 wide, 24 high.
    torch.testing.assert_close(boxes[0, 3], torch.tensor([4.0, -2.0, 20.0, 22.0]))
    torch.testing.assert_close(landmarks[0, 2, 4], torch.tensor([8.0 * 8, (1 + 9) * 8.0]))


def test_planted_faces_are_found_where_they_are(model: FaceModel) -> None:
    found = model.detector.detect([_photo(64, 80, (2, 3), (6, 7))], min_face_px=16)[0]
    order = found.boxes[:, 0].argsort()
    torch.testing.assert_close(
        found.boxes[order], torch.tensor([[16.0, 8.0, 24.0, 24.0], [48.0, 40.0, 24.0, 24.0]])
    )
    torch.testing.assert_close(found.landmarks[order[0], 0], torch.tensor([24.0, 16.0]))
    assert found.scores.min() > 0.99


def test_faces_below_the_smallest_wanted_are_left_out(model: FaceModel) -> None:
    photo = _photo(64, 64, (2, 3))
    assert len(model.detector.detect([photo], min_face_px=16)[0].scores) == 1
    assert len(model.detector.detect([photo], min_face_px=25)[0].scores) == 0


def test_neighbouring_answers_for_one_face_are_suppressed(model: FaceModel) -> None:
    # A coarser look at the same red cell answers a second time, with a box of about the same place.
    photo = torch.zeros((3, 512, 512), dtype=torch.uint8)
    photo[0, 128:192, 128:192] = 255
    levels = pyramid(512, 512, 16, parse_bundle(tiny_bundle.toml(_FILES), "t").detector)
    assert len(levels) == 2
    boxes = model.detector.detect([photo], 16)[0].boxes
    corners = torch.cat((boxes[:, :2], boxes[:, :2] + boxes[:, 2:]), dim=1)
    assert (box_iou(corners, corners) - torch.eye(len(boxes))).max() <= 0.4


@settings(max_examples=8, deadline=None)
@given(
    st.lists(st.tuples(st.integers(16, 150), st.integers(16, 150)), min_size=1, max_size=5),
    st.integers(16, 40),
)
def test_a_photo_alone_and_in_a_batch_shows_the_same_faces(
    model: FaceModel, sizes: list[tuple[int, int]], smallest: int
) -> None:
    photos = [_photo(height, width, (0, 0), (1, 1), (0, 4)) for height, width in sizes]
    together = model.detector.detect(photos, smallest)
    for photo, found in zip(photos, together, strict=True):
        alone = model.detector.detect([photo], smallest)[0]
        torch.testing.assert_close(found.boxes, alone.boxes, atol=1e-4, rtol=0)
        torch.testing.assert_close(found.landmarks, alone.landmarks, atol=1e-4, rtol=0)
        torch.testing.assert_close(found.scores, alone.scores, atol=1e-5, rtol=0)


def test_no_photos_and_no_faces_are_empty_answers(model: FaceModel) -> None:
    assert model.detector.detect([], 40) == []
    found = model.detector.detect([_photo(40, 40), _photo(16, 900)], 40)
    assert [tuple(part.shape) for part in (found[0].boxes, found[1].landmarks)] == [(0, 4), (0, 5, 2)]
