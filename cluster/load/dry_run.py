"""Looks at an archive before it is loaded: what there is, what would be left out, how long it would take."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from cluster.choice import choose_faces
from cluster.load.open_source import open_source
from cluster.load.part_reader import PartReader, ReadPhoto
from cluster.load.picture import picture_hash
from cluster.load.plan_types import PlannedPhoto
from cluster.load.planning import Look, look
from cluster.load.spec import LoadSpec
from homeward.config import Settings
from homeward.errors import HomewardError
from homeward.types import PhotoFaces
from workers.bulk import BulkEmbedding
from workers.open import open_bulk

SAMPLE = 64  # photos that are tried
SAMPLE_BYTES = 64 << 20  # of them in memory at a time
SHOWN = 20  # of what is left out
_ROW_BYTES = 500  # of a face row beside its template: in the gallery, the catalogue and the index
_PHOTO_BYTES = 400  # of a photo in the catalogue


@dataclass(frozen=True, slots=True)
class DryRun:
    """What a load would be. Times are this machine's alone, from a sample."""

    look: Look
    tried: int
    faces: int  # that the tried photos would give
    rejected: dict[str, int]  # of the tried photos, by reason
    photos_per_s: float
    dimension: int

    @property
    def seconds(self) -> float:
        """That the whole would take here, with this process alone."""
        return self.look.totals.photos / self.photos_per_s if self.photos_per_s else 0.0

    @property
    def photo_bytes(self) -> int:
        """That the photo store would take."""
        return self.look.totals.bytes

    @property
    def row_bytes(self) -> int:
        """That templates and rows would take in gallery, catalogue and index together, about."""
        each = self.faces / self.tried if self.tried else 1.0
        row = 3 * 4 * self.dimension + _ROW_BYTES
        return round(self.look.totals.photos * (each * row + _PHOTO_BYTES))

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "totals": asdict(self.look.totals),
            "parts": self.look.parts,
            "left_out": [
                {"photo": one.member.shown, "line": one.line, "code": one.code, "message": one.why}
                for one in self.look.left_out
            ],
            "tried": self.tried,
            "tried_rejected": self.rejected,
            "tried_faces": self.faces,
            "photos_per_s": round(self.photos_per_s, 2),
            "seconds": round(self.seconds, 1),
            "photo_bytes": self.photo_bytes,
            "row_bytes": self.row_bytes,
        }


def try_load(spec: LoadSpec, settings: Settings) -> DryRun:
    """Count everything, and put a sample through the model. Writes nothing anywhere.

    Raises `InvalidInput` for sources and manifests that cannot be read."""
    opener = partial(open_source, settings=settings)
    found = look(spec, opener, SAMPLE, SHOWN)
    embedding = open_bulk(settings, picture_hash)
    reader = PartReader(spec.sources, opener, settings.workers.max_photo_bytes)
    rejected: Counter[str] = Counter()
    faces = good = 0
    seconds = 0.0
    try:
        for photos in _groups(reader, found.sample):
            rejected.update(photo.code for photo in photos if photo.code)
            readable = [photo for photo in photos if photo.sha256]
            if readable and not good:
                embedding.submit([readable[0].content]).result()  # the first photo also warms up
            begun = time.perf_counter()
            seen = _embedded(embedding, readable, settings.workers.batch_max)
            seconds += time.perf_counter() - begun
            good += len(readable)
            for photo, answer in zip(readable, seen, strict=True):
                if not isinstance(answer, PhotoFaces):
                    rejected[answer.code] += 1
                    continue
                chosen = choose_faces(answer, photo.planned.note)
                faces += len(chosen.faces)
                if not chosen.faces:
                    rejected[chosen.code] += 1
    finally:
        reader.close()
        embedding.close()
    rate = good / seconds if good and seconds else 0.0
    return DryRun(found, len(found.sample), faces, dict(rejected), rate, embedding.dimension)


def _groups(reader: PartReader, sample: Sequence[PlannedPhoto]) -> Iterator[list[ReadPhoto]]:
    """The photos, read, so many at a time as may be in memory together."""
    held: list[ReadPhoto] = []
    size = 0
    for planned in sample:
        if held and size + planned.member.size > SAMPLE_BYTES:
            yield held
            held, size = [], 0
        held.append(reader.read(planned))
        size += len(held[-1].content)
    if held:
        yield held


def _embedded(
    embedding: BulkEmbedding, photos: Sequence[ReadPhoto], size: int
) -> list[PhotoFaces | HomewardError]:
    """What the model sees, batches side by side as in a load."""
    batches = [photos[at : at + size] for at in range(0, len(photos), size)]
    futures = [embedding.submit([photo.content for photo in batch]) for batch in batches]
    return [seen.faces for future in futures for seen in future.result().photos]
