"""A face as the message that every service speaks of it with."""

from __future__ import annotations

from typing import Protocol

from homeward.types import Box, Float32, Quality
from homeward.v1 import records_pb2


class SeenFace(Protocol):
    """A face as the pipeline saw it or as the catalogue keeps it."""

    @property
    def ordinal(self) -> int: ...
    @property
    def box(self) -> Box: ...
    @property
    def landmarks(self) -> Float32: ...
    @property
    def detector_score(self) -> float: ...
    @property
    def quality(self) -> Quality: ...


def write_face(face: SeenFace, face_id: str = "") -> records_pb2.Face:
    """One face without its template; `face_id` only for faces that are enrolled."""
    return records_pb2.Face(
        face_id=face_id,
        ordinal=face.ordinal,
        box=records_pb2.Box(x=face.box.x, y=face.box.y, width=face.box.width, height=face.box.height),
        landmarks=write_landmarks(face.landmarks),
        detector_score=face.detector_score,
        quality=records_pb2.Quality(
            score=face.quality.score, components=face.quality.components, reasons=face.quality.reasons
        ),
    )


def write_landmarks(landmarks: Float32) -> list[records_pb2.Point]:
    """(5, 2) pixels as points."""
    return [records_pb2.Point(x=x, y=y) for x, y in landmarks.tolist()]
