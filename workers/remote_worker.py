"""One embedding worker as its client sees it: the channel, what it runs, and whether it answered lately."""

from __future__ import annotations

import time
from typing import cast

import grpc
from pydantic import SecretStr

from homeward.call_context import Metadata, call_metadata
from homeward.errors import WorkerUnavailable
from homeward.internal_port import bearer, internal_channel
from homeward.v1 import embedding_pb2, embedding_pb2_grpc
from workers.service import ANSWER_MAX_BYTES

_DESCRIBE_S = 5.0
_DOWN_S = (0.25, 5.0)  # after the first failure, and at most
_DRAIN_S = 30.0


class RemoteWorker:
    """A channel to one address. For one event loop."""

    def __init__(self, address: str, token: SecretStr | None) -> None:
        self.address = address
        self._token = bearer(token)
        self._channel = internal_channel(address, max_answer_bytes=ANSWER_MAX_BYTES)
        # The generated stub is one class for both kinds of channel; its types are two.
        self.stub = cast(
            "embedding_pb2_grpc.EmbeddingServiceAsyncStub",
            embedding_pb2_grpc.EmbeddingServiceStub(self._channel),
        )
        self._checked = False
        self._failures = 0
        self._down_until = 0.0

    @property
    def metadata(self) -> Metadata:
        """Of a call made now: the token, and for whom it is made."""
        return (*self._token, *call_metadata())

    @property
    def up(self) -> bool:
        """False for a while after a failure, longer each time."""
        return time.monotonic() >= self._down_until

    @property
    def connected(self) -> bool:
        """Whether a call made now would reach the worker, as far as the channel knows."""
        return self._channel.get_state() is grpc.ChannelConnectivity.READY

    async def describe(self) -> embedding_pb2.DescribeModelResponse:
        """What the worker runs. Raises `grpc.aio.AioRpcError`."""
        return await self.stub.DescribeModel(
            embedding_pb2.DescribeModelRequest(), timeout=_DESCRIBE_S, metadata=self.metadata
        )

    async def check_model(self, expected: embedding_pb2.DescribeModelResponse) -> None:
        """Once per worker: templates of two models never meet. Raises `WorkerUnavailable`."""
        if self._checked:
            return
        runs = await self.describe()
        if (runs.model_id, runs.dimension) != (expected.model_id, expected.dimension):
            raise WorkerUnavailable(
                f"it runs {runs.model_id}, this gallery's templates are of {expected.model_id}; restart it "
                "with that model, or the server after all workers have changed"
            )
        self._checked = True

    def forget_model(self) -> None:
        """Ask again before the next use."""
        self._checked = False

    def answered(self) -> None:
        """It works."""
        self._failures = 0
        self._down_until = 0.0

    def failed(self) -> None:
        """Leave it alone for a while; what comes back at the address may run another model."""
        first, most = _DOWN_S
        self._down_until = time.monotonic() + min(first * 2**self._failures, most)
        self._failures = min(self._failures + 1, 16)
        self._checked = False

    async def close(self) -> None:
        """Let running calls end, then close the channel."""
        await self._channel.close(grace=_DRAIN_S)
