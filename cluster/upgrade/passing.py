"""One pass: every photo that a model does not cover yet is read, embedded and written.

What is left to do is asked of the catalogue page by page, in the order of records. Some pages are under way
at a time, so that photos are read while others are in the model.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from catalogue.store import Catalogue
from catalogue.types import StoredFace, StoredPhoto, StoredRecord
from cluster.load.patience import Patience
from cluster.upgrade.cover import CoveredPhoto, CoverWriter, covered, enrolled_faces
from cluster.upgrade.matching import Matched, match_faces
from homeward.errors import (
    Corrupt,
    HomewardError,
    NotFound,
    PhotoRejected,
    WorkerUnavailable,
)
from homeward.types import Face, PhotoFaces
from photos.store import PhotoStore
from workers.bulk import BulkEmbedding

PAGE_PHOTOS = 64
PAGES_AT_A_TIME = 3
GONE, DAMAGED = "PHOTO_GONE", "PHOTO_DAMAGED"
_PASSES = 8  # over records that others change at the same time


@dataclass(frozen=True, slots=True)
class Passed:
    """What a pass has done so far."""

    photos: int
    seconds: float


@dataclass(frozen=True, slots=True)
class _Read:
    record: StoredRecord
    photo: StoredPhoto
    content: bytes


class Pass:
    """Covers photos for one model. `run` once; `stop` from any thread."""

    def __init__(
        self,
        *,
        catalogue: Catalogue,
        photos: PhotoStore,
        embedding: BulkEmbedding,
        writer: CoverWriter,
        other: str,
        patience: Patience,
        batch_max: int,
    ) -> None:
        """`other`: the model whose faces are looked for."""
        self._catalogue = catalogue
        self._photos = photos
        self._embedding = embedding
        self._writer = writer
        self._other = other
        self._patience = patience
        self._batch_max = batch_max

    def stop(self) -> None:
        """End soon: `run` raises `Stopped`."""
        self._patience.stop()

    def run(self) -> Iterator[Passed]:
        """Cover everything, and say after each page how much was.

        Raises `Stopped`, what the stores raise when patience is over, and `Conflict` (LEASE_LOST). What
        others enrol meanwhile without covering it may be left: ask how much is."""
        begun, photos = time.monotonic(), 0
        for _ in range(_PASSES):
            before = photos
            for written in self._once():
                photos += written
                yield Passed(photos, time.monotonic() - begun)
            if photos == before:
                return

    def _once(self) -> Iterator[int]:
        after, more = "", True
        running: set[Future[int]] = set()
        with ThreadPoolExecutor(PAGES_AT_A_TIME, thread_name_prefix="page") as executor:
            try:
                while more or running:
                    while more and len(running) < PAGES_AT_A_TIME:
                        records = self._patience.do(lambda after=after: self._next(after))  # type: ignore[misc]
                        more = bool(records)
                        if records:
                            after = records[-1]
                            running.add(executor.submit(self._page, records))
                    done, running = wait(running, return_when=FIRST_COMPLETED) if running else (set(), set())
                    yield from (one.result() for one in done)
            except BaseException:
                self.stop()  # pages under way give up
                raise

    def _next(self, after: str) -> list[str]:
        return self._catalogue.upgrades.uncovered(self._embedding.model_id, after, PAGE_PHOTOS)

    def _page(self, record_ids: Sequence[str]) -> int:
        return self._patience.do(lambda: self._cover(record_ids))

    def _cover(self, record_ids: Sequence[str]) -> int:
        done = self._catalogue.upgrades.covered_photos(self._embedding.model_id, record_ids)
        made: list[CoveredPhoto] = []
        held: list[_Read] = []
        for record in self._catalogue.get_many(record_ids).values():
            for photo in record.photos:
                if (record.record_id, photo.sha256) in done:
                    continue
                content = self._content(record, photo)
                if isinstance(content, bytes):
                    held.append(_Read(record, photo, content))
                else:
                    made.append(self._lost(record, photo, content))
        batches = [
            (batch, self._embedding.submit([one.content for one in batch]))
            for start in range(0, len(held), self._batch_max)
            if (batch := held[start : start + self._batch_max])
        ]
        for batch, future in batches:
            for one, seen in zip(batch, future.result().photos, strict=True):
                made.append(self._covered(one, self._retried(one, seen.faces)))
        self._patience.check()
        return self._writer.write(made) if made else 0

    def _content(self, record: StoredRecord, photo: StoredPhoto) -> bytes | str:
        """The photo, or why it is not to be had."""
        try:
            return self._photos.get(record.key.agency, photo.sha256)
        except NotFound:
            return GONE
        except Corrupt:
            return DAMAGED

    def _retried(self, one: _Read, seen: PhotoFaces | HomewardError) -> PhotoFaces | HomewardError:
        """Once more, and alone, where it was not the photo's fault: no face is to be listed as lost, nor one
        that an earlier pass found to be given up, because memory was short for a moment."""
        if not isinstance(seen, WorkerUnavailable):
            return seen
        return self._embedding.submit([one.content]).result().photos[0].faces

    def _covered(self, one: _Read, seen: PhotoFaces | HomewardError) -> CoveredPhoto:
        enrolled = enrolled_faces(one.photo, self._other)
        if isinstance(seen, PhotoFaces):
            found = match_faces(enrolled, seen, one.photo.note)
        elif isinstance(seen, PhotoRejected | WorkerUnavailable) or not enrolled:
            return self._lost(one.record, one.photo, seen.code)
        else:  # the detector's faces gave no template; the enrolled one's place may
            found = Matched(seen.code, (), enrolled)
        faces = seen.faces if isinstance(seen, PhotoFaces) else ()
        placed = self._placed(one, found.missing)
        return covered(one.record, one.photo, faces, found, placed)

    def _placed(self, one: _Read, missing: Sequence[StoredFace]) -> tuple[Face, ...]:
        """Faces that this detector does not find are embedded where the other one had found them."""
        if not missing:
            return ()
        made = self._embedding.known(one.content, missing)
        if isinstance(made, WorkerUnavailable):  # as in `_retried`
            made = self._embedding.known(one.content, missing)
        if isinstance(made, PhotoFaces):
            return made.faces
        return ()

    def _lost(self, record: StoredRecord, photo: StoredPhoto, reason: str) -> CoveredPhoto:
        lost = enrolled_faces(photo, self._other)
        return covered(record, photo, (), Matched(reason, (), lost))
