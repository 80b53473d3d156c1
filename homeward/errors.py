"""Every error Homeward raises on purpose, with the reason code that callers see.

    HomewardError
    ├── InvalidInput            the request itself is wrong; the same call fails again
    │   ├── PhotoRejected       the bytes are no photo we can use (codes of `PhotoReason`)
    │   ├── TemplateInvalid     not finite, not of norm 1, wrong size, wrong model
    │   └── CaseRequired        a search without case, purpose or requester
    ├── NotFound                no such record, photo, face or model
    ├── Conflict                the thing changed underneath, or exists otherwise
    │   ├── EtagMismatch        an update was made from an older version
    │   ├── RequestIdReused     the same request_id with another content
    │   └── RecordDeleted       the record has a tombstone and was not reinstated by name
    ├── PermissionRefused       the caller may not do this
    ├── Overloaded              a bounded queue is full; try again after `retry_after_s`
    ├── Unavailable             a store or a worker does not answer
    │   ├── StoreUnavailable    catalogue, gallery or photo store
    │   └── WorkerUnavailable   no embedding worker reachable
    ├── DeadlineExceeded        the caller's time is over
    ├── NotSupported            this build or bundle cannot do it
    └── Corrupt                 stored data contradicts itself: never answered from

One table (`homeward/status.py`) maps them to gRPC status codes by walking the MRO.
"""

from __future__ import annotations

from enum import StrEnum


class PhotoReason(StrEnum):
    """Why a photo was refused or gave no template."""

    EMPTY = "PHOTO_EMPTY"
    TOO_MANY_BYTES = "PHOTO_TOO_MANY_BYTES"
    TOO_MANY_PIXELS = "PHOTO_TOO_MANY_PIXELS"
    TOO_SMALL = "PHOTO_TOO_SMALL"
    FORMAT_UNKNOWN = "PHOTO_FORMAT_UNKNOWN"
    FORMAT_REFUSED = "PHOTO_FORMAT_REFUSED"
    TRUNCATED = "PHOTO_TRUNCATED"
    CORRUPT = "PHOTO_CORRUPT"
    DECODE_TIMEOUT = "PHOTO_DECODE_TIMEOUT"
    DECODE_MEMORY = "PHOTO_DECODE_MEMORY"
    DECODER_DIED = "PHOTO_DECODER_DIED"
    NO_FACE = "NO_FACE"
    FACE_CHOICE_REQUIRED = "FACE_CHOICE_REQUIRED"
    FACE_ORDINAL_UNKNOWN = "FACE_ORDINAL_UNKNOWN"


class HomewardError(Exception):
    """Base of all. `code` is stable and machine-readable, `details` are safe to show and to log."""

    code = "INTERNAL"

    def __init__(self, message: str, *, code: str | None = None, **details: str | int) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code
        self.details: dict[str, str] = {key: str(value) for key, value in details.items()}

    @property
    def message(self) -> str:
        """What went wrong and what to do about it, in one sentence or two."""
        return str(self.args[0]) if self.args else ""


class InvalidInput(HomewardError):
    """The request is wrong; `details["field"]` names the field where one is known."""

    code = "INVALID_INPUT"


class PhotoRejected(InvalidInput):
    """A photo that gives no template; the code is one of `PhotoReason`."""

    code = PhotoReason.CORRUPT

    def __init__(self, reason: PhotoReason, message: str, **details: str | int) -> None:
        super().__init__(message, code=reason, **details)
        self.reason = reason

    def __reduce__(self) -> tuple[object, ...]:  # crosses process boundaries
        return (_photo_rejected, (self.reason, self.message, self.details))


def _photo_rejected(reason: PhotoReason, message: str, details: dict[str, str]) -> PhotoRejected:
    return PhotoRejected(reason, message, **details)


class TemplateInvalid(InvalidInput):
    """Zero, NaN, wrong length, norm off 1, or of another model."""

    code = "TEMPLATE_INVALID"


class CaseRequired(InvalidInput):
    """A search must name its case, its purpose and who asks."""

    code = "CASE_REQUIRED"


class NotFound(HomewardError):
    """There is no such thing (or no longer, and it left no tombstone to speak of)."""

    code = "NOT_FOUND"


class Conflict(HomewardError):
    """The present state forbids the change."""

    code = "CONFLICT"


class EtagMismatch(Conflict):
    """Read the record again and apply the change to what it says now."""

    code = "ETAG_MISMATCH"


class RequestIdReused(Conflict):
    """A request_id names one request forever."""

    code = "REQUEST_ID_REUSED"


class RecordDeleted(Conflict):
    """A deleted child stays deleted unless reinstated by name."""

    code = "RECORD_DELETED"


class PermissionRefused(HomewardError):
    """Authenticated, but not allowed."""

    code = "PERMISSION_REFUSED"


class Overloaded(HomewardError):
    """A bounded queue is full. `retry_after_s` (seconds) says when to try again."""

    code = "OVERLOADED"

    def __init__(self, message: str, *, retry_after_s: float = 0.5, **details: str | int) -> None:
        super().__init__(message, code=None, **details)
        self.retry_after_s = retry_after_s


class Unavailable(HomewardError):
    """Something Homeward needs does not answer; the same call may work later."""

    code = "UNAVAILABLE"


class StoreUnavailable(Unavailable):
    """Catalogue, gallery or photo store; `details["store"]` says which."""

    code = "STORE_UNAVAILABLE"


class WorkerUnavailable(Unavailable):
    """No embedding worker is reachable."""

    code = "WORKER_UNAVAILABLE"


class DeadlineExceeded(HomewardError):
    """The caller's time ran out before the work was done."""

    code = "DEADLINE_EXCEEDED"


class NotSupported(HomewardError):
    """Asked for what this build, model or store cannot do."""

    code = "NOT_SUPPORTED"


class Corrupt(HomewardError):
    """Stored data contradicts itself (a checksum, a norm, a count)."""

    code = "CORRUPT"
