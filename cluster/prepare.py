"""From the photos of an enrolment to what is written about them: the part that needs the model.

One photo costs itself alone: a refused photo has an outcome, the others go on. Bytes that may yet
be a photograph (cut off, too large for the limits of today) are kept; bytes that are none are not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from catalogue.types import ENROLLED, FaceWrite, PhotoWrite
from cluster.choice import choose_faces
from homeward.errors import InvalidInput, PhotoReason, PhotoRejected
from homeward.ids import face_id, photo_sha256
from homeward.telemetry import PhotoUnused, emit
from homeward.types import Face, PhotoFaces, PhotoNote
from workers.embedding import Embedding

# Bytes that are no photograph, under any limits: they are not kept.
NOT_KEPT = frozenset(
    {
        PhotoReason.EMPTY,
        PhotoReason.TOO_MANY_BYTES,
        PhotoReason.FORMAT_UNKNOWN,
        PhotoReason.FORMAT_REFUSED,
    }
)
_HASHED_HERE_BYTES = 256 * 1024
_UNKNOWN_TYPE = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Upload:
    """One photo of a request."""

    content: bytes
    note: PhotoNote


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one photo of a request."""

    sha256: str
    code: str  # ENROLLED or a `PhotoReason`
    message: str
    seen: tuple[Face, ...] = ()  # all faces, so that the caller can choose
    chosen: tuple[Face, ...] = ()


@dataclass(frozen=True, slots=True)
class Prepared:
    """The photos of one request, embedded: one outcome per upload, one write per photo to keep."""

    outcomes: tuple[Outcome, ...]
    writes: tuple[PhotoWrite, ...]
    contents: tuple[bytes, ...]  # of `writes`, in order
    templates: tuple[tuple[Face, ...], ...]  # faces to enrol, of `writes`, in order


async def prepare(uploads: Sequence[Upload], record_id: str, embedding: Embedding) -> Prepared:
    """Embed all photos at once and apply the caller's choice of face.

    The same photo twice counts once if the caller says the same of it, else `InvalidInput`. Raises
    `Overloaded` or `WorkerUnavailable` when the model cannot be reached: then nothing is written.
    """
    hashes = await _hashes(uploads)
    first: dict[str, int] = {}
    for position, (sha256, upload) in enumerate(zip(hashes, uploads, strict=True)):
        earlier = first.setdefault(sha256, position)
        if uploads[earlier].note != upload.note:
            raise InvalidInput(
                f"photos[{position}] is the same photo as photos[{earlier}], with other words about it; "
                "send it once (with choice COMPOSITE if several of its faces are the child's)",
                field=f"photos[{position}]",
            )
    async with asyncio.TaskGroup() as group:
        tasks = {
            sha256: group.create_task(_embed(uploads[position].content, embedding))
            for sha256, position in first.items()
        }
    results = {sha256: task.result() for sha256, task in tasks.items()}
    for result in results.values():
        if isinstance(result, Exception) and not isinstance(result, PhotoRejected):
            raise result
    outcomes: dict[str, Outcome] = {}
    kept: list[tuple[PhotoWrite, bytes, tuple[Face, ...]]] = []
    for sha256, position in first.items():
        upload, result = uploads[position], results[sha256]
        outcome = _outcome(sha256, upload.note, result)
        outcomes[sha256] = outcome
        if outcome.code != ENROLLED:
            emit(PhotoUnused("enrol photo", "OK", 0.0, reason=outcome.code))
        if not isinstance(result, PhotoRejected) or result.reason not in NOT_KEPT:
            seen = None if isinstance(result, Exception) else result
            write = _write(outcome, upload, seen, record_id, embedding.model_id)
            kept.append((write, upload.content, outcome.chosen))
    return Prepared(
        outcomes=tuple(outcomes[sha256] for sha256 in hashes),
        writes=tuple(write for write, _, _ in kept),
        contents=tuple(content for _, content, _ in kept),
        templates=tuple(faces for _, _, faces in kept),
    )


async def _hashes(uploads: Sequence[Upload]) -> list[str]:
    """SHA-256 of each; off the event loop when it takes longer than going there."""
    if sum(len(upload.content) for upload in uploads) <= _HASHED_HERE_BYTES:
        return [photo_sha256(upload.content) for upload in uploads]
    return await asyncio.to_thread(lambda: [photo_sha256(upload.content) for upload in uploads])


async def _embed(content: bytes, embedding: Embedding) -> PhotoFaces | Exception:
    """Errors as values, so that one photo's does not cancel its siblings."""
    try:
        return await embedding.embed(content)
    except Exception as error:  # noqa: BLE001 - raised by `prepare` unless it is this photo's own
        return error


def _outcome(sha256: str, note: PhotoNote, result: PhotoFaces | Exception) -> Outcome:
    if isinstance(result, PhotoRejected):
        return Outcome(sha256, result.reason, result.message)
    assert isinstance(result, PhotoFaces)
    chosen = choose_faces(result, note)
    return Outcome(sha256, chosen.code, chosen.message, result.faces, chosen.faces)


def _write(
    outcome: Outcome, upload: Upload, seen: PhotoFaces | None, record_id: str, model_id: str
) -> PhotoWrite:
    return PhotoWrite(
        sha256=outcome.sha256,
        media_type=seen.media_type if seen else _UNKNOWN_TYPE,
        width=seen.width if seen else 0,
        height=seen.height if seen else 0,
        bytes=len(upload.content),
        note=upload.note,
        outcome=outcome.code,
        faces_seen=len(outcome.seen),
        faces=face_writes(record_id, outcome.sha256, model_id, outcome.chosen)
        if outcome.code == ENROLLED
        else (),
    )


def face_writes(record_id: str, sha256: str, model_id: str, faces: Sequence[Face]) -> tuple[FaceWrite, ...]:
    """The face rows of one photo under one record, for the catalogue."""
    return tuple(
        FaceWrite(
            face_id=face_id(record_id, sha256, model_id, face.ordinal),
            ordinal=face.ordinal,
            box=face.box,
            landmarks=face.landmarks,
            detector_score=face.detector_score,
            quality=face.quality,
        )
        for face in faces
    )
