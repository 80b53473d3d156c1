"""Deletion and erasure over a real socket: out of reach at the reply, out of the files after `Erase`."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import grpc
import pytest

from homeward.ids import photo_sha256
from homeward.v1 import enrolment_pb2, operations_pb2, records_pb2
from tests.cluster.children import (
    Client,
    check_agreement,
    enrolling,
    key,
    refusal,
    serving,
    upload,
)
from tests.cluster.fakes import fake_photo, fake_template
from tests.cluster.killable import kill, killable
from tests.cluster.leftovers import files_with_photo, files_with_template


async def test_a_deleted_child_is_nowhere_at_the_reply(tmp_path: Path) -> None:
    async with serving(tmp_path) as (server, client):
        photo = fake_photo("ann")
        request = enrolling("ann", [photo])
        answer = await client.enrol(request)
        record, face = answer.record.record_id, answer.outcomes[0].face_ids[0]
        await client.enrol(enrolling("ben", [fake_photo("ben")]))
        gone = await client.delete(record, "delete-1")
        assert record not in await client.found(photo)
        assert not len(server.parts.index.record_rows(record))
        assert check_agreement(server.parts) == 1
        for call in (
            client.get(record),
            client.enrolment.GetRecord(enrolment_pb2.GetRecordRequest(key=key("ann"))),
            client.enrolment.GetPhoto(
                enrolment_pb2.GetPhotoRequest(record_id=record, sha256=photo_sha256(photo))
            ),
            client.enrolment.GetCrop(enrolment_pb2.GetCropRequest(face_id=face)),
        ):
            code, _ = await refusal(call)
            assert code == grpc.StatusCode.NOT_FOUND
        listed = await client.enrolment.ListRecords(enrolment_pb2.ListRecordsRequest())
        assert [one.key.external_reference for one in listed.records] == ["ben"]
        said = {one.store: one for one in gone.erasures}
        assert said["index"].erased
        assert said["photos"].erased
        assert said["gallery"].HasField("erasure_pending_until")
        # Again, by the same request and by another one: the same revision, and nothing changes.
        assert (await client.delete(record, "delete-1")).rev == gone.rev
        assert (await client.delete(record)).rev == gone.rev
        for again in (request, enrolling("ann", [photo])):
            code, error = await refusal(client.enrol(again))
            assert (code, error.code) == (grpc.StatusCode.FAILED_PRECONDITION, "RECORD_DELETED")
        server.parts.eraser.sweep()
        assert check_agreement(server.parts) == 1
        back = await client.enrol(enrolling("ann", [photo], reinstate=True))
        assert back.created
        assert next(iter(await client.found(photo))) == record
        assert check_agreement(server.parts) == 2


@pytest.mark.parametrize("wrong", ["0" * 32, "x", ""])
async def test_deleting_nobody_says_so(tmp_path: Path, wrong: str) -> None:
    async with serving(tmp_path) as (_, client):
        code, _ = await refusal(client.delete(wrong))
        assert code in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT)


async def test_interleaved_writes_of_few_children_end_consistent(tmp_path: Path) -> None:
    async with serving(tmp_path) as (server, client):
        for seed in range(3):
            await _interleave(client, seed)
            server.parts.eraser.sweep()
            check_agreement(server.parts)
            listed = await client.enrolment.ListRecords(enrolment_pb2.ListRecordsRequest())
            for record in listed.records:
                for photo in record.photos:
                    kept = await client.enrolment.GetPhoto(
                        enrolment_pb2.GetPhotoRequest(record_id=record.record_id, sha256=photo.sha256)
                    )
                    assert photo_sha256(kept.content) == photo.sha256


async def _interleave(client: Client, seed: int) -> None:
    """Three children, four photos, six callers: enrolments, updates and deletions of one another."""
    chance = random.Random(seed)
    photos = [fake_photo(f"{seed}-{number}", 2) for number in range(4)]
    records = [
        (await client.enrol(enrolling(f"c{number}", [fake_photo("first")], reinstate=True))).record.record_id
        for number in range(3)
    ]

    async def caller(chance: random.Random) -> None:
        for _ in range(8):
            await asyncio.sleep(chance.random() * 0.004)
            number = chance.randrange(3)
            sex = chance.choice((records_pb2.SEX_FEMALE, records_pb2.SEX_MALE))
            facts = records_pb2.Attributes(sex=sex, sex_verified=True)
            try:
                match chance.randrange(4):
                    case 0:
                        await client.delete(records[number])
                    case 1:
                        update = enrolment_pb2.UpdateRecordRequest(
                            request_id=f"u{chance.random()}", record_id=records[number], attributes=facts
                        )
                        update.update_mask.paths.append("sex")
                        await client.enrolment.UpdateRecord(update)
                    case _:
                        choice = chance.choice(
                            (records_pb2.FACE_CHOICE_COMPOSITE, records_pb2.FACE_CHOICE_MOST_CENTRAL)
                        )
                        some = [upload(one, choice=choice) for one in chance.sample(photos, 2)]
                        await client.enrol(
                            enrolling(f"c{number}", some, attributes=facts, reinstate=chance.random() < 0.5)
                        )
            except grpc.aio.AioRpcError as error:
                if error.code() not in (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.NOT_FOUND):
                    raise

    await asyncio.gather(*(caller(random.Random(chance.random())) for _ in range(6)))


async def test_an_erasure_that_is_killed_loses_nothing(tmp_path: Path) -> None:
    photo = fake_photo("ann")
    others = [fake_photo(f"other-{number}") for number in range(20)]
    for delay in (0.02, 0.15):
        async with killable(tmp_path) as (process, client):
            await asyncio.gather(
                *(
                    client.enrol(enrolling(f"o{number}", [other], request_id=f"r{number}"))
                    for number, other in enumerate(others)
                )
            )
            record = (await client.enrol(enrolling("ann", [photo], reinstate=True))).record.record_id
            await client.delete(record)
            erasing = asyncio.ensure_future(client.operations.Erase(operations_pb2.EraseRequest()))
            await asyncio.sleep(delay)
            await kill(process)
            await asyncio.gather(erasing, return_exceptions=True)
    async with serving(tmp_path) as (server, client):
        assert check_agreement(server.parts) == len(others)
        done = await client.operations.Erase(operations_pb2.EraseRequest())
        assert all(one.erased for one in done.stores), done
        assert check_agreement(server.parts) == len(others)
        assert not files_with_photo(tmp_path, photo)
        assert not files_with_template(tmp_path, fake_template(photo, 0))
