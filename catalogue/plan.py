"""What a batch of enrolments does to the catalogue, decided in memory without a database.

`enrolling.py` loads the state the batch touches, lets `Plan.enrol` take the items one after the
other, and writes what gathered. An item that is refused leaves no trace in the plan, so it cannot
fail the others; two items of one record see each other's effect.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime

from catalogue import rows
from catalogue.rows import Values
from catalogue.types import ENROLLED, NO_PHOTO, Item, PhotoWrite, RecordWrite, Request, Store, WriteResult
from homeward.errors import EtagMismatch, HomewardError, RecordDeleted, RequestIdReused
from homeward.types import Attributes, DateRange, RecordKey


@dataclass(slots=True)
class FaceRef:
    """Enough of a face row to know when it is replaced."""

    sha256: str
    model_id: str


@dataclass(slots=True)
class RecordState:
    """One record as the batch has it so far."""

    row: Values | None = None  # of `records`
    photos: dict[str, Values] = field(default_factory=dict)  # of `record_photos`, by sha256
    faces: dict[str, FaceRef] = field(default_factory=dict)
    tombstone: int | None = None  # the rev of its deletion


@dataclass(frozen=True, slots=True)
class _Effect:
    """What one accepted item does."""

    result: WriteResult
    row: Values  # of `records`
    photo_rows: dict[str, Values]  # of `record_photos`, by sha256
    face_rows: dict[str, Values]  # by face id
    gone: list[str]  # face ids


@dataclass(slots=True)
class Plan:
    """State before, and the rows to write. Revs follow `last_rev`."""

    last_rev: int
    now: datetime
    states: dict[str, RecordState]
    requests: dict[tuple[str, str], Values]
    records: dict[str, Values] = field(default_factory=dict)
    photos: dict[tuple[str, str], Values] = field(default_factory=dict)
    record_photos: dict[tuple[str, str], Values] = field(default_factory=dict)
    faces: dict[str, Values] = field(default_factory=dict)
    faces_gone: dict[str, str] = field(default_factory=dict)  # face id: record id
    # Shown of face rows that stay: their records' facts, and their photos' dates by record and sha256.
    facts: dict[str, tuple[RecordKey, Attributes]] = field(default_factory=dict)
    taken: dict[tuple[str, str], DateRange | None] = field(default_factory=dict)
    changes: list[Values] = field(default_factory=list)
    new_requests: list[Values] = field(default_factory=list)
    reinstated: set[str] = field(default_factory=set)

    def enrol(self, record_id: str, write: RecordWrite) -> WriteResult:
        """Take one checked item. Raises `HomewardError` and changes nothing if it is refused."""
        state = self.states[record_id]
        if (done := replay(self.requests, write.request)) is not None:
            return done
        if state.tombstone is not None and not _reinstates(write, state.tombstone):
            raise RecordDeleted(
                "this record was deleted; enrol it with reinstate only if it shall come back",
                record_id=record_id,
            )
        version = 0 if state.row is None else state.row["version"]
        check_version(write.expected_version, version)
        rev = self.last_rev + 1
        photo_rows = self._photo_rows(record_id, write, state)
        new_faces = {
            face.face_id: rows.face_to_row(write, record_id, photo, face)
            for photo in write.photos
            for face in photo.faces
        }
        named = {photo.sha256 for photo in write.photos}
        gone = [
            face_id
            for face_id, face in state.faces.items()
            if face.model_id == write.model_id and face.sha256 in named and face_id not in new_faces
        ]
        faces_left = len(state.faces.keys() | new_faces.keys()) - len(gone)
        row = self._record_row(record_id, write, state, rev)
        row["searchable"] = faces_left > 0
        row["unsearchable_reason"] = "" if faces_left else why_unsearchable({**state.photos, **photo_rows})
        result = answer(
            WriteResult(
                record_id=record_id,
                rev=rev,
                version=rev,
                created=state.row is None,
                searchable=row["searchable"],
                removed_faces=tuple(sorted(gone)),
            ),
            write.request,
        )
        self._take(write, state, _Effect(result, row, photo_rows, new_faces, gone))
        return result

    def live(self) -> list[Item]:
        """Every face row and photo the batch has made or kept alive."""
        faces = [Item(Store.GALLERY, row["record_id"], face_id) for face_id, row in self.faces.items()]
        return faces + [
            Item(Store.PHOTOS, record_id, sha256, row["agency"])
            for (record_id, sha256), row in self.record_photos.items()
        ]

    def _take(self, write: RecordWrite, state: RecordState, effect: _Effect) -> None:
        record_id, rev = effect.result.record_id, effect.result.rev
        self.last_rev = rev
        stays = {face.sha256 for face_id, face in state.faces.items() if face_id not in effect.face_rows}
        # What an item before it in the batch left to be rewritten is so to what this one says.
        if record_id in self.facts or (
            stays and state.row is not None and rows.attributes_of(state.row) != write.attributes
        ):
            self.facts[record_id] = (write.key, write.attributes)
        state.row = self.records[record_id] = effect.row
        for photo in write.photos:
            self.photos[write.key.agency, photo.sha256] = rows.photo_to_row(write.key.agency, photo)
            if photo.sha256 in stays or (record_id, photo.sha256) in self.taken:
                self.taken[record_id, photo.sha256] = photo.note.taken
        for sha256, photo_row in effect.photo_rows.items():
            state.photos[sha256] = self.record_photos[record_id, sha256] = photo_row
        for face_id, face_row in effect.face_rows.items():
            self.faces[face_id] = face_row
            self.faces_gone.pop(face_id, None)
            state.faces[face_id] = FaceRef(face_row["sha256"], face_row["model_id"])
        for face_id in effect.gone:
            del state.faces[face_id]
            self.faces.pop(face_id, None)
            self.faces_gone[face_id] = record_id
        if state.tombstone is not None:
            self.reinstated.add(record_id)
            state.tombstone = None
        self.changes.append({"rev": rev, "record_id": record_id, "deleted": False, "at": self.now})
        if write.request is not None:
            request = request_row(write.request, effect.result, self.now)
            self.new_requests.append(request)
            self.requests[request["scope"], request["request_id"]] = request

    def _record_row(self, record_id: str, write: RecordWrite, state: RecordState, rev: int) -> Values:
        before = state.row
        return {
            "record_id": record_id,
            "agency": write.key.agency,
            "gallery": write.key.gallery,
            "external_reference": write.key.external_reference,
            **rows.attributes_to_row(write.attributes),
            "load": write.load if before is None else before["load"],
            "version": rev,
            "created_at": self.now if before is None else before["created_at"],
            "updated_at": self.now,
            "created_rev": rev if before is None else before["created_rev"],
            "updated_rev": rev,
        }

    @staticmethod
    def _photo_rows(record_id: str, write: RecordWrite, state: RecordState) -> dict[str, Values]:
        position = 1 + max((row["position"] for row in state.photos.values()), default=-1)
        # Parts of a load arrive in any order: a photo's place follows from those that others brought.
        others = [row["position"] for row in state.photos.values() if row["load"] != write.load]
        start = 1 + max(others, default=-1)
        found: dict[str, Values] = {}
        for photo in write.photos:
            before = state.photos.get(photo.sha256)
            found[photo.sha256] = _photo_row(record_id, write, photo)
            if photo.place is not None:
                found[photo.sha256]["position"] = start + photo.place
            elif before is not None:
                found[photo.sha256]["position"] = before["position"]
            else:
                found[photo.sha256]["position"] = position
                position += 1
        return found


def _reinstates(write: RecordWrite, deleted: int) -> bool:
    return write.reinstate and (write.reinstate_until is None or deleted <= write.reinstate_until)


def _photo_row(record_id: str, write: RecordWrite, photo: PhotoWrite) -> Values:
    return {
        "record_id": record_id,
        "sha256": photo.sha256,
        "agency": write.key.agency,
        **rows.note_to_row(photo.note),
        "outcome": str(photo.outcome),
        "faces_seen": int(photo.faces_seen),
        "model_id": write.model_id,
        "load": write.load,
    }


def why_unsearchable(photos: dict[str, Values]) -> str:
    """The outcome of the latest of a record's photos (rows by sha256) that says why it gave no face row."""
    latest = sorted(photos.values(), key=lambda row: -row["position"])
    return next((str(row["outcome"]) for row in latest if row["outcome"] != ENROLLED), NO_PHOTO)


def check_version(expected: int | None, version: int) -> None:
    """Raise `EtagMismatch` if the caller saw another version (0: none) than there is."""
    if expected is not None and expected != version:
        raise EtagMismatch(
            "the record changed since it was read; read it again and apply the change to what it says now",
            version=version,
        )


def replay(requests: dict[tuple[str, str], Values], request: Request | None) -> WriteResult | None:
    """The stored result if the request was done before.

    Raises `RequestIdReused` if its id named another one, `RecordDeleted` if its answer went with
    the record."""
    if request is None:
        return None
    row = requests.get((request.scope, request.request_id))
    if row is None:
        return None
    check_same(row, request.method, request.digest)
    return WriteResult(
        record_id=row["record_id"],
        rev=row["rev"],
        version=row["rev"],
        response=row["response"],
        replayed=True,
    )


def check_same(row: Values, method: str, digest: str) -> None:
    """Raise unless the stored request is this one and its answer is still there."""
    if row["method"] != method or row["digest"] != digest:
        raise RequestIdReused("this request_id named another request before; choose a new one")
    if row["response"] is None:
        raise RecordDeleted("this request was answered before; its record was deleted since")


def answer(result: WriteResult, request: Request | None) -> WriteResult:
    """The result with the response that its caller builds from it."""
    if request is None or request.response is None:
        return result
    try:
        return replace(result, response=request.response(result))
    except HomewardError:
        raise
    except Exception as error:
        raise HomewardError("the answer to this request could not be built; nothing was written") from error


def request_row(request: Request, result: WriteResult, now: datetime) -> Values:
    """A row of `requests`."""
    return {
        "scope": request.scope,
        "request_id": request.request_id,
        "method": request.method,
        "digest": request.digest,
        "record_id": result.record_id,
        "rev": result.rev,
        "response": result.response or b"",
        "at": now,
    }
