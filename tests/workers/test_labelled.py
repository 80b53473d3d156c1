"""Folders of labelled photos: which photos, which face, and every failure kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeward.errors import HomewardError, InvalidInput, PhotoReason, PhotoRejected, WorkerUnavailable
from homeward.types import Box, Face, Float32, PhotoFaces, Quality
from workers.decode import DecodedPhoto
from workers.labelled import LabelledPhoto, embed_labelled, list_labelled, most_central


def _face(x: float, y: float) -> Face:
    template = np.array([x, y], dtype=np.float32)
    return Face(0, Box(x, y, 10, 10), np.zeros((5, 2), np.float32), 1.0, Quality(50), template)


def _faces(*faces: Face) -> PhotoFaces:
    return PhotoFaces("", "image/png", 100, 80, "m", faces)


class _Decoder:
    """A photo is as wide as it has bytes; "bad" ones are refused."""

    def decode_many(self, photos: Sequence[bytes]) -> list[DecodedPhoto | PhotoRejected]:
        return [
            PhotoRejected(PhotoReason.CORRUPT, "bad")
            if photo == b"bad"
            else DecodedPhoto(np.zeros((1, len(photo), 3), np.uint8), len(photo), 1, "image/png", "")
            for photo in photos
        ]

    def close(self) -> None:
        """Nothing to end."""


class _Pipeline:
    """Two faces in a photo, the second one central; none when it is 4 wide, an error when 5."""

    model_id = "m"
    dimension = 2
    device = "cpu"

    def embed_each(self, photos: Sequence[DecodedPhoto]) -> list[PhotoFaces | HomewardError]:
        answers: list[PhotoFaces | HomewardError] = []
        for photo in photos:
            if photo.width == 5:
                answers.append(WorkerUnavailable("broken"))
            else:
                answers.append(_faces(*([] if photo.width == 4 else [_face(0, 0), _face(photo.width, 40)])))
        return answers

    def crop(self, photo: DecodedPhoto, landmarks: Float32) -> bytes:
        raise NotImplementedError


def test_every_failure_keeps_its_place_and_reason(tmp_path: Path) -> None:
    contents = [b"x" * 20, b"bad", b"x" * 4, b"x" * 5, *(b"x" * (30 + number) for number in range(70))]
    photos = []
    for number, content in enumerate(contents):
        path = tmp_path / f"{number:03}.png"
        path.write_bytes(content)
        photos.append(LabelledPhoto("p", path))
    steps: list[tuple[int, int]] = []
    found = embed_labelled(photos, _Decoder(), _Pipeline(), progress=lambda *step: steps.append(step))
    assert [item.photo for item in found] == photos
    assert [item.reason for item in found[:5]] == ["", "PHOTO_CORRUPT", "NO_FACE", "WORKER_UNAVAILABLE", ""]
    widths = [item.template[0] for item in found if item.template is not None]
    assert widths == [20, *range(30, 100)]
    assert steps[-1] == (len(photos), len(photos))


def test_no_photos_give_no_templates() -> None:
    assert embed_labelled([], _Decoder(), _Pipeline()) == []


@given(st.lists(st.tuples(st.floats(-50, 150), st.floats(-50, 150)), max_size=6))
def test_the_most_central_face_has_the_nearest_box_centre(corners: list[tuple[float, float]]) -> None:
    photo = _faces(*(_face(x, y) for x, y in corners))
    face = most_central(photo)
    if face is None:
        assert not corners
        return
    distances = [(x + 5 - 50) ** 2 + (y + 5 - 40) ** 2 for x, y in corners]
    assert (face.box.x + 5 - 50) ** 2 + (face.box.y + 5 - 40) ** 2 == pytest.approx(min(distances))


def test_photos_are_listed_by_identity_without_hidden_files(tmp_path: Path) -> None:
    for name in ("b/1.jpg", "a/2.jpg", "a/1.jpg", "a/.DS_Store", ".git/x", "b/deeper/3.jpg", "loose.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    listed = [(photo.identity, photo.path.name) for photo in list_labelled(tmp_path)]
    assert listed == [("a", "1.jpg"), ("a", "2.jpg"), ("b", "1.jpg")]


def test_a_folder_without_photos_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(InvalidInput, match=r"<identity>|no folder"):
            list_labelled(folder)
