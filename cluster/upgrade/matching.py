"""Which faces that a second model sees are those that were enrolled.

Who the child is was said at enrolment, of what the first detector saw. Another detector counts other faces,
so an ordinal says nothing across models, and a photo that showed one face may show two: faces are the same
where they lie in the same place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np

from catalogue.types import ENROLLED, StoredFace
from cluster.choice import choose_faces
from homeward.errors import PhotoReason
from homeward.types import Face, FaceChoice, PhotoFaces, PhotoNote

NEAR = 0.15
"""Two faces are one when their five landmarks are on average not further apart than this share of the
enrolled face's size (the root of its box's area). Detectors differ by a few hundredths; neighbours are more
than a whole face apart."""


@dataclass(frozen=True, slots=True)
class Matched:
    """What of a photo is to be enrolled with the second model."""

    outcome: str  # ENROLLED with any face, else why there is none
    faces: tuple[Face, ...]
    missing: tuple[StoredFace, ...]  # enrolled with the first model, not seen by the second


def match_faces(enrolled: Sequence[StoredFace], seen: PhotoFaces, note: PhotoNote) -> Matched:
    """Find the enrolled faces among those seen. A photo without an enrolled face gets a new chance, by what
    its note says."""
    if not enrolled:
        chosen = choose_faces(seen, note)
        return Matched(chosen.code, chosen.faces, ())
    pairs = _pairs(enrolled, seen.faces)
    missing = tuple(face for at, face in enumerate(enrolled) if at not in pairs)
    found = set(pairs.values())
    every = note.choice is FaceChoice.COMPOSITE  # each face is the child's, also one that is seen only now
    faces = tuple(face for at, face in enumerate(seen.faces) if every or at in found)
    return Matched(ENROLLED if faces else PhotoReason.NO_FACE, faces, missing)


def _pairs(enrolled: Sequence[StoredFace], seen: Sequence[Face]) -> dict[int, int]:
    """Which of the faces seen is each enrolled one; the nearest first, each once."""
    near = sorted(
        (distance, old, new)
        for old, face in enumerate(enrolled)
        for new, other in enumerate(seen)
        if (distance := _distance(face, other)) <= NEAR
    )
    pairs: dict[int, int] = {}
    for _, old, new in near:
        if old not in pairs and new not in pairs.values():
            pairs[old] = new
    return pairs


def _distance(enrolled: StoredFace, seen: Face) -> float:
    size = sqrt(max(enrolled.box.width * enrolled.box.height, 1.0))
    apart = np.linalg.norm(enrolled.landmarks.astype(np.float64) - seen.landmarks, axis=1)
    return float(apart.mean()) / size
