"""Every odd and hostile file through a real server with the real model. Long: `make prove hostile`."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
import skimage.data
from PIL import Image

from cluster.rpc.status import error_from_rpc
from homeward.v1 import records_pb2, search_pb2
from tests.cluster.children import enrolling, upload
from tests.cluster.killable import killable
from tests.cluster.serving import CASE
from tests.shared import SHARED, needs_shared

ANSWER_S = 10  # in which each file must have its answer
GROWTH_BYTES = 256 << 20
TYPED = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION)


def portrait() -> bytes:
    out = io.BytesIO()
    pixels: Any = skimage.data.astronaut()  # type: ignore[no-untyped-call]
    Image.fromarray(pixels).save(out, "JPEG", quality=95)
    return out.getvalue()


def searching(photo: bytes) -> search_pb2.SearchRequest:
    return search_pb2.SearchRequest(context=CASE, photo=photo)


@needs_shared
@pytest.mark.prove
@pytest.mark.timeout(1800)
async def test_hostile_files_get_a_typed_answer_and_cost_no_memory(tmp_path: Path) -> None:
    assert SHARED is not None
    files = sorted(path for path in (SHARED / "photos/odd").rglob("*") if path.is_file())
    assert files
    async with killable(tmp_path, real=True) as (process, client):
        server = psutil.Process(process.pid)
        await client.enrol(enrolling("ann", [portrait()]))
        await client.search.Search(searching(portrait()))
        before = server.memory_info().rss
        for number, path in enumerate(files):
            photo = upload(path.read_bytes(), choice=records_pb2.FACE_CHOICE_MOST_CENTRAL)
            answer = await client.enrolment.EnrolRecord(enrolling(f"odd {number}", [photo]), timeout=ANSWER_S)
            assert answer.outcomes[0].code, path.name
            try:
                await client.search.Search(searching(photo.content), timeout=ANSWER_S)
            except grpc.aio.AioRpcError as error:
                assert error.code() in TYPED, path.name  # noqa: PT017
                assert error_from_rpc(error).code, path.name  # noqa: PT017
        assert server.memory_info().rss - before < GROWTH_BYTES
        found = await client.search.Search(searching(portrait()))
        assert found.lists[0].candidates[0].key.external_reference == "ann"
