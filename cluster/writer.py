"""Commits enrolments in batches: photo bytes, template rows, catalogue, index, in this order.

Enrolments that arrive while a batch is being written share the next one: their photos are put by
several threads, their rows are one gallery write, their records one catalogue transaction. What
is about to be written elsewhere is announced to the catalogue first (an intent), so that whatever
dies leaves nothing that nobody knows of.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from concurrent.futures import Executor, wait
from dataclasses import dataclass, replace

from catalogue.load_types import Lease
from catalogue.store import Catalogue
from catalogue.types import Item, RecordWrite, Store, StoredRecord, WriteResult
from cluster.erasing import Eraser
from cluster.followed import Followed
from cluster.galleries import Galleries
from cluster.gallery_rows import GalleryRows
from cluster.rows import face_row
from homeward.errors import HomewardError, InvalidInput
from homeward.ids import record_id
from homeward.types import Face, FaceRow
from index.columns import from_rows
from index.gallery import MilvusGallery
from index.score import check_templates
from index.shard_types import Pushed
from photos.store import PhotoStore


@dataclass(frozen=True, slots=True)
class Job:
    """One enrolment, embedded and ready to be written."""

    write: RecordWrite
    contents: tuple[bytes, ...]  # of `write.photos`, in order
    faces: tuple[tuple[Face, ...], ...]  # with templates, of `write.photos`, in order
    same_facts: bool = False  # the attributes are those that the record has at `write.expected_version`


@dataclass(frozen=True, slots=True)
class Committed:
    """One enrolment that is in every store, and its record as it is now (None: deleted since)."""

    result: WriteResult
    record: StoredRecord | None


class Writer:
    """Writes batches of enrolments. Blocking; one batch at a time."""

    def __init__(
        self,
        *,
        catalogue: Catalogue,
        photos: PhotoStore,
        gallery: MilvusGallery,
        live: Followed,
        gallery_rows: GalleryRows,
        eraser: Eraser,
        executor: Executor,
        lease: Lease | None = None,
        galleries: Galleries | None = None,
    ) -> None:
        """`lease`: of a bulk load, without which nothing is committed. `galleries`: where else rows of the
        same records may lie."""
        self._catalogue = catalogue
        self._photos = photos
        self._gallery = gallery
        self._live = live
        self._gallery_rows = gallery_rows
        self._eraser = eraser
        self._executor = executor
        self._lease = lease
        self._galleries = galleries

    def write(self, jobs: Sequence[Job]) -> list[Committed | Exception]:
        """One result per job, in order: what was committed, or why it was not.

        When this returns, what was committed is in all four places and what was not is announced
        for erasure. Raises `StoreUnavailable` when a store fails the whole batch: nothing of it is
        committed, unless only the index could not follow, which repeating the request mends.
        """
        self._live.check_loaded()
        results: list[Committed | Exception | None] = [None] * len(jobs)
        rows: dict[int, tuple[FaceRow, ...]] = {}
        for position, job in enumerate(jobs):
            try:
                rows[position] = self._rows(job)
            except InvalidInput as error:  # a value that cannot be coded costs its own job
                results[position] = error
        if rows:
            written = self._write([jobs[position] for position in rows], list(rows.values()))
            for position, result in zip(rows, written, strict=True):
                results[position] = result
        return [result for result in results if result is not None]

    def _write(
        self, jobs: Sequence[Job], rows: Sequence[tuple[FaceRow, ...]]
    ) -> list[Committed | HomewardError]:
        records = [record_id(job.write.key) for job in jobs]
        others = self._other_faces(
            [record for record, job in zip(records, jobs, strict=True) if not job.same_facts], rows
        )
        intents = self._catalogue.begin_intents(
            [
                *(_items(job, record, own) for job, record, own in zip(jobs, records, rows, strict=True)),
                others,
            ]
        )
        results = self._commit(jobs, rows, intents)
        done = list(zip(records, rows, results, strict=True))
        refused = any(isinstance(result, HomewardError) for result in results)
        # New attributes are new filter columns of the record's other rows too, and rows that were refused
        # or had been written before may have replaced newer ones: all get what the catalogue says now.
        behind = {item.record_id for item in others} | {
            record for record, _, result in done if isinstance(result, HomewardError) or result.replayed
        }
        if behind:
            self._gallery_rows.rewrite(behind)
            if self._galleries is not None:
                self._galleries.rewrite(behind)
        self._live.catch_up(
            [
                Pushed(record, result.rev, from_rows(own, self._gallery_rows.dimension), result.removed_faces)
                for record, own, result in done
                if not isinstance(result, HomewardError) and record not in behind
            ]
        )
        self._catalogue.abandon([guard for guard in intents[-1:] if guard is not None])
        if refused:
            self._eraser.sweep()
        elif any(isinstance(one, WriteResult) and one.removed_faces for one in results):
            self._eraser.sweep(Store.GALLERY)
        stored = self._catalogue.get_many(records)
        return [
            result if isinstance(result, HomewardError) else Committed(result, stored.get(record))
            for record, _, result in done
        ]

    def _commit(
        self, jobs: Sequence[Job], rows: Sequence[Sequence[FaceRow]], intents: Sequence[str | None]
    ) -> list[WriteResult | HomewardError]:
        """Put, upsert, commit. The first intents are the jobs'; if this fails, all are ended."""
        try:
            puts = [self._executor.submit(self._put, photo) for photo in _contents(jobs)]
            wait(puts)  # all of them: one that ended after the erasure would be nobody's photo
            for put in puts:
                put.result()
            self._gallery.upsert([row for own in rows for row in own])
            return self._catalogue.apply(
                [replace(job.write, intent=intent) for job, intent in zip(jobs, intents, strict=False)],
                self._lease,
            )
        except BaseException:
            self._give_up({record_id(job.write.key) for job in jobs}, intents)
            raise

    def _other_faces(self, records: Sequence[str], rows: Sequence[Sequence[FaceRow]]) -> list[Item]:
        """Faces that the records have already and that these jobs do not write: announced too, so that
        a restart knows whose columns may be behind."""
        new = {row.face_id for own in rows for row in own}
        return [
            Item(Store.GALLERY, face.record_id, face.face_id)
            for face in self._catalogue.faces_of(set(records))
            if face.face_id not in new
        ]

    def _rows(self, job: Job) -> tuple[FaceRow, ...]:
        """The job's gallery rows, with the filter columns the catalogue codes."""
        write, record = job.write, record_id(job.write.key)
        columns = self._catalogue.columns(
            [(write.key, write.attributes, photo.note, write.load) for photo in write.photos]
        )
        rows = tuple(
            face_row(face, record=record, photo=photo.sha256, model=write.model_id, columns=own)
            for photo, faces, own in zip(write.photos, job.faces, columns, strict=True)
            for face in faces
        )
        for row in rows:
            check_templates(row.template[None], len(row.template))
        return rows

    def _put(self, photo: tuple[str, bytes]) -> None:
        self._photos.put(*photo)

    def _give_up(self, records: set[str], intents: Sequence[str | None]) -> None:
        """End the intents of a batch that failed. Rows that were there before may have got its columns: as
        long as they cannot be rewritten the intents stay, and the next sweep or start does it."""
        try:
            self._gallery_rows.rewrite(records)
        except HomewardError:
            return
        self._abandon(intents)

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
