"""Folders of labelled photos, `DIR/<identity>/<photo>`, through the one data path: one face each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from homeward.errors import HomewardError, InvalidInput, PhotoReason, PhotoRejected
from homeward.types import Face, Float32, PhotoFaces
from workers.decode import DecodedPhoto
from workers.local import PhotoDecoder, PhotoPipeline

_BATCH = 32


@dataclass(frozen=True, slots=True)
class LabelledPhoto:
    """One photo and whose it is: the name of the folder it lies in."""

    identity: str
    path: Path


@dataclass(frozen=True, slots=True)
class LabelledTemplate:
    """The photo's most central face, or the reason why there is none (a failure to enrol)."""

    photo: LabelledPhoto
    template: Float32 | None  # (d,) float32, unit length
    reason: str = ""  # the error code, a `PhotoReason` as a rule


def list_labelled(folder: Path) -> tuple[LabelledPhoto, ...]:
    """All photos of `folder/<identity>/`, by identity, then name; hidden files are left out.

    Raises `InvalidInput` (PAIRS_INVALID) when there are none.
    """
    if not folder.is_dir():
        raise InvalidInput(f"{folder} is no folder", code="PAIRS_INVALID")
    photos = [
        LabelledPhoto(identity=path.parent.name, path=path)
        for path in folder.glob("*/*")
        if path.is_file() and not path.name.startswith(".") and not path.parent.name.startswith(".")
    ]
    if not photos:
        raise InvalidInput(
            f"{folder} has no photos; expected {folder}/<identity>/<photo>", code="PAIRS_INVALID"
        )
    return tuple(sorted(photos, key=lambda photo: (photo.identity, photo.path.name)))


def most_central(photo: PhotoFaces) -> Face | None:
    """The face whose box centre is nearest to the photo's; None without a face."""

    def distance(face: Face) -> float:
        x = face.box.x + face.box.width / 2 - photo.width / 2
        y = face.box.y + face.box.height / 2 - photo.height / 2
        return math.hypot(x, y)

    return min(photo.faces, key=distance, default=None)


def embed_labelled(
    photos: Sequence[LabelledPhoto],
    decoder: PhotoDecoder,
    pipeline: PhotoPipeline,
    *,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> list[LabelledTemplate]:
    """Templates of all photos, in order; the next batch is decoded while one is embedded."""
    batches = [photos[start : start + _BATCH] for start in range(0, len(photos), _BATCH)]
    answers: list[LabelledTemplate] = []
    with ThreadPoolExecutor(1, thread_name_prefix="decode") as ahead:
        waiting = ahead.submit(_decode, decoder, batches[0]) if batches else None
        for number, batch in enumerate(batches):
            assert waiting is not None
            decoded = waiting.result()
            if number + 1 < len(batches):
                waiting = ahead.submit(_decode, decoder, batches[number + 1])
            answers.extend(_embed(pipeline, batch, decoded))
            progress(len(answers), len(photos))
    return answers


def _decode(decoder: PhotoDecoder, photos: Sequence[LabelledPhoto]) -> list[DecodedPhoto | PhotoRejected]:
    return decoder.decode_many([photo.path.read_bytes() for photo in photos])


def _embed(
    pipeline: PhotoPipeline,
    photos: Sequence[LabelledPhoto],
    decoded: Sequence[DecodedPhoto | PhotoRejected],
) -> Iterator[LabelledTemplate]:
    answers = iter(pipeline.embed_each([photo for photo in decoded if isinstance(photo, DecodedPhoto)]))
    for photo, pixels in zip(photos, decoded, strict=True):
        if isinstance(pixels, PhotoRejected):
            yield LabelledTemplate(photo, None, pixels.reason)
            continue
        answer = next(answers)
        if isinstance(answer, HomewardError):
            yield LabelledTemplate(photo, None, answer.code)
            continue
        face = most_central(answer)
        if face is None:
            yield LabelledTemplate(photo, None, PhotoReason.NO_FACE)
        else:
            yield LabelledTemplate(photo, face.template)
