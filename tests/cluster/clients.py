"""Typed asyncio clients for tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import grpc

from homeward.v1.search_pb2_grpc import SearchServiceStub

if TYPE_CHECKING:  # the generator writes this name into the type stubs only
    from homeward.v1.search_pb2_grpc import SearchServiceAsyncStub


def search_stub(channel: grpc.aio.Channel) -> SearchServiceAsyncStub:
    """The asyncio form of the stub."""
    return cast("SearchServiceAsyncStub", SearchServiceStub(channel))


def raw_unary(channel: grpc.aio.Channel, method: str) -> Any:
    """A method that takes and gives bytes."""
    return channel.unary_unary(method)


def raw_stream(channel: grpc.aio.Channel, method: str) -> Any:
    """A bidirectional stream of bytes."""
    return channel.stream_stream(method)
