"""The default detector: where faces are, whatever the photo's size and company."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.data
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from homeward.types import UInt8
from tests.shared import SHARED, needs_shared
from tests.workers.real_faces import ASTRONAUT_FACE, astronaut, default_model, group, resized, tensor
from workers import detect
from workers.detect import MtcnnDetector
from workers.model import Detections
from workers.mtcnn import load_mtcnn


def find(*photos: UInt8, min_face_px: int = 40) -> list[Detections]:
    return default_model().detector.detect([tensor(photo) for photo in photos], min_face_px)


def overlap(box: list[float], face: tuple[float, float, float, float]) -> float:
    """Intersection over union of x, y, width, height and x1, y1, x2, y2."""
    x, y, width, height = box
    across = max(0.0, min(x + width, face[2]) - max(x, face[0]))
    down = max(0.0, min(y + height, face[3]) - max(y, face[1]))
    union = width * height + (face[2] - face[0]) * (face[3] - face[1]) - across * down
    return across * down / union


def test_one_face_is_found_where_it_is() -> None:
    (found,) = find(astronaut())
    assert len(found.scores) == 1
    assert overlap(found.boxes[0].tolist(), ASTRONAUT_FACE) > 0.6
    assert 0.9 < float(found.scores[0]) <= 1


def test_landmarks_lie_in_the_order_of_the_protocol() -> None:
    (found,) = find(astronaut())
    left_eye, right_eye, nose, left_mouth, right_mouth = found.landmarks[0].tolist()
    assert left_eye[0] < nose[0] < right_eye[0]
    assert left_mouth[0] < nose[0] < right_mouth[0]
    assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])


def test_photos_of_several_sizes_in_a_batch_give_the_faces_they_give_alone() -> None:
    photos = [astronaut(), resized(300, 400), group(2, 1), resized(300, 400)[::-1].copy(), astronaut()]
    together = find(*photos)
    for photo, batched in zip(photos, together, strict=True):
        (alone,) = find(photo)
        assert len(alone.scores) == len(batched.scores)
        torch.testing.assert_close(alone.boxes, batched.boxes, atol=0.01, rtol=0)
        torch.testing.assert_close(alone.landmarks, batched.landmarks, atol=0.01, rtol=0)
        torch.testing.assert_close(alone.scores, batched.scores, atol=1e-4, rtol=0)


@pytest.mark.parametrize("share", [0.9, 1.0, 1.2])
def test_a_face_that_fills_the_photo_is_found(share: float) -> None:
    x1, y1, x2, y2 = ASTRONAUT_FACE
    half = share * (y2 - y1) / 2
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    photo = np.ascontiguousarray(
        astronaut()[round(y - half) : round(y + half), round(x - half) : round(x + half)]
    )
    (found,) = find(photo)
    assert len(found.scores) == 1


def test_every_face_of_a_group_is_found() -> None:
    (found,) = find(group(4, 3))
    assert len(found.scores) == 12


def test_faces_smaller_than_asked_for_are_left_out() -> None:
    photo = np.zeros((700, 700, 3), np.uint8)
    photo[:200, :200] = resized(200, 200)  # a face of some 45 px
    photo[200:, 200:] = resized(500, 500)
    assert len(find(photo, min_face_px=36)[0].scores) == 2
    assert len(find(photo, min_face_px=90)[0].scores) == 1


def test_the_cap_on_the_working_size_raises_the_smallest_face() -> None:
    detector = MtcnnDetector(load_mtcnn(torch.device("cpu")), torch.device("cpu"), working_px=1024)
    assert detector.smallest_face_px(1000, 800, 40) == 40
    assert detector.smallest_face_px(1350, 1350, 55) == 55
    assert detector.smallest_face_px(1350, 1350, 40) == pytest.approx(52.7, abs=0.1)
    assert detector.smallest_face_px(3000, 4000, 40) == pytest.approx(156.25)
    assert detector.smallest_face_px(512, 512, 25) == 25
    # A 4096 px photo that decode halved: asked for 20 px, the cap of the whole photo still holds.
    assert 2 * detector.smallest_face_px(2048, 1536, 20) == detector.smallest_face_px(4096, 3072, 40)
    finer = MtcnnDetector(load_mtcnn(torch.device("cpu")), torch.device("cpu"), working_px=1024, face_px=20)
    assert finer.smallest_face_px(2048, 2048, 20) == 40


@pytest.mark.parametrize("name", ["camera", "coffee", "chelsea", "rocket", "brick"])
def test_no_face_is_seen_where_none_is(name: str) -> None:
    pixels = np.array(Image.fromarray(getattr(skimage.data, name)()).convert("RGB"))
    if name == "camera":
        pixels = pixels[256:]  # below the photographer's head
    (found,) = find(np.ascontiguousarray(pixels))
    assert len(found.scores) == 0


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_no_size_is_too_small_or_too_odd(height: int, width: int, seed: int) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    (found,) = find(noise)
    assert found.boxes.shape == (len(found.scores), 4)
    assert found.landmarks.shape == (len(found.scores), 5, 2)


def test_noise_costs_a_bounded_number_of_proposals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detect, "_PNET_SCORE", -1.0)  # every window proposes
    monkeypatch.setattr(detect, "_MAX_PROPOSALS", 50)
    assert len(find(astronaut())[0].scores) <= 50


def test_an_empty_batch_is_no_work() -> None:
    assert find() == []


@given(st.integers(0, 2**32 - 1))
def test_suppression_of_a_batch_equals_that_of_each_photo(seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    corner = torch.rand((60, 2), generator=random) * 100
    box = torch.cat((corner, corner + 5 + torch.rand((60, 2), generator=random) * 40), dim=1)
    photo = torch.randint(0, 3, (60,), generator=random)
    found = detect._Found(photo, box, torch.rand(60, generator=random))
    found = found.pick(detect._best_first(found))
    level = torch.zeros(60, dtype=torch.int64)
    together = found.pick(detect._suppress(found, level, 0.5))
    for number in range(3):
        alone = found.pick(torch.nonzero(found.photo == number).flatten())
        kept = alone.pick(detect._suppress(alone, level[: len(alone.photo)], 0.5))
        assert torch.equal(kept.box, together.box[together.photo == number])


@needs_shared
@pytest.mark.parametrize("folder", ["noface_rainbow", "dlib_noface"])
def test_photos_without_people_show_no_face(folder: str) -> None:
    assert SHARED is not None
    for path in sorted((SHARED / "photos/odd" / folder).iterdir()):
        (found,) = find(np.array(Image.open(path).convert("RGB")))
        assert len(found.scores) == 0, path.name


@needs_shared
def test_every_orientation_shows_one_face_once_upright() -> None:
    assert SHARED is not None
    paths = sorted((SHARED / "photos/odd/pillow").rglob("hopper_orientation_*.jpg"))
    assert paths
    upright = [ImageOps.exif_transpose(Image.open(path)) for path in paths]
    assert [len(found.scores) for found in find(*[np.array(image) for image in upright])] == [1] * len(paths)


@needs_shared
def test_large_portraits_show_their_one_face() -> None:
    assert SHARED is not None
    paths = sorted((SHARED / "photos/london").rglob("*.jpg"))[:6]
    photos = [np.array(Image.open(path)) for path in paths]
    assert [len(found.scores) for found in find(*photos, min_face_px=55)] == [1] * len(paths)
