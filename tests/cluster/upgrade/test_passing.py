"""What a pass makes of photos that the model could not look at. Model and photos are played."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalogue.open import open_catalogue
from catalogue.store import Catalogue
from catalogue.types import ENROLLED
from catalogue.upgrade_types import UpgradeModel
from cluster.load.patience import Patience
from cluster.upgrade.cover import CoveredPhoto
from cluster.upgrade.passing import Pass
from homeward.config import CatalogueSettings
from homeward.errors import HomewardError, PhotoReason, PhotoRejected, WorkerUnavailable
from homeward.types import Face, PhotoFaces
from tests.catalogue.builders import MODEL, face, write
from workers.bulk import BulkBatch, BulkPhoto

OLD, NEW = UpgradeModel("old", MODEL, 8), UpgradeModel("new", "model-2", 16)


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[Catalogue]:
    opened = open_catalogue(CatalogueSettings(), tmp_path)
    opened.apply([write("a", ["p", "q"])])
    opened.upgrades.release(opened.upgrades.begin(OLD, NEW, "test"))
    yield opened
    opened.close()


@dataclass
class Played:
    """A model that answers photos as it is told, and counts the batches that it got."""

    answers: list[PhotoFaces | HomewardError]
    batches: list[int] = field(default_factory=list)
    model_id: str = NEW.model_id
    placed: list[PhotoFaces | HomewardError] = field(default_factory=list)

    def submit(self, contents: Sequence[bytes]) -> Future[BulkBatch]:
        self.batches.append(len(contents))
        done = Future[BulkBatch]()
        done.set_result(
            BulkBatch(tuple(BulkPhoto(self.answers.pop(0), b"") for _ in contents), decode_s=0, embed_s=0)
        )
        return done

    def known(self, *_: object) -> PhotoFaces | HomewardError:
        return self.placed.pop(0) if self.placed else WorkerUnavailable("memory is short")


def seen() -> PhotoFaces:
    old = face("0" * 32, "p")
    vector = np.full(NEW.dimension, 0.25, np.float32)
    found = Face(0, old.box, old.landmarks, 0.9, old.quality, vector)
    return PhotoFaces("0" * 64, "image/jpeg", 640, 480, NEW.model_id, (found,))


def outcomes(catalogue: Catalogue, model: Played) -> list[tuple[str, int]]:
    """Outcome and lost faces of every photo, in order."""
    written: list[CoveredPhoto] = []

    class Writer:
        def write(self, photos: Sequence[CoveredPhoto]) -> int:
            written.extend(photos)
            return 0

    class Photos:
        def get(self, *_: object) -> bytes:
            return b"photo"

    parts: dict[str, Any] = {"photos": Photos(), "embedding": model, "writer": Writer()}
    patience = Patience(1.0, lambda _: nullcontext())
    passed = Pass(catalogue=catalogue, other=OLD.model_id, patience=patience, batch_max=8, **parts)
    list(passed.run())
    return [(one.outcome, one.lost) for one in written]


def test_a_photo_that_memory_was_short_for_is_looked_at_once_more_and_alone(catalogue: Catalogue) -> None:
    model = Played([WorkerUnavailable("memory is short"), seen(), seen()])
    assert outcomes(catalogue, model) == [(ENROLLED, 0), (ENROLLED, 0)]
    assert model.batches == [2, 1]


def test_the_place_of_an_old_face_is_looked_at_once_more_too(catalogue: Catalogue) -> None:
    nobody = replace(seen(), faces=())
    model = Played([nobody, seen()], placed=[WorkerUnavailable("memory is short"), seen()])
    assert outcomes(catalogue, model) == [(ENROLLED, 0), (ENROLLED, 0)]


def test_what_cannot_be_looked_at_the_second_time_either_is_listed_as_lost(catalogue: Catalogue) -> None:
    short = WorkerUnavailable("memory is short")
    model = Played([short, seen(), short])
    assert outcomes(catalogue, model) == [(short.code, 1), (ENROLLED, 0)]


def test_a_photo_that_is_at_fault_itself_is_not_tried_twice(catalogue: Catalogue) -> None:
    model = Played([seen(), PhotoRejected(PhotoReason.TRUNCATED, "it is cut off")])
    assert outcomes(catalogue, model) == [(ENROLLED, 0), ("PHOTO_TRUNCATED", 1)]
    assert model.batches == [2]
