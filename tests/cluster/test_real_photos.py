"""The whole path with the default model and real photographs, over a socket."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import numpy as np
import numpy.typing as npt
import pytest
import pytest_asyncio
import skimage.data
from PIL import Image

from cluster.server import RunningServer, running_server
from homeward.config import ServerSettings, Settings
from homeward.types import Float32
from homeward.v1 import enrolment_pb2, operations_pb2, records_pb2, search_pb2
from tests.cluster.children import Client, check_agreement, client_of, enrolling, upload
from tests.cluster.leftovers import files_with_photo, files_with_template
from tests.cluster.serving import CASE
from tests.shared import SHARED, needs_shared

pytestmark = pytest.mark.asyncio(loop_scope="module")

Pixels = npt.NDArray[np.uint8]
Served = tuple[RunningServer, Client]

ASTRONAUT: Pixels = skimage.data.astronaut()  # type: ignore[no-untyped-call]
COMPOSITE = records_pb2.FACE_CHOICE_COMPOSITE
ORDINAL = records_pb2.FACE_CHOICE_ORDINAL


def jpeg(pixels: Pixels, quality: int = 92) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=quality)
    return out.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("homeward")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(folder: Path) -> AsyncIterator[Served]:
    settings = Settings(data_dir=folder, server=ServerSettings(address="127.0.0.1:0"))
    async with (
        running_server(settings) as running,
        grpc.aio.insecure_channel(running.address, options=[("grpc.max_send_message_length", -1)]) as channel,
    ):
        yield running, client_of(channel)


async def best(client: Client, photo: bytes) -> list[tuple[str, float]]:
    """Record ids with scores for the photo's first face, best first."""
    answer = await client.search.Search(search_pb2.SearchRequest(context=CASE, photo=photo))
    return [(one.record_id, one.comparison_score) for one in answer.lists[0].candidates]


async def test_another_photo_of_an_enrolled_face_finds_it(served: Served) -> None:
    server, client = served
    answer = await client.enrol(enrolling("astronaut", [jpeg(ASTRONAUT)]))
    assert [one.code for one in answer.outcomes] == ["ENROLLED"]
    [face] = answer.outcomes[0].faces
    assert len(face.landmarks) == 5
    assert face.quality.score > 0
    assert face.quality.components
    darker = jpeg((ASTRONAUT[:400, 40:440] * 0.7).astype(np.uint8), 60)
    [(record, score), *_] = await best(client, darker)
    assert record == answer.record.record_id
    assert score > 0.9
    crop = await client.enrolment.GetCrop(enrolment_pb2.GetCropRequest(face_id=face.face_id))
    image = Image.open(io.BytesIO(crop.png))
    assert (image.format, image.mode) == ("PNG", "RGB")
    assert image.width == image.height
    check_agreement(server.parts)


async def test_photos_without_a_face_and_broken_ones_cost_themselves(served: Served) -> None:
    server, client = served
    landscape: Pixels = skimage.data.rocket()  # type: ignore[no-untyped-call]
    photos = [jpeg(landscape), jpeg(ASTRONAUT)[:9000], b"no photo at all", jpeg(ASTRONAUT[:, ::-1])]
    answer = await client.enrol(enrolling("mixed", photos))
    codes = [one.code for one in answer.outcomes]
    assert codes[0] == "NO_FACE"
    assert codes[1].startswith("PHOTO_")
    assert codes[2] == "PHOTO_FORMAT_UNKNOWN"
    assert codes[3] == "ENROLLED"
    assert answer.record.searchable
    alone = await client.enrol(enrolling("nobody", [jpeg(landscape)]))
    assert not alone.record.searchable
    assert alone.record.unsearchable_reason == "NO_FACE"
    listed = await client.enrolment.ListRecords(enrolment_pb2.ListRecordsRequest(searchable=False))
    assert [one.record_id for one in listed.records] == [alone.record.record_id]
    check_agreement(server.parts)


async def test_of_two_faces_the_caller_chooses(served: Served) -> None:
    server, client = served
    pair = jpeg(np.concatenate([ASTRONAUT, ASTRONAUT[:, ::-1]], axis=1))
    asked = await client.enrol(enrolling("pair", [pair]))
    [outcome] = asked.outcomes
    assert outcome.code == "FACE_CHOICE_REQUIRED"
    assert [face.ordinal for face in outcome.faces] == [0, 1]
    one = await client.enrol(enrolling("pair", [upload(pair, choice=ORDINAL, ordinal=1)]))
    assert [face.ordinal for face in one.record.photos[0].faces] == [1]
    both = await client.enrol(enrolling("pair", [upload(pair, choice=COMPOSITE)]))
    assert len(both.record.photos[0].faces) == 2
    check_agreement(server.parts)


@needs_shared
async def test_people_are_found_by_another_photo_of_theirs(served: Served) -> None:
    server, client = served
    assert SHARED is not None
    people = sorted((SHARED / "photos" / "london").iterdir())[:6]
    answers = await asyncio.gather(
        *(client.enrol(enrolling(one.name, [(one / f"{one.name}_03.jpg").read_bytes()])) for one in people)
    )
    assert all(answer.record.searchable for answer in answers)
    for one, answer in zip(people, answers, strict=True):
        [(record, _), *_] = await best(client, (one / f"{one.name}_08.jpg").read_bytes())
        assert record == answer.record.record_id
    check_agreement(server.parts)


async def test_nothing_of_a_deleted_person_is_left_after_erase(served: Served, folder: Path) -> None:
    server, client = served
    photo = jpeg(np.ascontiguousarray(ASTRONAUT[20:500, 30:470]), 85)
    answer = await client.enrol(enrolling("erased", [photo]))
    [face] = answer.outcomes[0].face_ids
    crop = await client.enrolment.GetCrop(enrolment_pb2.GetCropRequest(face_id=face))
    [row] = server.parts.gallery.get([face]).face_rows()
    template: Float32 = row.template.copy()
    assert files_with_photo(folder, photo)
    await client.delete(answer.record.record_id)
    assert answer.record.record_id not in dict(await best(client, photo))
    erased = await client.operations.Erase(operations_pb2.EraseRequest())
    assert all(one.erased for one in erased.stores)
    # The first bytes of a JPEG are tables that every photo of its encoder shares.
    assert files_with_photo(folder, photo[1024:]) == set()
    assert files_with_photo(folder, crop.png) == set()
    assert files_with_template(folder, template) == set()
    check_agreement(server.parts)
