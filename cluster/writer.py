"""Commits enrolments in batches: photo bytes, template rows, catalogue, resident index, in this order.

Enrolments that arrive while a batch is being written share the next one: their photos are put by
several threads, their rows are one gallery write, their records one catalogue transaction. What
is about to be written elsewhere is announced to the catalogue first (an intent), so that whatever
dies leaves nothing that nobody knows of.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace

from catalogue.store import Catalogue
from catalogue.types import Item, RecordWrite, Store, WriteResult
from cluster.erasing import Eraser
from cluster.follow import Follower, Written
from cluster.rows import face_row
from homeward.errors import HomewardError
from homeward.ids import record_id
from homeward.types import Face, FaceRow
from index.gallery import MilvusGallery
from index.score import check_templates
from photos.store import PhotoStore


@dataclass(frozen=True, slots=True)
class Job:
    """One enrolment, embedded and ready to be written."""

    write: RecordWrite
    contents: tuple[bytes, ...]  # of `write.photos`, in order
    faces: tuple[tuple[Face, ...], ...]  # with templates, of `write.photos`, in order


class Writer:
    """Writes batches of enrolments. Blocking; one batch at a time."""

    def __init__(
        self,
        *,
        catalogue: Catalogue,
        photos: PhotoStore,
        gallery: MilvusGallery,
        follower: Follower,
        eraser: Eraser,
        executor: Executor,
    ) -> None:
        self._catalogue = catalogue
        self._photos = photos
        self._gallery = gallery
        self._follower = follower
        self._eraser = eraser
        self._executor = executor

    def write(self, jobs: Sequence[Job]) -> list[WriteResult | Exception]:
        """One result per job, in order: what was committed, or why it was not.

        When this returns, what was committed is in all four places and what was not is announced
        for erasure. Raises `StoreUnavailable` when a store fails the whole batch: nothing of it is
        committed, unless only the index could not follow, which repeating the request mends.
        """
        model = [job.write.model_id for job in jobs]
        records = [record_id(job.write.key) for job in jobs]
        rows = self._rows(jobs, records, model)
        intents = self._catalogue.begin_intents(
            [_items(job, record, own) for job, record, own in zip(jobs, records, rows, strict=True)]
        )
        try:
            list(
                self._executor.map(self._put, *zip(*_contents(jobs), strict=True)) if _contents(jobs) else ()
            )
            self._gallery.upsert([row for own in rows for row in own])
            results = self._catalogue.apply(
                [replace(job.write, intent=intent) for job, intent in zip(jobs, intents, strict=True)]
            )
        except BaseException:
            self._abandon(intents)
            raise
        written: list[Written] = []
        refused: set[str] = set()
        for record, own, result in zip(records, rows, results, strict=True):
            if isinstance(result, HomewardError):
                refused.add(record)
            elif not result.replayed:
                written.append(Written(record, result.rev, own, result.removed_faces))
        if refused:
            # The refused rows may have replaced rows that live: those get their own columns back.
            self._gallery.upsert(list(self._follower.current_rows(refused).face_rows()))
        self._follower.catch_up(written)
        if refused or any(one.removed_faces for one in written):
            self._eraser.sweep(Store.GALLERY)
        return list(results)

    def _rows(
        self, jobs: Sequence[Job], records: Sequence[str], models: Sequence[str]
    ) -> list[tuple[FaceRow, ...]]:
        """The gallery rows of each job, with the filter columns the catalogue codes."""
        sources = [
            (job.write.key, job.write.attributes, photo.note, job.write.load)
            for job in jobs
            for photo in job.write.photos
        ]
        columns = iter(self._catalogue.columns(sources))
        rows = [
            tuple(
                face_row(face, record=record, photo=photo.sha256, model=model, columns=own)
                for photo, faces, own in zip(job.write.photos, job.faces, columns, strict=False)
                for face in faces
            )
            for job, record, model in zip(jobs, records, models, strict=True)
        ]
        for own in rows:
            for row in own:
                check_templates(row.template[None], len(row.template))
        return rows

    def _put(self, agency: str, content: bytes) -> None:
        self._photos.put(agency, content)

    def _abandon(self, intents: Sequence[str | None]) -> None:
        """Announce for erasure what was stored; if even that fails, the intents lapse by themselves."""
        with contextlib.suppress(HomewardError):
            self._catalogue.abandon([intent for intent in intents if intent is not None])


def _contents(jobs: Sequence[Job]) -> list[tuple[str, bytes]]:
    return [(job.write.key.agency, content) for job in jobs for content in job.contents]


def _items(job: Job, record: str, rows: Sequence[FaceRow]) -> list[Item]:
    """What the job stores outside of the catalogue."""
    agency = job.write.key.agency
    photos = [Item(Store.PHOTOS, record, photo.sha256, agency) for photo in job.write.photos]
    return photos + [Item(Store.GALLERY, record, row.face_id) for row in rows]
