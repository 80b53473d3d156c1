"""Which faces of a second detector are those that were enrolled."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from catalogue.types import ENROLLED, StoredFace
from cluster.upgrade.matching import NEAR, match_faces
from homeward.types import Face, FaceChoice, PhotoFaces, PhotoNote
from tests.cluster.fakes import fake_face, fake_photo

PHOTO = fake_photo("one", 5)


def enrolled(ordinal: int) -> StoredFace:
    face = fake_face(PHOTO, ordinal)
    return StoredFace(
        f"{ordinal:032x}", "0" * 32, "0" * 64, "old", ordinal, face.box, face.landmarks, 0.9, face.quality
    )


def seen(*faces: Face) -> PhotoFaces:
    return PhotoFaces("0" * 64, "image/png", 500, 120, "new", faces)


def moved(face: Face, by: float, ordinal: int = 0) -> Face:
    return replace(face, ordinal=ordinal, landmarks=(face.landmarks + np.float32(by)).astype(np.float32))


def test_the_enrolled_face_is_found_under_another_ordinal_and_beside_others() -> None:
    found = match_faces(
        [enrolled(1)],
        seen(moved(fake_face(PHOTO, 0), 2.0, 0), moved(fake_face(PHOTO, 1), 3.0, 1)),
        PhotoNote(choice=FaceChoice.ORDINAL, ordinal=0),
    )
    assert [face.ordinal for face in found.faces] == [1]
    assert (found.outcome, found.missing) == (ENROLLED, ())


def test_a_second_face_seen_only_now_is_not_the_child() -> None:
    found = match_faces([enrolled(0)], seen(fake_face(PHOTO, 0), fake_face(PHOTO, 1)), PhotoNote())
    assert [face.ordinal for face in found.faces] == [0]


def test_on_a_poster_every_face_is_the_child() -> None:
    note = PhotoNote(choice=FaceChoice.COMPOSITE)
    found = match_faces([enrolled(0)], seen(fake_face(PHOTO, 0), fake_face(PHOTO, 1)), note)
    assert [face.ordinal for face in found.faces] == [0, 1]


def test_a_face_that_is_not_seen_is_missing() -> None:
    found = match_faces([enrolled(0), enrolled(1)], seen(fake_face(PHOTO, 1)), PhotoNote())
    assert [face.ordinal for face in found.missing] == [0]
    assert [face.ordinal for face in found.faces] == [1]
    nobody = match_faces([enrolled(0)], seen(), PhotoNote())
    assert (nobody.outcome, nobody.faces, len(nobody.missing)) == ("NO_FACE", (), 1)


@pytest.mark.parametrize(("faces", "code"), [(0, "NO_FACE"), (1, ENROLLED), (2, "FACE_CHOICE_REQUIRED")])
def test_a_photo_that_gave_no_face_gets_a_new_chance_by_its_note(faces: int, code: str) -> None:
    found = match_faces([], seen(*(fake_face(PHOTO, at) for at in range(faces))), PhotoNote())
    assert (found.outcome, found.missing) == (code, ())
    assert len(found.faces) == (1 if code == ENROLLED else 0)


@given(
    st.lists(st.integers(0, 4), unique=True),
    st.lists(st.integers(0, 4), unique=True),
    st.floats(-0.9, 0.9),
)
def test_each_enrolled_face_is_matched_once_or_missing(old: list[int], new: list[int], share: float) -> None:
    by = share * NEAR * 94.8 / 2**0.5  # of the root of a fake face's area, along both axes
    faces = [moved(fake_face(PHOTO, at), by, number) for number, at in enumerate(new)]
    found = match_faces([enrolled(at) for at in old], seen(*faces), PhotoNote(choice=FaceChoice.MOST_CENTRAL))
    if old:
        assert {new[face.ordinal] for face in found.faces} == set(old) & set(new)
        assert {face.ordinal for face in found.missing} == set(old) - set(new)
