"""The one table between Homeward's errors and gRPC statuses, in both directions.

Errors travel as google.rpc.Status: `ErrorInfo` with the error's code as reason and its details as
metadata, `BadRequest` when a field is named, `RetryInfo` when it is worth trying again. See
AIP-193 for the shape.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2

from homeward import errors
from homeward.errors import HomewardError, Overloaded, PhotoReason, PhotoRejected
from homeward.log_lines import where

DOMAIN = "homeward"
DETAILS_KEY = "grpc-status-details-bin"

# Looked up along the MRO, so that a subclass without a line of its own means what its base means.
CODES: dict[type[HomewardError], grpc.StatusCode] = {
    errors.InvalidInput: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.Conflict: grpc.StatusCode.FAILED_PRECONDITION,
    errors.EtagMismatch: grpc.StatusCode.ABORTED,
    errors.RequestIdReused: grpc.StatusCode.ALREADY_EXISTS,
    errors.PermissionRefused: grpc.StatusCode.PERMISSION_DENIED,
    errors.Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
    errors.DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.NotSupported: grpc.StatusCode.UNIMPLEMENTED,
    errors.Corrupt: grpc.StatusCode.DATA_LOSS,
}

# What a bare status means to a client, when no ErrorInfo of ours came with it.
_BARE: dict[grpc.StatusCode, tuple[type[HomewardError], str]] = {
    grpc.StatusCode.INVALID_ARGUMENT: (errors.InvalidInput, "INVALID_INPUT"),
    grpc.StatusCode.OUT_OF_RANGE: (errors.InvalidInput, "INVALID_INPUT"),
    grpc.StatusCode.NOT_FOUND: (errors.NotFound, "NOT_FOUND"),
    grpc.StatusCode.ALREADY_EXISTS: (errors.Conflict, "CONFLICT"),
    grpc.StatusCode.FAILED_PRECONDITION: (errors.Conflict, "CONFLICT"),
    grpc.StatusCode.ABORTED: (errors.Conflict, "CONFLICT"),
    grpc.StatusCode.PERMISSION_DENIED: (errors.PermissionRefused, "PERMISSION_REFUSED"),
    grpc.StatusCode.UNAUTHENTICATED: (errors.PermissionRefused, "UNAUTHENTICATED"),
    grpc.StatusCode.RESOURCE_EXHAUSTED: (errors.Overloaded, "OVERLOADED"),
    grpc.StatusCode.UNAVAILABLE: (errors.Unavailable, "SERVER_UNREACHABLE"),
    grpc.StatusCode.DEADLINE_EXCEEDED: (errors.DeadlineExceeded, "DEADLINE_EXCEEDED"),
    grpc.StatusCode.UNIMPLEMENTED: (errors.NotSupported, "NOT_SUPPORTED"),
    grpc.StatusCode.DATA_LOSS: (errors.Corrupt, "CORRUPT"),
}

# A status travels in HTTP/2 headers, of which peers commonly accept 8 KiB.
_MESSAGE_MAX = 1024  # bytes of UTF-8, as below
_VALUE_MAX = 256
_VALUES_MAX = 8

_logger = logging.getLogger(__name__)


def status_code(kind: type[BaseException]) -> grpc.StatusCode:
    """The status of an error class: its own line of the table, or its nearest base's."""
    for base in kind.__mro__:
        if base in CODES:
            return CODES[base]
    return grpc.StatusCode.INTERNAL


def status_of(error: Exception) -> tuple[status_pb2.Status, str]:
    """The google.rpc.Status of any exception, and the id of the incident if it was unexpected.

    An unexpected exception is logged with its traceback; the caller sees the incident's id alone.
    """
    if isinstance(error, HomewardError) and status_code(type(error)) is not grpc.StatusCode.INTERNAL:
        return _expected(error), ""
    incident = secrets.token_hex(8)
    # Type and place only: the text of a foreign exception may quote the request.
    _logger.error("incident %s: %s", incident, where(error))
    status = status_pb2.Status(
        code=_number(grpc.StatusCode.INTERNAL),
        message=f"Homeward failed unexpectedly; tell the operator incident {incident}",
    )
    _attach(
        status,
        error_details_pb2.ErrorInfo(reason="INTERNAL", domain=DOMAIN, metadata={"incident": incident}),
    )
    return status, incident


def trailing_metadata(status: status_pb2.Status) -> tuple[tuple[str, str | bytes], ...]:
    """The metadata entry in which gRPC carries a google.rpc.Status."""
    return ((DETAILS_KEY, status.SerializeToString()),)


def code_of(status: status_pb2.Status) -> grpc.StatusCode:
    """The gRPC code of a google.rpc.Status; UNKNOWN for a number there is none for."""
    return _BY_NUMBER.get(status.code, grpc.StatusCode.UNKNOWN)


def error_from_rpc(error: grpc.RpcError) -> HomewardError:
    """The error that a server meant, from what a client's call raised (sync or asyncio)."""
    code = getattr(error, "code", lambda: grpc.StatusCode.UNKNOWN)()
    details = getattr(error, "details", lambda: "")() or ""
    metadata = getattr(error, "trailing_metadata", lambda: None)()
    for key, value in metadata or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            try:
                return error_from_status(status_pb2.Status.FromString(value))
            except DecodeError:
                break
    return _bare(code, details)


def error_from_status(status: status_pb2.Status) -> HomewardError:
    """The inverse of `status_of`: same class where the code tells it, same code, message, details."""
    code = code_of(status)
    info = error_details_pb2.ErrorInfo()
    retry = error_details_pb2.RetryInfo()
    retry_after_s: float | None = None
    for detail in status.details:
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            detail.Unpack(info)
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            detail.Unpack(retry)
            retry_after_s = retry.retry_delay.ToNanoseconds() / 1e9
    if info.domain != DOMAIN:
        return _bare(code, status.message)
    metadata = dict(info.metadata)
    if info.reason in _PHOTO_REASONS:
        return PhotoRejected(PhotoReason(info.reason), status.message, **metadata)
    kind = _BY_REASON.get(info.reason) or _BARE.get(code, (HomewardError, ""))[0]
    if issubclass(kind, Overloaded):
        return Overloaded(status.message, retry_after_s=retry_after_s or 0.5, **metadata)
    return kind(status.message, code=info.reason, **metadata)


def _expected(error: HomewardError) -> status_pb2.Status:
    status = status_pb2.Status(
        code=_number(status_code(type(error))), message=_printable(error.message, _MESSAGE_MAX)
    )
    metadata = {
        _printable(key, 64): _printable(value, _VALUE_MAX)
        for key, value in list(error.details.items())[:_VALUES_MAX]
    }
    _attach(status, error_details_pb2.ErrorInfo(reason=str(error.code), domain=DOMAIN, metadata=metadata))
    if isinstance(error, errors.InvalidInput) and "field" in metadata:
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=metadata["field"], description=_printable(error.message, _VALUE_MAX)
        )
        _attach(status, error_details_pb2.BadRequest(field_violations=[violation]))
    if isinstance(error, Overloaded):
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(int(error.retry_after_s * 1e9))
        _attach(status, error_details_pb2.RetryInfo(retry_delay=delay))
    return status


def _attach(status: status_pb2.Status, detail: Message) -> None:
    packed = any_pb2.Any()
    packed.Pack(detail)
    status.details.append(packed)


def _bare(code: grpc.StatusCode, message: str) -> HomewardError:
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in message:
        return errors.InvalidInput(f"the message is too large ({message})", code="MESSAGE_TOO_LARGE")
    kind, reason = _BARE.get(code, (HomewardError, code.name))
    if issubclass(kind, Overloaded):
        return Overloaded(message or "the server is busy; try again shortly")
    return kind(message or f"the server answered {code.name}", code=reason)


def _printable(text: str, limit: int) -> str:
    clean = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
    raw = clean.encode("utf-8", "replace")
    return raw.decode() if len(raw) <= limit else raw[: limit - 3].decode("utf-8", "ignore") + "…"


def _number(code: grpc.StatusCode) -> int:
    return int(code.value[0])


def _classes(kind: type[HomewardError]) -> Iterator[type[HomewardError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _classes(child)


_BY_NUMBER = {_number(code): code for code in grpc.StatusCode}
_PHOTO_REASONS = frozenset(reason.value for reason in PhotoReason)
_BY_REASON = {
    kind.code: kind for kind in _classes(HomewardError) if kind not in (HomewardError, PhotoRejected)
}
