"""Internal gRPC ports, by which servers reach embedding workers and shards.

Photos and templates of children pass through them, so they listen on loopback, or ask every call for a
shared token.
"""

from __future__ import annotations

import hmac
import ipaddress
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import DecodeError
from pydantic import SecretStr

from homeward.call_context import enter_inner_call, metadata_value
from homeward.errors import HomewardError, InvalidInput, PermissionRefused, Unavailable
from homeward.status import code_of, status_of, trailing_metadata
from homeward.telemetry import CallEnded, emit

STOP_S = 10.0  # how long running calls may end
_METADATA_KEY = "authorization"

if TYPE_CHECKING:  # generic for the type checker alone
    Handler = grpc.RpcMethodHandler[Any, Any]
    Context = grpc.aio.ServicerContext[Any, Any]


def bearer(token: SecretStr | None) -> tuple[tuple[str, str], ...]:
    """The metadata that shows the token; empty without one."""
    return () if token is None else ((_METADATA_KEY, f"Bearer {token.get_secret_value()}"),)


def internal_channel(address: str, *, max_answer_bytes: int) -> grpc.aio.Channel:
    """A channel to an internal port. It fails calls at once while nobody listens, and tries again soon."""
    return grpc.aio.insecure_channel(
        address,
        options=[
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", max_answer_bytes),
            # A peer whose machine vanished sends no goodbye: pings find out.
            ("grpc.keepalive_time_ms", 10_000),
            ("grpc.keepalive_timeout_ms", 5_000),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 1_000),
            ("grpc.max_reconnect_backoff_ms", 2_000),
            ("grpc.enable_http_proxy", 0),
        ],
    )


@asynccontextmanager
async def internal_port(
    add_services: Callable[[grpc.aio.Server], None],
    address: str,
    token: SecretStr | None,
    *,
    setting: str,
    max_request_bytes: int,
    max_answer_bytes: int,
) -> AsyncIterator[str]:
    """Serve unary methods on `address` while the context lasts: host:port, port 0 for a free one, or
    host:first-last for one of these that is free.

    Yields the address with its port. Errors that are raised travel as `homeward.status` says; `setting`
    ("workers.token") is named to who lacks the token. Raises `InvalidInput` (TOKEN_REQUIRED) for an
    address that other machines reach without a token, and `Unavailable` (ADDRESS_IN_USE).
    """
    host, _, _ = address.rpartition(":")
    if token is None and not _is_loopback(host):
        raise InvalidInput(
            f"{address} can be reached from other machines: set {setting} ({_variable(setting)}), or listen "
            "on 127.0.0.1",
            code="TOKEN_REQUIRED",
        )
    server = grpc.aio.server(
        interceptors=[_Guard(token, setting)],
        options=[
            ("grpc.max_receive_message_length", max_request_bytes),
            ("grpc.max_send_message_length", max_answer_bytes),
            ("grpc.so_reuseport", 0),
            ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
            ("grpc.keepalive_permit_without_calls", 1),
        ],
    )
    add_services(server)
    port = _bind(server, address)
    await server.start()
    try:
        yield f"{host}:{port}"
    finally:
        await server.stop(grace=STOP_S)


def _bind(server: grpc.aio.Server, address: str) -> int:
    host, _, ports = address.rpartition(":")
    first, _, last = ports.partition("-")
    candidates = list(range(int(first), int(last or first) + 1))
    random.shuffle(candidates)  # processes that start together seldom try the same
    for port in candidates:
        try:
            return server.add_insecure_port(f"{host}:{port}")
        except RuntimeError as error:
            failure = error
    raise Unavailable(
        f"cannot listen on {address}: is another process listening there?", code="ADDRESS_IN_USE"
    ) from failure


class _Guard(grpc.aio.ServerInterceptor):
    """Checks the token, parses the request, and turns what is raised into a status with its reason."""

    def __init__(self, token: SecretStr | None, setting: str) -> None:
        self._expected = [value.encode() for _, value in bearer(token)]
        self._setting = setting

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        # Every method of the services is unary.
        behaviour: Any = handler.unary_unary
        parse: Any = handler.request_deserializer
        name = f"rpc {handler_call_details.method}"

        # gRPC hands the bytes over unparsed: bytes that are no message are the caller's mistake, not ours,
        # and nobody without the token gets as far as the parser.
        async def call(raw: bytes, context: Context) -> Any:
            started = time.perf_counter()
            ids = enter_inner_call(metadata_value(context.invocation_metadata())).request_id
            outcome, reason, incident = "CANCELLED", "", ""
            try:
                self._check(context)
                try:
                    request = parse(raw)
                except DecodeError as error:
                    raise InvalidInput("the request is no message of this method") from error
                answer = await behaviour(request, context)
                outcome = "OK"
            except Exception as error:  # noqa: BLE001 - the one place that maps them
                status, incident = status_of(error)
                code = code_of(status)
                if isinstance(error, PermissionRefused):
                    code = grpc.StatusCode.UNAUTHENTICATED
                    status.code = int(code.value[0])
                outcome = code.name
                reason = str(error.code) if isinstance(error, HomewardError) else "INTERNAL"
                await context.abort(code, status.message, trailing_metadata(status))
            else:
                return answer
            finally:
                spent = time.perf_counter() - started
                emit(CallEnded(name, outcome, spent, request_id=ids, reason=reason, incident=incident))

        return grpc.unary_unary_rpc_method_handler(call, response_serializer=handler.response_serializer)

    def _check(self, context: Context) -> None:
        if not self._expected:
            return
        shown = [value for key, value in context.invocation_metadata() or () if key == _METADATA_KEY]
        given = shown[0] if len(shown) == 1 else b""
        raw = given.encode() if isinstance(given, str) else bytes(given)
        if not hmac.compare_digest(raw, self._expected[0]):
            raise PermissionRefused(
                f"this port wants the token of {_variable(self._setting)}, the same in all processes",
                code="UNAUTHENTICATED",
            )


def _variable(setting: str) -> str:
    return "HOMEWARD_" + setting.replace(".", "__").upper()


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
