"""Face image quality falls when the image gets worse, and says why."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from homeward.types import Quality, UInt8
from tests.workers.real_faces import astronaut, default_model, tensor
from workers.align import align
from workers.quality import FaceView, assess, head_angles

FRONTAL = ((30.0, 40.0), (70.0, 40.0), (50.0, 64.0), (33.0, 81.0), (67.0, 81.0))


def view(*photos: UInt8) -> FaceView:
    """The astronaut's face, located in the sharp photo, in each of the photos."""
    (found,) = default_model().detector.detect([tensor(astronaut())], 40)
    count = len(photos)
    landmarks = found.landmarks[:1].expand(count, 5, 2)
    images = [tensor(photo) for photo in photos]
    return FaceView(
        crops=align(images, torch.arange(count), landmarks, default_model().embedder.crop),
        landmarks=landmarks,
        boxes=found.boxes[:1].expand(count, 4),
        scores=found.scores[:1].expand(count),
        frames=torch.full((count, 2), 512),
    )


def changed(base: FaceView, **fields: torch.Tensor) -> Quality:
    values = {name: getattr(base, name) for name in FaceView.__slots__} | fields
    return assess(FaceView(**values))[0]


def test_a_good_face_has_no_reasons() -> None:
    (quality,) = assess(view(astronaut()))
    assert quality.score > 60
    assert quality.reasons == ()
    assert all(0 <= value <= 100 for value in quality.components.values())


def test_the_blurrier_the_less_sharp() -> None:
    image = Image.fromarray(astronaut())
    blurred = [np.array(image.filter(ImageFilter.GaussianBlur(radius))) for radius in (0, 1, 2, 4, 8)]
    found = assess(view(*blurred))
    sharpness = [quality.components["sharpness"] for quality in found]
    assert sharpness == sorted(sharpness, reverse=True)
    assert [quality.score for quality in found] == sorted((q.score for q in found), reverse=True)
    assert "unsharp (de-focus or motion blur)" in found[-1].reasons


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda pixels: pixels * 0.1, "under-exposure"),
        (lambda pixels: 200 + pixels * 1.5, "over-exposure"),
        (lambda pixels: 120 + pixels * 0.03, "low dynamic range"),
    ],
)
def test_bad_light_is_named(change, reason: str) -> None:  # type: ignore[no-untyped-def]
    worse = change(astronaut().astype(np.float32)).clip(0, 255).astype(np.uint8)
    good, bad = assess(view(astronaut(), worse))
    assert bad.components["exposure"] < good.components["exposure"]
    assert bad.score < good.score
    assert reason in bad.reasons


def test_a_small_face_is_named() -> None:
    base = view(astronaut())
    small = changed(base, landmarks=base.landmarks / 4)
    assert small.components["size"] < 50
    assert "inter-eye distance too small" in small.reasons


def test_a_face_cut_by_the_frame_is_named() -> None:
    base = view(astronaut())
    cut = changed(base, boxes=base.boxes - torch.tensor((215.0, 0, 0, 0)))
    assert "face near image border" in cut.reasons


def test_a_hesitant_detection_is_named() -> None:
    base = view(astronaut())
    assert "face detected with low confidence" in changed(base, scores=torch.tensor([0.7])).reasons


def test_a_turned_head_is_named() -> None:
    base = view(astronaut())
    landmarks = torch.tensor(FRONTAL)[None] * 2
    assert not changed(base, landmarks=landmarks).reasons
    for point, shift, reason in (
        (2, (32.0, 0.0), "head pose not frontal (yaw)"),
        (2, (0.0, 40.0), "head pose not frontal (pitch)"),
    ):
        turned = landmarks.clone()
        turned[0, point] += torch.tensor(shift)
        assert reason in changed(base, landmarks=turned).reasons
    lying = torch.stack((-landmarks[..., 1], landmarks[..., 0]), dim=-1)
    assert "head pose not frontal (roll)" in changed(base, landmarks=lying).reasons


def test_a_frontal_head_has_no_angles_and_rolling_changes_roll_alone() -> None:
    landmarks = torch.tensor(FRONTAL)[None]
    for degrees in (0, 25, -40):
        angle = np.radians(degrees)
        turn = torch.tensor(
            ((np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))), dtype=torch.float32
        )
        yaw, pitch, roll = head_angles(landmarks @ turn.T)
        assert float(yaw) < 3
        assert float(pitch) < 5
        assert float(roll) == pytest.approx(abs(degrees), abs=0.1)


def test_what_cannot_be_measured_counts_as_zero() -> None:
    base = view(astronaut())
    broken = changed(base, crops=torch.full_like(base.crops, torch.nan), landmarks=torch.zeros((1, 5, 2)))
    assert np.isfinite(broken.score)
    assert broken.components["sharpness"] == 0


def test_faces_are_assessed_alike_alone_and_together() -> None:
    dim = (astronaut() * 0.5).astype(np.uint8)
    together = assess(view(astronaut(), dim))
    assert [together[0].score, together[1].score] == pytest.approx(
        [assess(view(astronaut()))[0].score, assess(view(dim))[0].score], abs=0.1
    )


def test_no_faces_give_no_qualities() -> None:
    empty = torch.zeros((0, 4))
    assert (
        assess(
            FaceView(torch.zeros((0, 3, 150, 150)), torch.zeros((0, 5, 2)), empty, empty[:, 0], empty[:, :2])
        )
        == []
    )
