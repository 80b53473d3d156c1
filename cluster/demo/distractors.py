"""Templates of nobody, enrolled as records of a gallery of their own: a crowd to search among."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.progress import Progress

from catalogue.types import FaceWrite, PhotoWrite, RecordWrite, RowColumns, WriteResult

if TYPE_CHECKING:
    from cluster.compose import Parts
from cluster.rows import face_row
from homeward.errors import InvalidInput
from homeward.ids import photo_sha256, record_id
from homeward.types import Attributes, Box, Face, FaceChoice, FaceRow, Float32, PhotoNote, Quality, RecordKey
from index.columns import from_rows
from index.shard_types import Pushed
from index.synthetic import draw_templates

STATISTICS = Path(__file__).with_name("template_statistics.npz")
AGENCY, GALLERY = "demo", "distractors"
MEDIA_TYPE = "application/x-synthetic-template"  # there is no photo behind it
FACES = 5  # templates of one record: a crowd of 100,000 is 20,000 records
_BATCH = 5_000
_NOWHERE = np.zeros((5, 2), np.float32)
_COMPOSITE = PhotoNote(choice=FaceChoice.COMPOSITE)


@dataclass(frozen=True, slots=True)
class Distractor:
    """One record of nobody: what the catalogue and the gallery are to hold."""

    write: RecordWrite
    rows: tuple[FaceRow, ...]


def statistics(model_id: str) -> tuple[Float32, Float32]:
    """Mean (d,) and covariance (d, d) float32 of real templates of the model.

    Raises `InvalidInput` (STATISTICS_MISSING) for any model but the one they were measured with.
    """
    with np.load(STATISTICS, allow_pickle=False) as file:
        if str(file["model_id"]) != model_id:
            raise InvalidInput(
                f"there are no template statistics of {model_id}; use the default model",
                code="STATISTICS_MISSING",
            )
        return file["mean"], file["covariance"]


def distractors(templates: Float32, start: int, model_id: str, columns: RowColumns) -> list[Distractor]:
    """Records of `FACES` templates each, numbered from `start`, for (n, d) templates."""
    made = []
    for number, first in enumerate(range(0, len(templates), FACES), start):
        key = RecordKey(AGENCY, GALLERY, f"synthetic record {number:,}")
        record, photo = record_id(key), photo_sha256(b"distractor %d" % number)
        faces = [
            Face(ordinal, Box(0, 0, 0, 0), _NOWHERE, 0.0, Quality(0.0), template)
            for ordinal, template in enumerate(templates[first : first + FACES])
        ]
        rows = tuple(
            face_row(face, record=record, photo=photo, model=model_id, columns=columns) for face in faces
        )
        seen = tuple(
            FaceWrite(
                face_id=row.face_id,
                ordinal=face.ordinal,
                box=face.box,
                landmarks=face.landmarks,
                detector_score=0.0,
                quality=face.quality,
            )
            for face, row in zip(faces, rows, strict=True)
        )
        picture = PhotoWrite(photo, MEDIA_TYPE, 0, 0, 0, note=_COMPOSITE, faces_seen=len(seen), faces=seen)
        made.append(Distractor(RecordWrite(key, Attributes(), (picture,), model_id), rows))
    return made


async def load_distractors(parts: Parts, count: int, console: Console | None = None, seed: int = 1) -> None:
    """Enrol `count` synthetic templates straight into gallery, catalogue and index.

    They have no photos, so they bypass decoding and embedding; the order of writes is the usual one.
    """
    model_id = parts.embedding.model_id
    mean, covariance = statistics(model_id)
    templates = await asyncio.to_thread(
        draw_templates, mean.astype(np.float64), covariance.astype(np.float64), count, seed
    )
    key = RecordKey(AGENCY, GALLERY, "any")
    columns = parts.catalogue.columns([(key, Attributes(), PhotoNote(), "")])[0]

    def load(start: int) -> None:
        batch = distractors(templates[start : start + _BATCH], start // FACES, model_id, columns)
        parts.gallery.upsert([row for one in batch for row in one.rows])
        results: list[WriteResult] = []
        for result in parts.catalogue.apply([one.write for one in batch]):
            if isinstance(result, Exception):
                raise result
            results.append(result)
        parts.live.catch_up(
            [
                Pushed(result.record_id, result.rev, from_rows(one.rows, parts.index.dimension), ())
                for one, result in zip(batch, results, strict=True)
            ]
        )

    with Progress(console=console, transient=True, disable=console is None) as bars:
        task = bars.add_task("distractors", total=count)
        for start in range(0, count, _BATCH):
            await asyncio.get_running_loop().run_in_executor(parts.blocking, load, start)
            bars.advance(task, min(_BATCH, count - start))
        await asyncio.get_running_loop().run_in_executor(parts.blocking, parts.gallery.flush)
