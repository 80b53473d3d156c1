"""Writes the embedded photos of a part, and says what became of each.

What an earlier attempt at the same part has written is written again, to the same ids: the answer is the
same. What came from elsewhere - another load, an enrolment - is left as it is: its photos, its attributes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from catalogue.store import Catalogue
from catalogue.types import ENROLLED, PhotoWrite, RecordWrite, StoredRecord
from cluster.choice import choose_faces
from cluster.load.outcome_types import (
    PartOutcome,
    PhotoOutcome,
    RecordOutcome,
)
from cluster.load.part_outcomes import (
    Embedded,
    PartRecord,
    deleted,
    earlier,
    elsewhere,
    refused,
    said,
    told,
    unowned,
)
from cluster.load.plan_types import Part
from cluster.load.turns import Turns
from cluster.prepare import NOT_KEPT, face_writes
from cluster.writer import Committed, Job, Writer
from homeward.errors import (
    Conflict,
    EtagMismatch,
    InvalidInput,
    PhotoRejected,
    RecordDeleted,
    WorkerUnavailable,
)
from homeward.ids import record_id
from homeward.types import Face, PhotoFaces

_TRIES = 8  # of a record that others change at the same time
_UNKNOWN_TYPE = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class _Kept:
    """One photo to be written."""

    write: PhotoWrite
    content: bytes
    faces: tuple[Face, ...]


class PartWriter:
    """Blocking; thread-safe, as `writer` is."""

    def __init__(
        self, writer: Writer, catalogue: Catalogue, *, load: str, model_id: str, reinstate_until: int | None
    ) -> None:
        """`reinstate_until`: records that were deleted up to this rev come back; None: none does."""
        self._writer = writer
        self._catalogue = catalogue
        self._load = load
        self._model_id = model_id
        self._reinstate_until = reinstate_until
        self._turns = Turns()

    def write(self, part: Part, photos: Sequence[Embedded]) -> PartOutcome:
        """Write all records of a part. `photos` as the part has them. May be called again.

        Raises `Unavailable` when a store fails, `Conflict` (LEASE_LOST) when the load is another driver's:
        then some records may be written, and none is half written."""
        records = [
            PartRecord(record_id(part.key(reference)), reference, tuple(found))
            for reference, found in groupby(photos, key=lambda photo: photo.read.planned.reference)
            if reference
        ]
        outcomes = [unowned(photo) for photo in photos if not photo.read.planned.reference]
        written: list[RecordOutcome] = []
        waiting = records
        with self._turns.of(frozenset(record.record_id for record in records)):
            for _ in range(_TRIES):
                waiting = self._write_some(part, waiting, outcomes, written)
                if not waiting:
                    break
            else:
                raise Conflict(
                    f"record {waiting[0].record_id} is changed again and again by others; resume the load "
                    "later",
                    code="RECORD_BUSY",
                )
        outcomes.sort(key=lambda one: one.number)
        written.sort(key=lambda one: one.record_id)
        return PartOutcome(part.number, tuple(outcomes), tuple(written))

    def _write_some(
        self,
        part: Part,
        records: Sequence[PartRecord],
        outcomes: list[PhotoOutcome],
        written: list[RecordOutcome],
    ) -> list[PartRecord]:
        """Write records, note what became of them, and return those that were changed meanwhile."""
        stored = self._catalogue.get_many([record.record_id for record in records])
        jobs: list[tuple[PartRecord, list[_Kept], Job]] = []
        for record in records:
            before = stored.get(record.record_id)
            kept = self._kept(record, before)
            if before is not None and before.load != self._load and not kept:
                outcomes.extend(self._said(record, before, before))
                written.append(told(record, before, load=self._load))
            else:
                jobs.append((record, kept, self._job(part, record, before, kept)))
        again: list[PartRecord] = []
        results = self._writer.write([job for _, _, job in jobs]) if jobs else []
        for (record, _, _), result in zip(jobs, results, strict=True):
            before = stored.get(record.record_id)
            if isinstance(result, EtagMismatch) or _lapsed(result):
                again.append(record)
            elif isinstance(result, RecordDeleted) or (
                isinstance(result, Committed) and result.record is None
            ):
                outcomes.extend(deleted(photo) for photo in record.photos)
            elif isinstance(result, InvalidInput):
                outcomes.extend(refused(photo, record, result) for photo in record.photos)
            elif isinstance(result, Committed) and result.record is not None:
                outcomes.extend(self._said(record, before, result.record))
                written.append(told(record, result.record, load=self._load))
            else:
                assert isinstance(result, Exception)  # `Writer.write` has no other answer
                raise result
        return again

    def _kept(self, record: PartRecord, before: StoredRecord | None) -> list[_Kept]:
        """The photos of a record that are to be written: not those that it has from elsewhere, or of which
        another part wrote an earlier copy."""
        done = elsewhere(before, self._load) | earlier(before, self._load, record)
        kept: list[_Kept] = []
        for photo in record.photos:
            if photo.seen is None or photo.read.sha256 in done:
                continue
            made = self._photo_write(record.record_id, photo)
            if made is not None:
                kept.append(made)
        return kept

    def _photo_write(self, record: str, photo: Embedded) -> _Kept | None:
        """What is written of a photo; None when its bytes are not worth keeping."""
        assert photo.seen is not None
        read, seen = photo.read, photo.seen.faces
        if isinstance(seen, PhotoRejected) and seen.reason in NOT_KEPT:
            return None
        if isinstance(seen, WorkerUnavailable):  # not the photo's fault: another load is to look at it
            return None
        note = read.planned.note
        place = read.planned.number
        size = len(read.content)
        if not isinstance(seen, PhotoFaces):
            write = PhotoWrite(
                read.sha256, _UNKNOWN_TYPE, 0, 0, size, note=note, outcome=seen.code, place=place
            )
            return _Kept(write, read.content, ())
        chosen = choose_faces(seen, note)
        enrolled = chosen.faces if chosen.code == ENROLLED else ()
        write = PhotoWrite(
            sha256=read.sha256,
            media_type=seen.media_type,
            width=seen.width,
            height=seen.height,
            bytes=size,
            note=note,
            outcome=chosen.code,
            faces_seen=len(seen.faces),
            faces=face_writes(record, read.sha256, self._model_id, enrolled),
            place=place,
        )
        return _Kept(write, read.content, enrolled)

    def _job(self, part: Part, record: PartRecord, before: StoredRecord | None, kept: Sequence[_Kept]) -> Job:
        # Every part of a load says the same of a record: where it is there and says other things, these are
        # of another origin.
        planned = record.photos[0].read.planned.attributes
        attributes = planned if before is None else before.attributes
        write = RecordWrite(
            key=part.key(record.reference),
            attributes=attributes,
            photos=tuple(one.write for one in kept),
            model_id=self._model_id,
            load=self._load,
            reinstate=self._reinstate_until is not None,
            reinstate_until=self._reinstate_until,
            expected_version=0 if before is None else before.version,
        )
        return Job(
            write,
            tuple(one.content for one in kept),
            tuple(one.faces for one in kept),
            same_facts=before is not None,
        )

    def _said(self, record: PartRecord, before: StoredRecord | None, now: StoredRecord) -> list[PhotoOutcome]:
        return said(record, before, now, load=self._load, model_id=self._model_id)


def _lapsed(result: object) -> bool:
    return isinstance(result, Conflict) and result.code == "INTENT_LAPSED"
