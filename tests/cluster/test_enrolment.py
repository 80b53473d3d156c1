"""Enrolment over a real socket with the embedded stores: what is acknowledged is what all stores hold."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from cluster.rpc.status import error_from_rpc
from cluster.server import RunningServer
from homeward.ids import photo_sha256, record_id
from homeward.types import RecordKey, Sex
from homeward.v1 import enrolment_pb2, records_pb2
from tests.cluster.children import (
    Client,
    check_agreement,
    enrolling,
    key,
    refusal,
    rows_of,
    serving,
    upload,
)
from tests.cluster.clients import raw_unary
from tests.cluster.fakes import FakeEmbedding, fake_photo

ORDINAL = records_pb2.FACE_CHOICE_ORDINAL
CENTRAL = records_pb2.FACE_CHOICE_MOST_CENTRAL
COMPOSITE = records_pb2.FACE_CHOICE_COMPOSITE
FEMALE = records_pb2.SEX_FEMALE
MALE = records_pb2.SEX_MALE


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[tuple[RunningServer, Client]]:
    async with serving(tmp_path) as pair:
        yield pair


def verified(first: str, last: str = "") -> records_pb2.DateRange:
    return records_pb2.DateRange(earliest=first, latest=last, verified=True)


async def test_an_enrolled_child_is_found_with_its_photo_and_crop(
    served: tuple[RunningServer, Client],
) -> None:
    server, client = served
    photo = fake_photo("ann")
    answer = await client.enrol(enrolling("ann", [photo]))
    record = answer.record
    assert answer.created
    assert record.searchable
    assert record.record_id == record_id(RecordKey("agency-a", "missing", "ann"))
    assert [one.code for one in answer.outcomes] == ["ENROLLED"]
    assert await client.get(record.record_id) == record
    assert (await client.found(photo))[record.record_id] == pytest.approx(1.0, abs=1e-6)
    kept = await client.enrolment.GetPhoto(
        enrolment_pb2.GetPhotoRequest(record_id=record.record_id, sha256=photo_sha256(photo))
    )
    assert (kept.content, kept.media_type) == (photo, "image/png")
    [face] = answer.outcomes[0].face_ids
    crop = await client.enrolment.GetCrop(enrolment_pb2.GetCropRequest(face_id=face))
    assert crop.png.startswith(b"\x89PNG")
    assert check_agreement(server.parts) == 1


async def test_a_repeated_request_gives_the_first_answer(served: tuple[RunningServer, Client]) -> None:
    server, client = served
    request = enrolling("ann", [fake_photo("ann")], request_id="same")
    first = await client.enrol(request)
    embedded = server.parts.embedding.embedded  # type: ignore[attr-defined]
    again = await client.enrol(request)
    assert again == first
    assert server.parts.embedding.embedded == embedded  # type: ignore[attr-defined]
    assert server.parts.catalogue.rev() == first.rev


async def test_concurrent_repeats_of_one_request_enrol_once(tmp_path: Path) -> None:
    embedding = FakeEmbedding()
    embedding.gate = asyncio.Event()
    async with serving(tmp_path, embedding) as (server, client):
        request = enrolling("ann", [fake_photo("ann")], request_id="same")
        before = server.parts.catalogue.rev()
        calls = [asyncio.ensure_future(client.enrol(request)) for _ in range(20)]
        await asyncio.sleep(0.1)
        embedding.gate.set()
        answers = await asyncio.gather(*calls)
        assert all(answer == answers[0] for answer in answers)
        assert embedding.embedded == 1
        changes = server.parts.catalogue.changes_since(before)
        assert len(changes) == 1
        check_agreement(server.parts)


@pytest.mark.parametrize("running", [False, True])
async def test_a_request_id_names_one_request(tmp_path: Path, running: bool) -> None:
    embedding = FakeEmbedding()
    async with serving(tmp_path, embedding) as (server, client):
        if running:
            embedding.gate = asyncio.Event()
        first = asyncio.ensure_future(client.enrol(enrolling("ann", [fake_photo("ann")], request_id="same")))
        if running:
            await asyncio.sleep(0.1)
        else:
            await first
        code, error = await refusal(client.enrol(enrolling("ann", [fake_photo("eve")], request_id="same")))
        assert (code, error.code) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")
        if embedding.gate is not None:
            embedding.gate.set()
        record = (await first).record.record_id
        code, error = await refusal(client.delete(record, "same"))
        assert (code, error.code) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")
        assert (await client.get(record)).searchable
        assert check_agreement(server.parts) == 1


async def test_a_caller_that_leaves_does_not_stop_its_write(tmp_path: Path) -> None:
    embedding = FakeEmbedding()
    embedding.gate = asyncio.Event()
    async with serving(tmp_path, embedding) as (server, client):
        request = enrolling("ann", [fake_photo("ann")])
        call = asyncio.ensure_future(client.enrol(request))
        await asyncio.sleep(0.1)
        call.cancel()
        embedding.gate.set()
        for _ in range(100):
            if server.parts.index.rows:
                break
            await asyncio.sleep(0.02)
        assert (await client.enrol(request)).created
        assert check_agreement(server.parts) == 1


@pytest.mark.parametrize(
    ("faces", "choice", "code", "enrolled"),
    [
        (1, {}, "ENROLLED", [0]),
        (3, {}, "FACE_CHOICE_REQUIRED", []),
        (3, {"choice": ORDINAL, "ordinal": 2}, "ENROLLED", [2]),
        (3, {"choice": ORDINAL, "ordinal": 3}, "FACE_ORDINAL_UNKNOWN", []),
        (3, {"choice": CENTRAL}, "ENROLLED", [1]),
        (3, {"choice": COMPOSITE}, "ENROLLED", [0, 1, 2]),
        (0, {"choice": COMPOSITE}, "NO_FACE", []),
    ],
)
async def test_the_caller_chooses_the_faces(
    served: tuple[RunningServer, Client], faces: int, choice: dict[str, Any], code: str, enrolled: list[int]
) -> None:
    server, client = served
    photo = fake_photo("group", faces)
    answer = await client.enrol(enrolling("ann", [upload(photo, **choice)]))
    [outcome] = answer.outcomes
    assert outcome.code == code
    assert len(outcome.faces) == faces
    assert bool(outcome.message) == (not enrolled)
    assert [face.ordinal for face in outcome.faces if face.face_id] == enrolled
    assert [face.ordinal for face in answer.record.photos[0].faces] == enrolled
    assert answer.record.searchable == bool(enrolled)
    assert answer.record.unsearchable_reason == ("" if enrolled else code)
    for ordinal in range(faces):
        score = (await client.found(photo, ordinal)).get(answer.record.record_id, 0.0)
        assert (score > 0.999) == (ordinal in enrolled)
    assert check_agreement(server.parts) == len(enrolled)


async def test_a_record_without_a_face_is_listed_as_unsearchable(
    served: tuple[RunningServer, Client],
) -> None:
    _, client = served
    await client.enrol(enrolling("seen", [fake_photo("seen")]))
    hidden = await client.enrol(enrolling("hidden", [fake_photo("hidden", 0)]))
    page = await client.enrolment.ListRecords(enrolment_pb2.ListRecordsRequest(searchable=False))
    assert [record.record_id for record in page.records] == [hidden.record.record_id]
    assert page.records[0].unsearchable_reason == "NO_FACE"
    later = await client.enrol(enrolling("hidden", [fake_photo("better")]))
    assert later.record.searchable
    assert len(later.record.photos) == 2


async def test_a_bad_photo_costs_itself(served: tuple[RunningServer, Client]) -> None:
    server, client = served
    photos = [b"no photo at all", fake_photo("ann"), b"", fake_photo("ann", 2)]
    answer = await client.enrol(enrolling("ann", photos))
    assert [one.code for one in answer.outcomes] == [
        "PHOTO_FORMAT_UNKNOWN",
        "ENROLLED",
        "PHOTO_FORMAT_UNKNOWN",
        "FACE_CHOICE_REQUIRED",
    ]
    assert [one.sha256 for one in answer.outcomes] == [photo_sha256(photo) for photo in photos]
    assert len(answer.record.photos) == 2
    assert check_agreement(server.parts) == 1
    only_bad = await client.enrol(enrolling("eve", [b"garbage"]))
    assert not only_bad.record.searchable
    assert only_bad.record.unsearchable_reason == "NO_PHOTO"


async def test_enrolling_again_replaces_the_photos_rows(served: tuple[RunningServer, Client]) -> None:
    server, client = served
    group, other = fake_photo("group", 3), fake_photo("other")
    await client.enrol(enrolling("ann", [upload(group, choice=COMPOSITE), other]))
    assert check_agreement(server.parts) == 4
    answer = await client.enrol(
        enrolling(
            "ann",
            [upload(group, choice=ORDINAL, ordinal=1, taken=verified("2019-05"))],
            attributes=records_pb2.Attributes(sex=FEMALE, sex_verified=True, born=verified("2012")),
        )
    )
    record = answer.record.record_id
    assert not answer.created
    assert [len(photo.faces) for photo in answer.record.photos] == [1, 1]
    assert (await client.found(group, 0))[record] < 0.999
    assert (await client.found(group, 1))[record] > 0.999
    assert check_agreement(server.parts) == 2  # and the other photo's row has the new facts too
    chosen = await client.enrol(enrolling("ann", [group]))
    assert chosen.outcomes[0].code == "FACE_CHOICE_REQUIRED"
    assert check_agreement(server.parts) == 1


async def test_an_outdated_etag_changes_nothing(served: tuple[RunningServer, Client]) -> None:
    server, client = served
    photo = fake_photo("ann")
    attributes = records_pb2.Attributes(sex=FEMALE, sex_verified=True, born=verified("2012"))
    first = await client.enrol(enrolling("ann", [photo], attributes=attributes))
    second = await client.enrol(enrolling("ann", [photo], attributes=attributes))
    before = rows_of(server.parts.gallery.iterate())
    other = records_pb2.Attributes(sex=MALE, sex_verified=True, born=verified("2001"))
    code, error = await refusal(
        client.enrol(enrolling("ann", [photo, fake_photo("new")], attributes=other, etag=first.record.etag))
    )
    assert (code, error.code) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
    update = enrolment_pb2.UpdateRecordRequest(
        request_id="u", record_id=first.record.record_id, attributes=other, etag=first.record.etag
    )
    update.update_mask.paths.append("sex")
    code, error = await refusal(client.enrolment.UpdateRecord(update))
    assert (code, error.code) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
    server.parts.eraser.sweep()
    assert check_agreement(server.parts) == 1
    after = rows_of(server.parts.gallery.iterate())
    assert [row.sex for row in after.values()] == [Sex.FEMALE]
    assert {row.born_from for row in after.values()} == {row.born_from for row in before.values()}
    assert await client.get(first.record.record_id) == second.record
    assert list(await client.found(photo, sexes=[FEMALE], strict=True))
    assert not list(await client.found(photo, sexes=[MALE]))


async def test_an_update_of_facts_changes_what_filters_find(served: tuple[RunningServer, Client]) -> None:
    server, client = served
    photo = fake_photo("ann")
    record = (await client.enrol(enrolling("ann", [photo, fake_photo("ann2")]))).record.record_id
    assert not await client.found(photo, sexes=[FEMALE], strict=True)
    update = enrolment_pb2.UpdateRecordRequest(
        request_id="update-1",
        record_id=record,
        attributes=records_pb2.Attributes(
            sex=FEMALE, sex_verified=True, born=verified("2012"), case_reference="x"
        ),
    )
    update.update_mask.paths.extend(["sex", "born"])
    updated = await client.enrolment.UpdateRecord(update)
    assert updated.record.attributes.case_reference == ""
    assert list(await client.found(photo, sexes=[FEMALE], strict=True)) == [record]
    assert not await client.found(photo, sexes=[MALE])
    assert list(await client.found(photo, born=verified("2012-03"), strict=True)) == [record]
    assert not await client.found(photo, born=verified("2013"))
    assert check_agreement(server.parts) == 2
    assert (await client.enrolment.UpdateRecord(update)).rev == updated.rev
    assert server.parts.catalogue.rev() == updated.rev
    update.attributes.sex = MALE
    code, error = await refusal(client.enrolment.UpdateRecord(update))
    assert (code, error.code) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")


@pytest.mark.parametrize("field", ["", "name", "sex_verified.x", "record_id"])
async def test_an_update_names_known_attributes(served: tuple[RunningServer, Client], field: str) -> None:
    _, client = served
    record = (await client.enrol(enrolling("ann", [fake_photo("ann")]))).record.record_id
    update = enrolment_pb2.UpdateRecordRequest(request_id="u", record_id=record)
    if field:
        update.update_mask.paths.append(field)
    code, _ = await refusal(client.enrolment.UpdateRecord(update))
    assert code == grpc.StatusCode.INVALID_ARGUMENT


async def test_pages_list_every_record_once(served: tuple[RunningServer, Client]) -> None:
    _, client = served
    answers = await asyncio.gather(
        *(
            client.enrol(
                enrolling(
                    f"child-{number}",
                    [fake_photo(f"child-{number}", number % 2)],
                    key=key(f"child-{number}", agency=f"agency-{number % 3}"),
                )
            )
            for number in range(25)
        )
    )
    seen: list[str] = []
    token = ""
    while True:
        page = await client.enrolment.ListRecords(
            enrolment_pb2.ListRecordsRequest(page_size=7, page_token=token)
        )
        assert len(page.records) <= 7
        seen += [record.record_id for record in page.records]
        token = page.next_page_token
        if not token:
            break
    assert seen == sorted(answer.record.record_id for answer in answers)
    of_agency = await client.enrolment.ListRecords(
        enrolment_pb2.ListRecordsRequest(agency="agency-1", searchable=True)
    )
    assert {record.key.agency for record in of_agency.records} == {"agency-1"}
    assert all(record.searchable for record in of_agency.records)
    for wrong in ("x", "AAAA", seen[0]):
        code, _ = await refusal(
            client.enrolment.ListRecords(enrolment_pb2.ListRecordsRequest(page_token=wrong))
        )
        assert code == grpc.StatusCode.INVALID_ARGUMENT


async def test_a_photo_of_two_records_stays_until_the_last_is_deleted(
    served: tuple[RunningServer, Client],
) -> None:
    server, client = served
    photo = fake_photo("siblings", 2)
    sha256 = photo_sha256(photo)
    ann = (await client.enrol(enrolling("ann", [upload(photo, choice=ORDINAL, ordinal=0)]))).record.record_id
    ben = (await client.enrol(enrolling("ben", [upload(photo, choice=ORDINAL, ordinal=1)]))).record.record_id
    await client.delete(ann)
    kept = await client.enrolment.GetPhoto(enrolment_pb2.GetPhotoRequest(record_id=ben, sha256=sha256))
    assert kept.content == photo
    code, _ = await refusal(
        client.enrolment.GetPhoto(enrolment_pb2.GetPhotoRequest(record_id=ann, sha256=sha256))
    )
    assert code == grpc.StatusCode.NOT_FOUND
    assert check_agreement(server.parts) == 1
    await client.delete(ben)
    assert check_agreement(server.parts) == 0
    assert not server.parts.photos.exists("agency-a", sha256)


async def test_a_restart_finds_the_same(tmp_path: Path) -> None:
    chance = random.Random(3)
    photos = [fake_photo(f"p{number}") for number in range(20)]
    async with serving(tmp_path) as (server, client):
        answers = [
            await client.enrol(enrolling(f"c{number % 12}", [photo], request_id=f"r{number}"))
            for number, photo in enumerate(photos)
        ]
        await client.delete(answers[3].record.record_id)
        before = [await client.found(photo) for photo in photos]
        check_agreement(server.parts)
    async with serving(tmp_path) as (server, client):
        assert [await client.found(photo) for photo in photos] == before
        check_agreement(server.parts)
        number = chance.choice([0, 1, 2, 5])
        again = await client.enrol(enrolling(f"c{number}", [photos[number]], request_id=f"r{number}"))
        assert again.rev == answers[number].rev


METHODS = [
    *(
        f"/homeward.v1.EnrolmentService/{name}"
        for name in (
            "EnrolRecord",
            "UpdateRecord",
            "GetRecord",
            "ListRecords",
            "GetPhoto",
            "GetCrop",
            "DeleteRecord",
        )
    ),
    "/homeward.v1.OperationsService/GetStatus",
]


@pytest.mark.parametrize("seed", range(2))
async def test_no_bytes_are_an_internal_error(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    async with serving(tmp_path) as (server, client), grpc.aio.insecure_channel(server.address) as channel:
        photo = fake_photo("ann", 2)
        whole = await client.enrol(enrolling("ann", [upload(photo, choice=COMPOSITE)]))
        record, face = whole.record.record_id, whole.outcomes[0].face_ids[0]
        update = enrolment_pb2.UpdateRecordRequest(
            request_id="u", record_id=record, attributes=records_pb2.Attributes(born=verified("2012"))
        )
        update.update_mask.paths.extend(["born", "sex", "event_place"])
        templates = [
            enrolling("ann", [upload(photo, taken=verified("2012"))], etag=whole.record.etag),
            update,
            enrolment_pb2.GetRecordRequest(record_id=record),
            enrolment_pb2.GetRecordRequest(key=key("ann")),
            enrolment_pb2.ListRecordsRequest(
                agency="agency-a", page_size=3, page_token="e30", searchable=True
            ),
            enrolment_pb2.GetPhotoRequest(record_id=record, sha256=photo_sha256(photo)),
            enrolment_pb2.GetCropRequest(face_id=face),
            enrolment_pb2.DeleteRecordRequest(request_id="d", record_id=record, requester="r", reason="w"),
        ]
        wires = [message.SerializeToString() for message in templates]
        ends: list[tuple[str, grpc.StatusCode]] = []
        for method in METHODS:
            call = raw_unary(channel, method)
            for number in range(40):
                sent = _mutated(chance, wires) if number else b""
                ends.append((method, await _end(call(sent, timeout=20))))
        assert not {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN} & {code for _, code in ends}
        for method in ("Diagnose", "Erase"):
            call = raw_unary(channel, f"/homeward.v1.OperationsService/{method}")
            for _ in range(3):
                code = await _end(call(chance.randbytes(chance.randrange(40)), timeout=20))
                assert code in (grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT)
        assert (await client.enrol(enrolling("eve", [fake_photo("eve")]))).record.searchable
        server.parts.eraser.sweep()
        check_agreement(server.parts)


async def _end(call: Any) -> grpc.StatusCode:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        if not error_from_rpc(error).message:
            raise
        return error.code()
    return grpc.StatusCode.OK


def _mutated(chance: random.Random, wires: list[bytes]) -> bytes:
    wire = bytearray(chance.choice(wires))
    match chance.randrange(5):
        case 0:
            return chance.randbytes(chance.randrange(200))
        case 1:
            return bytes(wire[: chance.randrange(len(wire) + 1)])
        case 2:
            return bytes(wire) + chance.choice(wires)
        case _:
            for _ in range(chance.randrange(1, 6)):
                wire[chance.randrange(min(len(wire), 120))] = chance.randrange(256)
            return bytes(wire)
