"""The internal gRPC port of an embedding worker: `EmbeddingService` around a `LocalEmbedding`."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

import grpc
from pydantic import SecretStr

from homeward.internal_port import internal_port
from homeward.v1 import embedding_pb2, embedding_pb2_grpc
from workers.embedding import Embedding
from workers.rpc import read_landmarks, write_faces

if TYPE_CHECKING:
    from homeward.internal_port import Context

MESSAGE_EXTRA = 64 * 1024  # a request is one photo and little else
ANSWER_MAX_BYTES = 32 << 20


class EmbeddingServicer(embedding_pb2_grpc.EmbeddingServiceServicer):
    """Hands requests to an embedding. Errors are the port's."""

    def __init__(self, embedding: Embedding) -> None:
        self._embedding = embedding

    async def Embed(  # noqa: N802 - the generated name
        self,
        request: embedding_pb2.EmbedRequest,
        context: Context,  # noqa: ARG002 - the generated signature
    ) -> embedding_pb2.EmbedResponse:
        """All faces of one photo."""
        return write_faces(await self._embedding.embed(request.photo))

    async def Crop(  # noqa: N802
        self,
        request: embedding_pb2.CropRequest,
        context: Context,  # noqa: ARG002
    ) -> embedding_pb2.CropResponse:
        """One aligned face."""
        png = await self._embedding.crop(request.photo, read_landmarks(request))
        return embedding_pb2.CropResponse(png=png)

    async def DescribeModel(  # noqa: N802
        self,
        request: embedding_pb2.DescribeModelRequest,  # noqa: ARG002
        context: Context,  # noqa: ARG002
    ) -> embedding_pb2.DescribeModelResponse:
        """What embeds here."""
        return embedding_pb2.DescribeModelResponse(
            model_id=self._embedding.model_id,
            dimension=self._embedding.dimension,
            device=self._embedding.device,
        )


def serving(
    embedding: Embedding, address: str, token: SecretStr | None, *, max_photo_bytes: int
) -> AbstractAsyncContextManager[str]:
    """Serve `embedding` on `address` while the context lasts; see `internal_port`. Yields the address with
    its port. The embedding stays the caller's."""

    def add(server: grpc.aio.Server) -> None:
        embedding_pb2_grpc.add_EmbeddingServiceServicer_to_server(EmbeddingServicer(embedding), server)

    return internal_port(
        add,
        address,
        token,
        setting="workers.token",
        max_request_bytes=max_photo_bytes + MESSAGE_EXTRA,
        max_answer_bytes=ANSWER_MAX_BYTES,
    )
