"""The whole path from decoded photos to templates."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from homeward.config import WorkerSettings
from homeward.errors import HomewardError, InvalidInput, TemplateInvalid, WorkerUnavailable
from homeward.types import Float32, PhotoFaces
from tests.shared import SHARED, needs_shared
from tests.workers.real_faces import astronaut, decoded, default_model, group, resized, rotated
from workers.decode import DecodedPhoto
from workers.default_model import MODEL_ID
from workers.model import CropSpec, Detections, FaceModel
from workers.pipeline import SHOWN_PX, Pipeline

PRECISIONS = ("float32", "bfloat16")


def cosine(one: Float32, other: Float32) -> float:
    return float(one.astype(np.float64) @ other.astype(np.float64))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_photo_alone_and_in_a_batch_gives_the_same_faces(precision: str) -> None:
    pipeline = Pipeline(default_model(precision))
    photos = [
        decoded(pixels) for pixels in (astronaut(), group(2, 2), rotated(12), resized(300, 340), astronaut())
    ]
    for photo, batched in zip(photos, pipeline.embed(photos), strict=True):
        (alone,) = pipeline.embed([photo])
        assert len(alone.faces) == len(batched.faces) > 0
        for one, other in zip(alone.faces, batched.faces, strict=True):
            assert one.ordinal == other.ordinal
            assert cosine(one.template, other.template) >= 0.9999


@pytest.mark.parametrize("shrunk", [1, 2])
def test_faces_that_are_known_get_the_templates_of_faces_that_are_found(shrunk: int) -> None:
    pipeline = Pipeline(default_model())
    photo = decoded(group(2, 2))  # at decode, perhaps to half of the photo's size
    photo = replace(photo, width=photo.width * shrunk, height=photo.height * shrunk)
    (found,) = pipeline.embed([photo])
    known = pipeline.embed_known(photo, found.faces[::-1])
    assert isinstance(known, PhotoFaces)
    for one, other in zip(found.faces[::-1], known.faces, strict=True):
        assert cosine(one.template, other.template) > 0.9999
        np.testing.assert_allclose(one.landmarks, other.landmarks, atol=0.01)
        assert one.quality.score == pytest.approx(other.quality.score, abs=0.5)
    assert [face.ordinal for face in known.faces] == list(range(len(found.faces)))


def test_the_same_batch_gives_the_same_bits() -> None:
    pipeline = Pipeline(default_model("bfloat16"))
    photos = [decoded(astronaut()), decoded(group(2, 1))]
    first, second = pipeline.embed(photos), pipeline.embed(photos)
    for one, other in zip(first, second, strict=True):
        for face, again in zip(one.faces, other.faces, strict=True):
            assert face.template.tobytes() == again.template.tobytes()
            assert face.box == again.box


def test_precision_changes_neither_model_id_nor_direction() -> None:
    photo = decoded(astronaut())
    single, half = (Pipeline(default_model(precision)) for precision in PRECISIONS)
    assert single.model_id == half.model_id == MODEL_ID
    assert (
        cosine(single.embed([photo])[0].faces[0].template, half.embed([photo])[0].faces[0].template) > 0.9998
    )


def test_templates_are_unit_float32_and_the_person_is_nearer_than_chance() -> None:
    pipeline = Pipeline(default_model())
    results = pipeline.embed([decoded(astronaut()), decoded(rotated(15)), decoded(resized(256, 256))])
    templates = [result.faces[0].template for result in results]
    for template in templates:
        assert template.dtype == np.float32
        assert template.shape == (pipeline.dimension,)
        assert abs(np.linalg.norm(template.astype(np.float64)) - 1) < 1e-6
    assert cosine(templates[0], templates[1]) > 0.95
    assert cosine(templates[0], templates[2]) > 0.95


def test_ordinals_follow_position_top_then_left() -> None:
    (result,) = Pipeline(default_model()).embed([decoded(group(3, 2))])
    assert [face.ordinal for face in result.faces] == list(range(6))
    corners = [(round(face.box.y), round(face.box.x)) for face in result.faces]
    assert corners == sorted(corners)


def test_only_the_largest_faces_are_kept() -> None:
    sheet = np.zeros((400, 700, 3), np.uint8)
    sheet[:, :400] = group(1, 1, tile=400)
    sheet[:150, 400:550] = group(1, 1, tile=150)
    sheet[:200, 500:700] = group(1, 1, tile=200)
    (every,) = Pipeline(default_model()).embed([decoded(sheet)])
    (two,) = Pipeline(default_model(), WorkerSettings(max_faces=1)).embed([decoded(sheet)])
    assert len(every.faces) >= 2
    assert [face.box for face in two.faces] == [
        max((f.box for f in every.faces), key=lambda b: b.width * b.height)
    ]
    assert two.faces[0].ordinal == 0


def test_a_photo_without_a_face_is_an_answer() -> None:
    photo = decoded(np.full((200, 300, 3), 128, np.uint8))
    (result,) = Pipeline(default_model()).embed([photo])
    assert result == PhotoFaces(photo.sha256, "image/png", 300, 200, MODEL_ID, ())


def test_boxes_of_a_photo_shrunk_at_decode_are_in_its_full_size() -> None:
    pipeline = Pipeline(default_model())
    (whole,) = pipeline.embed([decoded(astronaut())])
    (shrunk,) = pipeline.embed([decoded(resized(256, 256), times=2)])
    assert (shrunk.width, shrunk.height) == (512, 512)
    assert shrunk.faces[0].box.x == pytest.approx(whole.faces[0].box.x, abs=5)
    assert shrunk.faces[0].box.height == pytest.approx(whole.faces[0].box.height, abs=8)
    np.testing.assert_allclose(shrunk.faces[0].landmarks, whole.faces[0].landmarks, atol=3)
    one = pipeline.crop_pixels(decoded(astronaut()), whole.faces[0].landmarks).astype(float)
    other = pipeline.crop_pixels(decoded(resized(256, 256), times=2), whole.faces[0].landmarks).astype(float)
    assert np.abs(one - other).mean() < 6


def test_read_only_pixels_are_welcome() -> None:
    pixels = astronaut().copy()
    pixels.setflags(write=False)
    assert len(Pipeline(default_model()).embed([decoded(pixels)])[0].faces) == 1


def test_pixels_of_the_wrong_shape_cost_their_own_photo() -> None:
    bad = replace(decoded(astronaut()), pixels=np.zeros((10, 10), np.uint8))
    results = Pipeline(default_model()).embed_each([decoded(astronaut()), bad, decoded(astronaut())])
    assert [isinstance(result, PhotoFaces) for result in results] == [True, False, True]
    assert isinstance(results[1], InvalidInput)


class StubDetector:
    """One face in the middle of every photo; breaks on photos 13 px wide."""

    def detect(self, photos: Sequence[torch.Tensor], min_face_px: int) -> list[Detections]:
        if any(photo.shape[2] == 13 for photo in photos):
            raise RuntimeError("no kernel for this")
        box = torch.tensor([[4.0, 4.0, 40.0, 40.0]])
        points = torch.tensor([[[10.0, 10], [30, 10], [20, 20], [12, 30], [28, 30]]])
        return [Detections(box, points, torch.tensor([0.9])) for _ in photos]


class StubEmbedder:
    """The mean colour: black photos have no template."""

    model_id = "stub"
    dimension = 3
    crop = CropSpec(50, ((10.0, 10), (30, 10), (20, 20), (12, 30), (28, 30)))

    def embed(self, crops: torch.Tensor) -> torch.Tensor:
        return crops.mean(dim=(2, 3))


def stub() -> Pipeline:
    return Pipeline(FaceModel("stub", StubDetector(), StubEmbedder(), torch.device("cpu")))


def test_a_photo_that_breaks_the_model_costs_itself_alone() -> None:
    white = decoded(np.full((50, 50, 3), 255, np.uint8))
    odd = decoded(np.full((50, 13, 3), 255, np.uint8))
    results = stub().embed_each([white, odd, white])
    assert [type(result) for result in results] == [PhotoFaces, WorkerUnavailable, PhotoFaces]
    with pytest.raises(WorkerUnavailable):
        stub().embed([odd])


def test_a_face_without_a_template_is_the_error_of_its_photo() -> None:
    black = decoded(np.zeros((50, 50, 3), np.uint8))
    white = decoded(np.full((50, 50, 3), 255, np.uint8))
    first, second = stub().embed_each([black, white])
    assert isinstance(first, TemplateInvalid)
    assert isinstance(second, PhotoFaces)


def test_an_empty_batch_is_no_work() -> None:
    assert Pipeline(default_model()).embed([]) == []


def test_people_see_an_upright_aligned_crop() -> None:
    pipeline = Pipeline(default_model())
    upright, tilted = (decoded(rotated(angle)) for angle in (0, 20))
    shown = []
    for photo in (upright, tilted):
        face = pipeline.embed([photo])[0].faces[0]
        image = Image.open(io.BytesIO(pipeline.crop(photo, face.landmarks)))
        assert image.size == (SHOWN_PX, SHOWN_PX)
        shown.append(np.asarray(image, dtype=float)[60:200, 60:200])
    assert np.abs(shown[0] - shown[1]).mean() < 12


def test_landmarks_that_span_nothing_are_refused() -> None:
    with pytest.raises(InvalidInput):
        Pipeline(default_model()).crop(decoded(astronaut()), np.zeros((5, 2), np.float32))


@needs_shared
def test_people_of_one_photo_series_are_nearest_to_themselves() -> None:
    assert SHARED is not None
    folders = sorted((SHARED / "photos/london").iterdir())[:5]
    pipeline = Pipeline(default_model(), WorkerSettings(min_face_px=55))
    photos: list[DecodedPhoto] = [
        decoded(np.array(Image.open(path))) for folder in folders for path in sorted(folder.glob("*.jpg"))[:2]
    ]
    answers: list[PhotoFaces | HomewardError] = pipeline.embed_each(photos)
    templates = np.stack([answer.faces[0].template for answer in answers if isinstance(answer, PhotoFaces)])
    scores = templates @ templates.T - 2 * np.eye(len(templates))
    assert (scores.argmax(axis=1) == np.arange(len(templates)) ^ 1).all()
