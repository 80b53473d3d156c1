"""Which faces of a photo are the child's: what the caller said, applied to what the model saw.

Two faces in one photo are two people unless the caller calls the photo a composite; with several
people Homeward does not guess.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import hypot

from catalogue.types import ENROLLED
from homeward.errors import PhotoReason
from homeward.types import Face, FaceChoice, PhotoFaces, PhotoNote


@dataclass(frozen=True, slots=True)
class Chosen:
    """The faces to enrol from one photo, and what to tell the caller."""

    code: str  # ENROLLED, or the `PhotoReason` why there is none
    message: str  # what to do about it, for a person
    faces: tuple[Face, ...] = ()


def choose_faces(seen: PhotoFaces, note: PhotoNote) -> Chosen:
    """Apply the caller's choice. A photo without a usable face gives a reason, not an error."""
    if not seen.faces:
        return Chosen(PhotoReason.NO_FACE, "no face was found; use a sharper or closer photo of the face")
    match note.choice:
        case FaceChoice.SOLE if len(seen.faces) > 1:
            return Chosen(
                PhotoReason.FACE_CHOICE_REQUIRED,
                f"{len(seen.faces)} faces were found; say which is the child's with choice ORDINAL and "
                "the face's ordinal, MOST_CENTRAL, or COMPOSITE if all show this child",
            )
        case FaceChoice.ORDINAL:
            faces = tuple(face for face in seen.faces if face.ordinal == note.ordinal)
            if not faces:
                return Chosen(
                    PhotoReason.FACE_ORDINAL_UNKNOWN,
                    f"there is no face {note.ordinal}; {len(seen.faces)} were found, counted from 0 by "
                    "position, top first, then left",
                )
        case FaceChoice.MOST_CENTRAL:
            faces = (most_central(seen),)
        case _:
            faces = seen.faces
    return Chosen(ENROLLED, "", faces)


def most_central(seen: PhotoFaces) -> Face:
    """The face whose box centre is nearest to the photo's centre; the lower ordinal of two equal."""

    def distance(face: Face) -> tuple[float, int]:
        across = face.box.x + face.box.width / 2 - seen.width / 2
        down = face.box.y + face.box.height / 2 - seen.height / 2
        return hypot(across, down), face.ordinal

    return min(seen.faces, key=distance)
