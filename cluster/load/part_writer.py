"""Writes the embedded photos of a part, and says what became of each.

What an earlier attempt at the same part has written is written again, to the same ids: the answer is the
same. What came from elsewhere - another load, an enrolment - is left as it is: its photos, its attributes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from catalogue.store import Catalogue
from catalogue.types import ENROLLED, PhotoWrite, RecordWrite, StoredPhoto, StoredRecord
from cluster.choice import choose_faces
from cluster.load.outcome_types import (
    NOBODY,
    RECORD_DELETED,
    Became,
    PartOutcome,
    PhotoOutcome,
    RecordOutcome,
)
from cluster.load.part_reader import ReadPhoto
from cluster.load.plan_types import Part
from cluster.load.turns import Turns
from cluster.prepare import NOT_KEPT, face_writes
from cluster.writer import Committed, Job, Writer
from homeward.errors import (
    Conflict,
    EtagMismatch,
    HomewardError,
    InvalidInput,
    PhotoRejected,
    RecordDeleted,
    WorkerUnavailable,
)
from homeward.ids import record_id
from homeward.types import Face, PhotoFaces
from workers.bulk import BulkPhoto

_TRIES = 8  # of a record that others change at the same time
_UNKNOWN_TYPE = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Embedded:
    """One photo of a part with what the model saw."""

    read: ReadPhoto
    seen: BulkPhoto | None = None  # None: there was nothing to look at, or it was looked at before
    of: int = NOBODY  # the same bytes, earlier in the same record and part
    milliseconds: float = 0.0


@dataclass(frozen=True, slots=True)
class _Record:
    """What one record of a part is to get."""

    record_id: str
    reference: str
    photos: tuple[Embedded, ...]


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
            _Record(record_id(part.key(reference)), reference, tuple(found))
            for reference, found in groupby(photos, key=lambda photo: photo.read.planned.reference)
            if reference
        ]
        outcomes = [_unowned(photo) for photo in photos if not photo.read.planned.reference]
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
        records: Sequence[_Record],
        outcomes: list[PhotoOutcome],
        written: list[RecordOutcome],
    ) -> list[_Record]:
        """Write records, note what became of them, and return those that were changed meanwhile."""
        stored = self._catalogue.get_many([record.record_id for record in records])
        jobs: list[tuple[_Record, list[_Kept], Job]] = []
        for record in records:
            before = stored.get(record.record_id)
            kept = self._kept(record, before)
            if before is not None and before.load != self._load and not kept:
                outcomes.extend(self._said(record, before, before))
                written.append(self._told(record, before))
            else:
                jobs.append((record, kept, self._job(part, record, before, kept)))
        again: list[_Record] = []
        results = self._writer.write([job for _, _, job in jobs]) if jobs else []
        for (record, _, _), result in zip(jobs, results, strict=True):
            before = stored.get(record.record_id)
            if isinstance(result, EtagMismatch) or _lapsed(result):
                again.append(record)
            elif isinstance(result, RecordDeleted) or (
                isinstance(result, Committed) and result.record is None
            ):
                outcomes.extend(_deleted(photo) for photo in record.photos)
            elif isinstance(result, InvalidInput):
                outcomes.extend(_refused(photo, record, result) for photo in record.photos)
            elif isinstance(result, Committed) and result.record is not None:
                outcomes.extend(self._said(record, before, result.record))
                written.append(self._told(record, result.record))
            else:
                assert isinstance(result, Exception)  # `Writer.write` has no other answer
                raise result
        return again

    def _kept(self, record: _Record, before: StoredRecord | None) -> list[_Kept]:
        """The photos of a record that are to be written: not those that it has from elsewhere, or of which
        another part wrote an earlier copy."""
        earlier = _elsewhere(before, self._load) | _earlier(before, self._load, record)
        kept: list[_Kept] = []
        for photo in record.photos:
            if photo.seen is None or photo.read.sha256 in earlier:
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

    def _job(self, part: Part, record: _Record, before: StoredRecord | None, kept: Sequence[_Kept]) -> Job:
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

    def _said(self, record: _Record, before: StoredRecord | None, now: StoredRecord) -> list[PhotoOutcome]:
        """What became of each photo of a record that is written."""
        elsewhere = _elsewhere(before, self._load)
        # What was there before counts, should the load that brought it be undone meanwhile.
        stored = {photo.sha256: photo for one in (before, now) if one is not None for photo in one.photos}
        said = []
        for photo in record.photos:
            made = _outcome(photo, record)
            kept = stored.get(photo.read.sha256)
            if photo.read.sha256 in elsewhere:
                assert kept is not None
                ids = tuple(face.face_id for face in kept.faces if face.model_id == self._model_id)
                made = replace(
                    made, became=Became.ALREADY_THERE, code="", message="", face_ids=ids, kept=True
                )
            elif (written := _written_before(now, self._load, photo)) is not None:
                made = self._told_before(made, written)
            elif photo.of != NOBODY:
                made = replace(made, became=Became.DUPLICATE, of=photo.of, kept=kept is not None)
            elif kept is not None and kept.outcome == ENROLLED:
                ids = tuple(face.face_id for face in kept.faces if face.model_id == self._model_id)
                made = replace(made, became=Became.ENROLLED, face_ids=ids, kept=True)
            else:
                made = replace(made, kept=kept is not None)
            said.append(made)
        return said

    def _told_before(self, made: PhotoOutcome, written: StoredPhoto) -> PhotoOutcome:
        """Of a photo that an attempt before this one has written, and that cannot be read any more."""
        enrolled = written.outcome == ENROLLED
        ids = tuple(face.face_id for face in written.faces if face.model_id == self._model_id)
        return replace(
            made,
            became=Became.ENROLLED if enrolled else Became.REJECTED,
            code="" if enrolled else written.outcome,
            message=f"it was read before the load was resumed; since then: {made.message}",
            sha256=written.sha256,
            size=written.bytes,
            width=written.width,
            height=written.height,
            faces_seen=written.faces_seen,
            face_ids=ids if enrolled else (),
            kept=True,
        )

    def _told(self, record: _Record, now: StoredRecord) -> RecordOutcome:
        planned = record.photos[0].read.planned.attributes
        mine = now.load == self._load
        return RecordOutcome(
            record.record_id,
            record.reference,
            created=mine,
            searchable=now.searchable,
            attributes_kept=not mine and now.attributes != planned,
        )


def _elsewhere(before: StoredRecord | None, load: str) -> frozenset[str]:
    """Photos that a record has from another origin."""
    if before is None:
        return frozenset()
    return frozenset(photo.sha256 for photo in before.photos if photo.load != load)


def _places(record: StoredRecord, load: str) -> dict[str, int]:
    """The places in the load's input that its photos of the record came from, by sha256."""
    start = 1 + max((photo.place for photo in record.photos if photo.load != load), default=-1)
    return {photo.sha256: photo.place - start for photo in record.photos if photo.load == load}


def _written_before(record: StoredRecord, load: str, photo: Embedded) -> StoredPhoto | None:
    """What the load has from this place of its input, when there are no bytes there now."""
    planned = photo.read.planned
    if photo.read.sha256 or planned.code:
        return None
    places = _places(record, load)
    return next((one for one in record.photos if places.get(one.sha256) == planned.number), None)


def _earlier(before: StoredRecord | None, load: str, record: _Record) -> frozenset[str]:
    """Photos that the load has written from an earlier place of its input."""
    if before is None:
        return frozenset()
    places = _places(before, load)
    return frozenset(
        photo.read.sha256
        for photo in record.photos
        if places.get(photo.read.sha256, photo.read.planned.number) < photo.read.planned.number
    )


def _outcome(photo: Embedded, record: _Record) -> PhotoOutcome:
    """What the photo alone says: rejected, for what reason. Who wrote it says whether it was enrolled."""
    read, planned = photo.read, photo.read.planned
    made = PhotoOutcome(
        number=planned.number,
        photo=planned.member.shown,
        reference=record.reference,
        record_id=record.record_id,
        became=Became.REJECTED,
        code=read.code,
        message=read.message,
        line=planned.line,
        source=planned.source,
        sha256=read.sha256,
        size=len(read.content),
        milliseconds=photo.milliseconds,
    )
    if photo.seen is None:
        return made
    seen = photo.seen.faces
    if isinstance(seen, HomewardError):
        return replace(made, code=seen.code, message=seen.message)
    chosen = choose_faces(seen, planned.note)
    return replace(
        made,
        code="" if chosen.code == ENROLLED else chosen.code,
        message=chosen.message,
        width=seen.width,
        height=seen.height,
        faces_seen=len(seen.faces),
        picture=photo.seen.picture,
    )


def _unowned(photo: Embedded) -> PhotoOutcome:
    """Of a photo that belongs to no record."""
    return _outcome(photo, _Record("", "", ()))


def _deleted(photo: Embedded) -> PhotoOutcome:
    """Of a record that has a tombstone: nothing that names it."""
    planned = photo.read.planned
    return PhotoOutcome(
        planned.number, "", "", "", Became.REJECTED, RECORD_DELETED, line=planned.line, source=planned.source
    )


def _refused(photo: Embedded, record: _Record, why: InvalidInput) -> PhotoOutcome:
    """Of a record that cannot be written as it is described."""
    return replace(_outcome(photo, record), code=why.code, message=why.message)


def _lapsed(result: object) -> bool:
    return isinstance(result, Conflict) and result.code == "INTENT_LAPSED"
