"""What became of the photos of a part: from what was read and seen, and what the record has now."""

from __future__ import annotations

from dataclasses import dataclass, replace

from catalogue.types import ENROLLED, StoredPhoto, StoredRecord
from cluster.choice import choose_faces
from cluster.load.outcome_types import NOBODY, RECORD_DELETED, Became, PhotoOutcome, RecordOutcome
from cluster.load.part_reader import ReadPhoto
from homeward.errors import HomewardError, InvalidInput
from workers.bulk import BulkPhoto


@dataclass(frozen=True, slots=True)
class Embedded:
    """One photo of a part with what the model saw."""

    read: ReadPhoto
    seen: BulkPhoto | None = None  # None: there was nothing to look at, or it was looked at before
    of: int = NOBODY  # the same bytes, earlier in the same record and part
    milliseconds: float = 0.0


@dataclass(frozen=True, slots=True)
class PartRecord:
    """What one record of a part is to get."""

    record_id: str
    reference: str
    photos: tuple[Embedded, ...]


def said(
    record: PartRecord, before: StoredRecord | None, now: StoredRecord, *, load: str, model_id: str
) -> list[PhotoOutcome]:
    """What became of each photo of a record that is written."""
    there = elsewhere(before, load)
    # What was there before counts, should the load that brought it be undone meanwhile.
    stored = {photo.sha256: photo for one in (before, now) if one is not None for photo in one.photos}
    outcomes = []
    for photo in record.photos:
        made = outcome_alone(photo, record)
        kept = stored.get(photo.read.sha256)
        if photo.read.sha256 in there:
            assert kept is not None
            ids = tuple(face.face_id for face in kept.faces if face.model_id == model_id)
            made = replace(made, became=Became.ALREADY_THERE, code="", message="", face_ids=ids, kept=True)
        elif (written := _written_before(now, load, photo)) is not None:
            made = _told_before(made, written, model_id)
        elif photo.of != NOBODY:
            made = replace(made, became=Became.DUPLICATE, of=photo.of, kept=kept is not None)
        elif kept is not None and kept.outcome == ENROLLED:
            ids = tuple(face.face_id for face in kept.faces if face.model_id == model_id)
            made = replace(made, became=Became.ENROLLED, face_ids=ids, kept=True)
        else:
            made = replace(made, kept=kept is not None)
        outcomes.append(made)
    return outcomes


def _told_before(made: PhotoOutcome, written: StoredPhoto, model_id: str) -> PhotoOutcome:
    """Of a photo that an attempt before this one has written, and that cannot be read any more."""
    enrolled = written.outcome == ENROLLED
    ids = tuple(face.face_id for face in written.faces if face.model_id == model_id)
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


def told(record: PartRecord, now: StoredRecord, *, load: str) -> RecordOutcome:
    """What became of the record."""
    planned = record.photos[0].read.planned.attributes
    mine = now.load == load
    return RecordOutcome(
        record.record_id,
        record.reference,
        created=mine,
        searchable=now.searchable,
        attributes_kept=not mine and now.attributes != planned,
    )


def elsewhere(before: StoredRecord | None, load: str) -> frozenset[str]:
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


def earlier(before: StoredRecord | None, load: str, record: PartRecord) -> frozenset[str]:
    """Photos that the load has written from an earlier place of its input."""
    if before is None:
        return frozenset()
    places = _places(before, load)
    return frozenset(
        photo.read.sha256
        for photo in record.photos
        if places.get(photo.read.sha256, photo.read.planned.number) < photo.read.planned.number
    )


def outcome_alone(photo: Embedded, record: PartRecord) -> PhotoOutcome:
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


def unowned(photo: Embedded) -> PhotoOutcome:
    """Of a photo that belongs to no record."""
    return outcome_alone(photo, PartRecord("", "", ()))


def deleted(photo: Embedded) -> PhotoOutcome:
    """Of a record that has a tombstone: nothing that names it."""
    planned = photo.read.planned
    return PhotoOutcome(
        planned.number, "", "", "", Became.REJECTED, RECORD_DELETED, line=planned.line, source=planned.source
    )


def refused(photo: Embedded, record: PartRecord, why: InvalidInput) -> PhotoOutcome:
    """Of a record that cannot be written as it is described."""
    return replace(outcome_alone(photo, record), code=why.code, message=why.message)
