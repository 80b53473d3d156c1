"""OperationsService: what the server is, whether its parts agree, erasing for good."""

from __future__ import annotations

import asyncio
import importlib.metadata
from collections.abc import Callable
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import grpc

from cluster.checks import State
from cluster.compose import Parts
from cluster.mend import diagnose
from homeward.v1 import operations_pb2, operations_pb2_grpc

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"  # generic in the stubs alone

_STATES = {
    State.OK: operations_pb2.CHECK_STATE_OK,
    State.MENDED: operations_pb2.CHECK_STATE_MENDED,
    State.WARNING: operations_pb2.CHECK_STATE_WARNING,
    State.FAILED: operations_pb2.CHECK_STATE_FAILED,
}


class OperationsServicer(operations_pb2_grpc.OperationsServiceServicer):
    """For operators. Diagnosing and erasing take turns: one at a time."""

    def __init__(self, current: Callable[[], Parts]) -> None:
        """`current`: asked once per call, for the model may be switched between two."""
        self._current = current
        self._turn = asyncio.Lock()

    async def GetStatus(
        self,
        request: operations_pb2.GetStatusRequest,
        context: _Context,
    ) -> operations_pb2.GetStatusResponse:
        """From memory alone, or from the catalogue where shards hold the index."""
        parts = self._current()
        settings = parts.settings
        rows, records, rev = parts.index.rows, parts.index.records, parts.index.rev
        if parts.router is not None:
            counts = await asyncio.get_running_loop().run_in_executor(parts.blocking, parts.catalogue.counts)
            rows, records, rev = counts.faces, counts.searchable, counts.rev
        return operations_pb2.GetStatusResponse(
            version=importlib.metadata.version("homeward"),
            model_id=parts.embedding.model_id,
            rows=rows,
            records=records,
            rev=rev,
            calibrated=parts.calibration is not None,
            stores={
                "catalogue": _shown(settings.catalogue.uri) or "SQLite in the data folder",
                "gallery": _shown(settings.gallery.uri) or "Milvus Lite in the data folder",
                "photos": _shown(settings.photos.uri) or "a folder in the data folder",
                "data folder": str(settings.data_dir),
            },
        )

    async def Diagnose(
        self,
        request: operations_pb2.DiagnoseRequest,
        context: _Context,
    ) -> operations_pb2.DiagnoseResponse:
        """Check, and with `mend` repair."""
        async with self._turn:
            checks = await diagnose(self._current(), mend=request.mend)
        return operations_pb2.DiagnoseResponse(
            checks=[
                operations_pb2.Check(
                    name=check.name,
                    state=_STATES[check.state],
                    finding=check.finding,
                    remedy=check.remedy,
                )
                for check in checks
            ]
        )

    async def Erase(
        self,
        request: operations_pb2.EraseRequest,
        context: _Context,
    ) -> operations_pb2.EraseResponse:
        """Rewrite the stores' files."""
        async with self._turn:
            parts = self._current()
            done = await asyncio.get_running_loop().run_in_executor(parts.blocking, parts.eraser.rewrite)
        return operations_pb2.EraseResponse(
            stores=[
                operations_pb2.StoreErased(store=one.store, erased=one.erased, note=one.note) for one in done
            ]
        )


def _shown(uri: str) -> str:
    """An address without whatever stands before its host: nobody's password is shown."""
    if not uri:
        return ""
    parts = urlsplit(uri)
    host = parts.hostname or ""
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{host}{port}{parts.path}"
