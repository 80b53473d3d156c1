"""What every call of Homeward's services goes through: request id, deadline, errors, telemetry.

Requests are parsed here and not by gRPC, which would answer bytes that are no message with an
internal error; here they are the caller's mistake, with a reason.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeAlias, cast

import grpc
from google.protobuf.message import DecodeError
from google.rpc import status_pb2

from cluster.rpc.status import code_of, status_of, trailing_metadata
from homeward.call_context import REQUEST_ID_KEY, CallContext, enter_call, metadata_value
from homeward.errors import DeadlineExceeded, HomewardError, InvalidInput
from homeward.telemetry import CallEnded, emit

PREFIX = "/homeward."

# In quotes: generic in the stubs alone.
_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


def seconds_left(context: _Context, default_s: float) -> float:
    """Seconds until the caller's deadline; `default_s` for a call without one."""
    left = cast(float | None, context.time_remaining())
    return default_s if left is None else left


class CallInterceptor(grpc.aio.ServerInterceptor):
    """Wraps the calls of Homeward's own services; health and reflection pass untouched.

    A unary call without a deadline gets `deadline_s`. A stream lives as long as its client wants:
    its items carry deadlines of their own.
    """

    def __init__(self, deadline_s: float) -> None:
        self._deadline_s = deadline_s

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler | None:
        """Return the method's handler, wrapped; None stays None (no such method)."""
        handler = await continuation(handler_call_details)
        method = handler_call_details.method
        if handler is None or not method.startswith(PREFIX):
            return handler
        parse, dump = handler.request_deserializer, handler.response_serializer
        if handler.unary_unary:
            return grpc.unary_unary_rpc_method_handler(
                self._unary(method, handler.unary_unary, parse), response_serializer=dump
            )
        if handler.stream_stream:
            return grpc.stream_stream_rpc_method_handler(
                self._stream(method, handler.stream_stream, parse), response_serializer=dump
            )
        raise TypeError(f"{method} is of a kind that no interceptor covers")

    def _unary(self, method: str, behaviour: Any, parse: Any) -> Any:
        async def call(raw: bytes, context: _Context) -> Any:
            async with _Call(method, context):
                request = _parsed(parse, raw)
                if cast(float | None, context.time_remaining()) is not None:
                    return await behaviour(request, context)
                try:
                    async with asyncio.timeout(self._deadline_s):
                        return await behaviour(request, context)
                except TimeoutError as error:
                    raise DeadlineExceeded(
                        f"the call took longer than {self._deadline_s:g} s; set a longer deadline"
                    ) from error

        return call

    def _stream(self, method: str, behaviour: Any, parse: Any) -> Any:
        async def call(raws: AsyncIterator[bytes], context: _Context) -> AsyncIterator[Any]:
            async def requests() -> AsyncIterator[Any]:
                async for raw in raws:
                    yield _parsed(parse, raw)

            async with _Call(method, context), aclosing(behaviour(requests(), context)) as responses:
                async for response in responses:
                    yield response

        return call


class _Call:
    """One call: names it, times it, and turns whatever it raised into a status."""

    def __init__(self, method: str, context: _Context) -> None:
        self._method = method
        self._context = context
        self._started = time.perf_counter()
        self._call = CallContext("")

    async def __aenter__(self) -> None:
        self._call = enter_call(metadata_value(self._context.invocation_metadata()))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: object
    ) -> None:
        if error is None:
            self._context.set_trailing_metadata(((REQUEST_ID_KEY, self._call.request_id),))
            self._emit("OK")
            return
        if not isinstance(error, Exception):  # cancelled by its client, its deadline or the shutdown
            self._emit("CANCELLED")
            return
        status, incident = status_of(error)
        code = code_of(status)
        reason = str(error.code) if isinstance(error, HomewardError) else "INTERNAL"
        self._emit(code.name, reason=reason, incident=incident)
        await self._abort(code, status)

    async def _abort(self, code: grpc.StatusCode, status: status_pb2.Status) -> None:
        metadata: tuple[tuple[str, str | bytes], ...] = (
            (REQUEST_ID_KEY, self._call.request_id),
            *trailing_metadata(status),
        )
        await self._context.abort(code, status.message, metadata)

    def _emit(self, outcome: str, *, reason: str = "", incident: str = "") -> None:
        emit(
            CallEnded(
                name=f"rpc {self._method}",
                outcome=outcome,
                seconds=time.perf_counter() - self._started,
                request_id=self._call.request_id,
                reason=reason,
                incident=incident,
                case=self._call.case,
                stages=self._call.stages,
            )
        )


def _parsed(parse: Callable[[bytes], Any], raw: bytes) -> Any:
    try:
        return parse(raw)
    except DecodeError as error:
        raise InvalidInput(
            "the bytes are no message of this method; check the client's proto files",
            code="MESSAGE_MALFORMED",
        ) from error
