"""The table between errors and statuses: nothing is left out, and clients get back what was raised."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from cluster.rpc.status import (
    CODES,
    DETAILS_KEY,
    code_of,
    error_from_rpc,
    error_from_status,
    status_code,
    status_of,
    trailing_metadata,
)
from homeward import errors
from homeward.errors import HomewardError, InvalidInput, Overloaded, PhotoReason, PhotoRejected


def every_error() -> Iterator[type[HomewardError]]:
    """The errors both sides know. What a package derives from one for its own use crosses as that one."""
    pending = list(HomewardError.__subclasses__())
    while pending:
        kind = pending.pop()
        if kind.__module__ == errors.__name__:
            yield kind
        pending += kind.__subclasses__()


def make(kind: type[HomewardError]) -> HomewardError:
    if issubclass(kind, PhotoRejected):
        return kind(PhotoReason.TRUNCATED, "cut short", field="photo")
    return kind("what to do", field="limit", number=7)


@pytest.mark.parametrize("kind", list(every_error()))
def test_every_error_class_has_a_status_of_its_own_or_its_bases(kind: type[HomewardError]) -> None:
    assert status_code(kind) is not grpc.StatusCode.INTERNAL
    assert any(base in CODES for base in kind.__mro__)


@pytest.mark.parametrize("kind", list(every_error()))
def test_an_error_comes_back_as_it_was_raised(kind: type[HomewardError]) -> None:
    raised = make(kind)
    status, incident = status_of(raised)
    back = error_from_status(status_pb2.Status.FromString(status.SerializeToString()))
    assert not incident
    assert type(back) is kind
    assert (str(back.code), back.message, back.details) == (str(raised.code), raised.message, raised.details)


def test_a_code_of_its_own_survives() -> None:
    status, _ = status_of(errors.Conflict("calibrate it", code="NOT_CALIBRATED"))
    back = error_from_status(status)
    assert code_of(status) is grpc.StatusCode.FAILED_PRECONDITION
    assert type(back) is errors.Conflict
    assert back.code == "NOT_CALIBRATED"


def test_a_subclass_without_a_line_means_what_its_base_means() -> None:
    class Narrower(errors.EtagMismatch):
        pass

    assert status_code(Narrower) is grpc.StatusCode.ABORTED


def test_details_are_packed_as_google_rpc_wants_them() -> None:
    status, _ = status_of(Overloaded("later", retry_after_s=1.25, queue="search"))
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(retry)
    assert (info.reason, info.domain, dict(info.metadata)) == ("OVERLOADED", "homeward", {"queue": "search"})
    assert retry.retry_delay.ToNanoseconds() == 1_250_000_000
    back = error_from_status(status)
    assert isinstance(back, Overloaded)
    assert back.retry_after_s == 1.25

    status, _ = status_of(InvalidInput("too many", field="limit"))
    bad = error_details_pb2.BadRequest()
    assert status.details[1].Unpack(bad)
    assert [violation.field for violation in bad.field_violations] == ["limit"]


def test_an_unexpected_failure_shows_an_incident_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    secret = "postgresql://user:password@host"
    with caplog.at_level(logging.ERROR):
        status, incident = status_of(RuntimeError(secret))
    assert code_of(status) is grpc.StatusCode.INTERNAL
    assert incident in status.message
    assert incident in caplog.text
    assert secret not in caplog.text
    assert secret.encode() not in status.SerializeToString()


@given(st.text(), st.dictionaries(st.text(), st.text()))
def test_a_status_always_fits_the_headers(message: str, details: dict[str, str]) -> None:
    error = InvalidInput(message)
    error.details = details
    status, _ = status_of(error)
    assert status.ByteSize() < 6 * 1024
    assert status.message.isprintable()


class FakeRpcError(grpc.RpcError):
    def __init__(self, code: grpc.StatusCode, details: str, metadata: object = ()) -> None:
        self._parts = code, details, metadata

    def code(self) -> grpc.StatusCode:
        return self._parts[0]

    def details(self) -> str:
        return self._parts[1]

    def trailing_metadata(self) -> Any:
        return self._parts[2]


@pytest.mark.parametrize("code", list(grpc.StatusCode))
def test_a_bare_status_becomes_an_error_a_client_can_act_on(code: grpc.StatusCode) -> None:
    error = error_from_rpc(FakeRpcError(code, ""))
    assert error.message
    assert error.code


def test_too_large_a_message_is_no_overload() -> None:
    error = error_from_rpc(
        FakeRpcError(grpc.StatusCode.RESOURCE_EXHAUSTED, "CLIENT: Received message larger than max (9 vs. 4)")
    )
    assert isinstance(error, InvalidInput)
    assert error.code == "MESSAGE_TOO_LARGE"


@given(st.binary(max_size=64))
def test_details_that_are_none_are_taken_for_a_bare_status(raw: bytes) -> None:
    error = error_from_rpc(FakeRpcError(grpc.StatusCode.NOT_FOUND, "gone", ((DETAILS_KEY, raw),)))
    assert isinstance(error, HomewardError)


def test_metadata_carries_the_status() -> None:
    status, _ = status_of(errors.NotFound("no such record"))
    error = error_from_rpc(
        FakeRpcError(grpc.StatusCode.NOT_FOUND, "no such record", trailing_metadata(status))
    )
    assert type(error) is errors.NotFound
