"""The internal gRPC port of a shard: `ShardService` around what is `Served`."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

import grpc
from pydantic import SecretStr

from homeward.errors import Unavailable
from homeward.internal_port import internal_port
from homeward.v1 import shard_pb2, shard_pb2_grpc
from index.rows_rpc import read_pushed, write_rows, write_status
from index.shard_rpc import read_query, read_slots, write_found
from index.shard_types import Served
from index.wire import read_count, read_id

if TYPE_CHECKING:
    from homeward.internal_port import Context

SETTING = "index.token"
REQUEST_MAX_BYTES = 64 << 20
ANSWER_MAX_BYTES = 256 << 20


class ShardServicer(shard_pb2_grpc.ShardServiceServicer):
    """Hands requests to a shard. Errors are the port's."""

    def __init__(self, served: Served) -> None:
        self._served = served

    async def SearchSlots(  # noqa: N802 - the generated name
        self,
        request: shard_pb2.SearchSlotsRequest,
        context: Context,  # noqa: ARG002 - the generated signature
    ) -> shard_pb2.SearchSlotsResponse:
        """What some slots say of some queries."""
        self._check_model(request.model_id)
        parts, rev = await self._served.search(
            [read_query(query) for query in request.queries],
            read_slots(request.slots),
            read_count(request.min_rev, "min_rev"),
        )
        return write_found(parts, rev)

    async def GetRows(  # noqa: N802
        self,
        request: shard_pb2.GetRowsRequest,
        context: Context,  # noqa: ARG002
    ) -> shard_pb2.GetRowsResponse:
        """One record's rows."""
        self._check_model(request.model_id)
        columns, rev = await self._served.rows(read_id(request.record_id, "record_id"))
        return shard_pb2.GetRowsResponse(rows=write_rows(columns), rev=rev)

    async def Push(  # noqa: N802
        self,
        request: shard_pb2.PushRequest,
        context: Context,  # noqa: ARG002
    ) -> shard_pb2.PushResponse:
        """What was committed."""
        self._check_model(request.model_id)
        pushed = [read_pushed(one, self._served.dimension) for one in request.records]
        return shard_pb2.PushResponse(
            rev=await self._served.push(pushed, read_count(request.rev, "rev")),
        )

    async def GetShardStatus(  # noqa: N802
        self,
        request: shard_pb2.GetShardStatusRequest,  # noqa: ARG002
        context: Context,  # noqa: ARG002
    ) -> shard_pb2.GetShardStatusResponse:
        """How the shard is."""
        return write_status(self._served.status())

    def _check_model(self, model_id: str) -> None:
        if model_id and model_id != self._served.model_id:
            raise Unavailable(
                f"this shard holds templates of {self._served.model_id}, not of {model_id}",
                code="MODEL_DIFFERS",
            )


def serving(served: Served, address: str, token: SecretStr | None) -> AbstractAsyncContextManager[str]:
    """Serve the shard on `address` while the context lasts; see `internal_port`. Yields the address with
    its port. What is served stays the caller's."""

    def add(server: grpc.aio.Server) -> None:
        shard_pb2_grpc.add_ShardServiceServicer_to_server(ShardServicer(served), server)

    return internal_port(
        add,
        address,
        token,
        setting=SETTING,
        max_request_bytes=REQUEST_MAX_BYTES,
        max_answer_bytes=ANSWER_MAX_BYTES,
    )
