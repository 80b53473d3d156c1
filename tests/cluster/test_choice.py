"""The caller says which face is the child's; nothing is guessed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from catalogue.types import ENROLLED
from cluster.choice import choose_faces
from homeward.errors import PhotoReason
from homeward.ids import photo_sha256
from homeward.types import Box, FaceChoice, PhotoFaces, PhotoNote
from tests.cluster.fakes import MODEL_ID, fake_face


def seen(faces: int) -> PhotoFaces:
    photo = b"photo"
    return PhotoFaces(
        photo_sha256(photo),
        "image/jpeg",
        300,
        120,
        MODEL_ID,
        tuple(fake_face(photo, ordinal) for ordinal in range(faces)),
    )


@pytest.mark.parametrize(
    ("faces", "note", "code", "ordinals"),
    [
        (0, PhotoNote(), PhotoReason.NO_FACE, []),
        (0, PhotoNote(choice=FaceChoice.COMPOSITE), PhotoReason.NO_FACE, []),
        (1, PhotoNote(), ENROLLED, [0]),
        (3, PhotoNote(), PhotoReason.FACE_CHOICE_REQUIRED, []),
        (3, PhotoNote(choice=FaceChoice.ORDINAL, ordinal=2), ENROLLED, [2]),
        (3, PhotoNote(choice=FaceChoice.ORDINAL, ordinal=3), PhotoReason.FACE_ORDINAL_UNKNOWN, []),
        (3, PhotoNote(choice=FaceChoice.MOST_CENTRAL), ENROLLED, [1]),
        (3, PhotoNote(choice=FaceChoice.COMPOSITE), ENROLLED, [0, 1, 2]),
    ],
)
def test_the_choice_decides(faces: int, note: PhotoNote, code: str, ordinals: list[int]) -> None:
    chosen = choose_faces(seen(faces), note)
    assert chosen.code == code
    assert [face.ordinal for face in chosen.faces] == ordinals
    assert (chosen.message == "") == (code == ENROLLED)


def test_of_two_equally_central_faces_the_lower_ordinal_is_taken() -> None:
    both = seen(2)
    middle = Box(100, 10, 100, 100)
    faces = tuple(replace(face, box=middle) for face in reversed(both.faces))
    chosen = choose_faces(replace(both, faces=faces), PhotoNote(choice=FaceChoice.MOST_CENTRAL))
    assert [face.ordinal for face in chosen.faces] == [0]
