"""Between the messages of embedding.proto and the types of `homeward.types`, without loss.

A template travels as its little-endian float32 bytes: the receiver has the same bits.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from homeward.errors import Corrupt, InvalidInput
from homeward.face_message import write_face
from homeward.types import Box, Face, Float32, PhotoFaces, Quality
from homeward.v1 import embedding_pb2, records_pb2

_NORM_ERROR = 1e-6  # a template's norm is 1 within this


def write_faces(value: PhotoFaces) -> embedding_pb2.EmbedResponse:
    """The answer to one photo."""
    return embedding_pb2.EmbedResponse(
        sha256=value.sha256,
        media_type=value.media_type,
        width=value.width,
        height=value.height,
        model_id=value.model_id,
        faces=[
            embedding_pb2.EmbeddedFace(face=write_face(face), template=face.template.astype("<f4").tobytes())
            for face in value.faces
        ],
    )


def read_faces(message: embedding_pb2.EmbedResponse, dimension: int) -> PhotoFaces:
    """The inverse of `write_faces`. Raises `Corrupt` for templates no worker may send."""
    return PhotoFaces(
        sha256=message.sha256,
        media_type=message.media_type,
        width=message.width,
        height=message.height,
        model_id=message.model_id,
        faces=tuple(
            _read_face(face.face, _read_template(face.template, dimension)) for face in message.faces
        ),
    )


def read_landmarks(message: embedding_pb2.CropRequest) -> Float32:
    """(5, 2) float32; raises `InvalidInput` for another number of points or one that is not finite."""
    landmarks = _points(message.landmarks)
    if landmarks.shape != (5, 2) or not np.isfinite(landmarks).all():
        raise InvalidInput("landmarks are five points x, y, each a finite number", field="landmarks")
    return landmarks


def _read_face(message: records_pb2.Face, template: Float32) -> Face:
    return Face(
        ordinal=message.ordinal,
        box=Box(message.box.x, message.box.y, message.box.width, message.box.height),
        landmarks=_points(message.landmarks),
        detector_score=message.detector_score,
        quality=Quality(
            _decimal(message.quality.score),
            {name: _decimal(value) for name, value in message.quality.components.items()},
            tuple(message.quality.reasons),
        ),
        template=template,
    )


def _read_template(raw: bytes, dimension: int) -> Float32:
    if len(raw) != 4 * dimension:
        raise Corrupt(f"a worker sent a template of {len(raw)} bytes, not of {4 * dimension}")
    template = np.frombuffer(raw, "<f4").astype(np.float32)
    norm = float(np.linalg.norm(template.astype(np.float64)))
    if not abs(norm - 1) <= _NORM_ERROR:  # also when it is not a number
        raise Corrupt(f"a worker sent a template of norm {norm}")
    return template


def _decimal(value: float) -> float:
    """The shortest decimal of a float32: a grade of 86.9 is 86.9 again, not 86.9000015."""
    return float(str(np.float32(value)))


def _points(points: Iterable[records_pb2.Point]) -> Float32:
    return np.array([(point.x, point.y) for point in points], np.float32).reshape(-1, 2)
