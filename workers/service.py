"""The internal gRPC port of an embedding worker: `EmbeddingService` around a `LocalEmbedding`.

Photos of children pass through it, so it listens on loopback, or asks every call for the shared token.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import DecodeError
from pydantic import SecretStr

from homeward.errors import InvalidInput, PermissionRefused, Unavailable
from homeward.status import code_of, status_of, trailing_metadata
from homeward.v1 import embedding_pb2, embedding_pb2_grpc
from workers.embedding import Embedding
from workers.rpc import read_landmarks, write_faces

MESSAGE_EXTRA = 64 * 1024  # a request is one photo and little else
ANSWER_MAX_BYTES = 32 << 20
_METADATA_KEY = "authorization"

if TYPE_CHECKING:  # generic for the type checker alone
    _Handler = grpc.RpcMethodHandler[Any, Any]
    _Context = grpc.aio.ServicerContext[Any, Any]


def bearer(token: SecretStr | None) -> tuple[tuple[str, str], ...]:
    """The metadata that shows the token; empty without one."""
    return () if token is None else ((_METADATA_KEY, f"Bearer {token.get_secret_value()}"),)


class EmbeddingServicer(embedding_pb2_grpc.EmbeddingServiceServicer):
    """Hands requests to an embedding. Errors are the interceptor's."""

    def __init__(self, embedding: Embedding) -> None:
        self._embedding = embedding

    async def Embed(  # noqa: N802 - the generated name
        self,
        request: embedding_pb2.EmbedRequest,
        context: _Context,  # noqa: ARG002 - the generated signature
    ) -> embedding_pb2.EmbedResponse:
        """All faces of one photo."""
        return write_faces(await self._embedding.embed(request.photo))

    async def Crop(  # noqa: N802
        self,
        request: embedding_pb2.CropRequest,
        context: _Context,  # noqa: ARG002
    ) -> embedding_pb2.CropResponse:
        """One aligned face."""
        png = await self._embedding.crop(request.photo, read_landmarks(request))
        return embedding_pb2.CropResponse(png=png)

    async def DescribeModel(  # noqa: N802
        self,
        request: embedding_pb2.DescribeModelRequest,  # noqa: ARG002
        context: _Context,  # noqa: ARG002
    ) -> embedding_pb2.DescribeModelResponse:
        """What embeds here."""
        return embedding_pb2.DescribeModelResponse(
            model_id=self._embedding.model_id,
            dimension=self._embedding.dimension,
            device=self._embedding.device,
        )


class _Guard(grpc.aio.ServerInterceptor):
    """Checks the token, parses the request, and turns what is raised into a status with its reason."""

    def __init__(self, token: SecretStr | None) -> None:
        self._expected = [value.encode() for _, value in bearer(token)]

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler | None:
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        # Every method of the service is unary.
        behaviour: Any = handler.unary_unary
        parse: Any = handler.request_deserializer

        # gRPC hands the bytes over unparsed: bytes that are no message are the caller's mistake, not ours,
        # and nobody without the token gets as far as the parser.
        async def call(raw: bytes, context: _Context) -> Any:
            try:
                self._check(context)
                try:
                    request = parse(raw)
                except DecodeError as error:
                    raise InvalidInput("the request is no message of this method") from error
                return await behaviour(request, context)
            except Exception as error:  # noqa: BLE001 - the one place that maps them
                status, _ = status_of(error)
                code = code_of(status)
                if isinstance(error, PermissionRefused):
                    code = grpc.StatusCode.UNAUTHENTICATED
                    status.code = int(code.value[0])
                await context.abort(code, status.message, trailing_metadata(status))

        return grpc.unary_unary_rpc_method_handler(call, response_serializer=handler.response_serializer)

    def _check(self, context: _Context) -> None:
        if not self._expected:
            return
        shown = [value for key, value in context.invocation_metadata() or () if key == _METADATA_KEY]
        given = shown[0] if len(shown) == 1 else b""
        raw = given.encode() if isinstance(given, str) else bytes(given)
        if not hmac.compare_digest(raw, self._expected[0]):
            raise PermissionRefused(
                "this worker wants the token of HOMEWARD_WORKERS__TOKEN, the same on servers and workers",
                code="UNAUTHENTICATED",
            )


@asynccontextmanager
async def serving(
    embedding: Embedding, address: str, token: SecretStr | None, *, max_photo_bytes: int
) -> AsyncIterator[str]:
    """Serve `embedding` on `address` (host:port, port 0 for a free one) while the context lasts.

    Yields the address with its port. Raises `InvalidInput` (TOKEN_REQUIRED) for an address that other
    machines reach without a token, and `Unavailable` (ADDRESS_IN_USE). The embedding stays the caller's.
    """
    host, _, _ = address.rpartition(":")
    if token is None and not _is_loopback(host):
        raise InvalidInput(
            f"{address} can be reached from other machines: set workers.token "
            "(HOMEWARD_WORKERS__TOKEN), or listen on 127.0.0.1",
            code="TOKEN_REQUIRED",
        )
    server = grpc.aio.server(
        interceptors=[_Guard(token)],
        options=[
            ("grpc.max_receive_message_length", max_photo_bytes + MESSAGE_EXTRA),
            ("grpc.max_send_message_length", ANSWER_MAX_BYTES),
            ("grpc.so_reuseport", 0),
            ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
            ("grpc.keepalive_permit_without_calls", 1),
        ],
    )
    embedding_pb2_grpc.add_EmbeddingServiceServicer_to_server(EmbeddingServicer(embedding), server)
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise Unavailable(
            f"cannot listen on {address}: is another worker running there?", code="ADDRESS_IN_USE"
        ) from error
    await server.start()
    try:
        yield f"{host}:{port}"
    finally:
        await server.stop(grace=10)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
