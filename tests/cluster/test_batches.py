"""Enrolments that share a write: what one of them does costs no other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from catalogue.coding import Source
from catalogue.types import RowColumns, Store
from cluster import startup
from cluster.rpc.status import error_from_rpc
from homeward.errors import InvalidInput, StoreUnavailable
from homeward.v1 import enrolment_pb2, records_pb2
from tests.cluster.children import check_agreement, check_stores, enrolling, serving, upload
from tests.cluster.fakes import FakeEmbedding, fake_photo

EXPANDING = "\u0390" * 256  # each becomes three characters when case is folded
NOWHERE = "nowhere"


async def test_a_value_that_cannot_be_coded_costs_its_own_enrolment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(tmp_path) as (server, client):
        columns = server.parts.catalogue.columns

        def refusing(sources: Sequence[Source]) -> list[RowColumns]:
            if any(attributes.event_place == NOWHERE for _, attributes, _, _ in sources):
                raise InvalidInput("there is no such place")
            return columns(sources)

        monkeypatch.setattr(server.parts.catalogue, "columns", refusing)
        requests = [enrolling(f"child {number}", [fake_photo(f"{number}")]) for number in range(12)]
        requests[5].attributes.event_place = NOWHERE
        requests[6].attributes.event_place = EXPANDING
        answers = await asyncio.gather(
            *(client.enrol(request) for request in requests), return_exceptions=True
        )
        refused = [number for number, one in enumerate(answers) if isinstance(one, BaseException)]
        assert refused == [5]
        assert isinstance(answers[5], grpc.aio.AioRpcError)
        assert answers[5].code() == grpc.StatusCode.INVALID_ARGUMENT
        assert check_agreement(server.parts) == 11


async def test_refusals_of_a_batch_leave_nothing_behind(tmp_path: Path) -> None:
    async with serving(tmp_path) as (server, client):
        names = [f"child {number}" for number in range(8)]
        first = await asyncio.gather(*(client.enrol(enrolling(name, [fake_photo(name)])) for name in names))
        await client.delete(first[0].record.record_id)
        changed = records_pb2.Attributes(sex=records_pb2.SEX_FEMALE, sex_verified=True)
        again = [
            enrolling(name, [fake_photo(name), fake_photo(f"more of {name}")], attributes=changed)
            for name in names
        ]
        again[3].etag = "1" if first[3].record.etag != "1" else "2"
        answers = await asyncio.gather(*(client.enrol(one) for one in again), return_exceptions=True)
        reasons = {
            number: error_from_rpc(one).code
            for number, one in enumerate(answers)
            if isinstance(one, grpc.aio.AioRpcError)
        }
        assert reasons == {0: "RECORD_DELETED", 3: "ETAG_MISMATCH"}
        assert check_agreement(server.parts) == 6 * 2 + 1
        women = await client.found(fake_photo(names[3]), sexes=[records_pb2.SEX_MALE])
        assert set(women) == {first[3].record.record_id}  # of unknown sex still; the others are female


async def test_a_store_that_fails_refuses_the_batch_and_a_repeat_enrols_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(tmp_path) as (server, client):
        photos, gallery, catalogue = server.parts.photos, server.parts.gallery, server.parts.catalogue
        requests = [enrolling(f"child {number}", [fake_photo(f"{number}")]) for number in range(4)]

        def fail(*_: object, **__: object) -> None:
            raise StoreUnavailable("the store is away", store="some")

        for target, name in ((photos, "put"), (gallery, "upsert"), (catalogue, "apply")):
            with monkeypatch.context() as broken:
                broken.setattr(target, name, fail)
                answers = await asyncio.gather(*map(client.enrol, requests), return_exceptions=True)
            codes = {one.code() for one in answers if isinstance(one, grpc.aio.AioRpcError)}
            assert (len(codes), *codes) == (1, grpc.StatusCode.UNAVAILABLE)
            server.parts.eraser.sweep()
            assert check_agreement(server.parts) == 0
        # The catalogue has it, the index could not follow: a repeat does not answer before it did.
        with monkeypatch.context() as broken:
            broken.setattr(catalogue, "changes_since", fail)
            answers = await asyncio.gather(*map(client.enrol, requests), return_exceptions=True)
            assert all(isinstance(one, grpc.aio.AioRpcError) for one in answers)
            assert server.parts.index.rows == 0
        for answer in await asyncio.gather(*map(client.enrol, requests)):
            assert answer.record.record_id in await client.found(
                fake_photo(answer.record.key.external_reference[-1])
            )
        assert check_agreement(server.parts) == 4


async def test_an_update_that_stopped_halfway_is_finished_by_its_repeat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(tmp_path) as (server, client):
        record = (await client.enrol(enrolling("ann", [fake_photo("ann")]))).record.record_id
        update = enrolment_pb2.UpdateRecordRequest(
            request_id="update",
            record_id=record,
            attributes=records_pb2.Attributes(sex=records_pb2.SEX_MALE, sex_verified=True),
        )
        update.update_mask.paths.append("sex")

        def fail(*_: object, **__: object) -> None:
            raise StoreUnavailable("the gallery is away", store="gallery")

        with monkeypatch.context() as broken:
            broken.setattr(server.parts.gallery, "upsert", fail)
            with pytest.raises(grpc.aio.AioRpcError):
                await client.enrolment.UpdateRecord(update)
        await client.enrolment.UpdateRecord(update)
        assert check_agreement(server.parts) == 1


async def test_photos_of_one_child_sent_at_once_all_arrive(tmp_path: Path) -> None:
    embedding = FakeEmbedding()
    async with serving(tmp_path, embedding) as (server, client):
        embedding.gate = asyncio.Event()
        calls = [
            asyncio.ensure_future(client.enrol(enrolling("ann", [upload(fake_photo(f"ann {number}"))])))
            for number in range(10)
        ]
        await asyncio.sleep(0.2)
        embedding.gate.set()
        answers = await asyncio.gather(*calls)
        assert sum(answer.created for answer in answers) == 1
        assert len({answer.rev for answer in answers}) == 10
        record = await client.get(answers[0].record.record_id)
        assert len(record.photos) == 10
        assert check_agreement(server.parts) == 10


async def test_rows_that_stayed_behind_are_rewritten_by_a_sweep_and_not_forgotten_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(tmp_path) as (server, client):
        parts = server.parts
        made = await client.enrol(enrolling("ann", [fake_photo("ann")]))

        def fail(*_: object, **__: object) -> None:
            raise StoreUnavailable("the store is away", store="some")

        update = enrolment_pb2.UpdateRecordRequest(
            request_id="update ann",
            record_id=made.record.record_id,
            attributes=records_pb2.Attributes(sex=records_pb2.SEX_FEMALE, sex_verified=True),
            update_mask=FieldMask(paths=["sex"]),
        )
        with monkeypatch.context() as broken:
            broken.setattr(parts.gallery, "upsert", fail)
            with pytest.raises(grpc.aio.AioRpcError):
                await client.enrolment.UpdateRecord(update)
            later = parts.clock.now() + timedelta(hours=2)
            startup._sweep(parts, later)
            assert parts.catalogue.intended(Store.GALLERY)
        startup._sweep(parts, later)
        assert not parts.catalogue.intended(Store.GALLERY)
        assert check_stores(parts)  # rows carry what the catalogue says


async def test_a_photo_put_late_by_a_failed_batch_is_not_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(tmp_path) as (server, client):
        photos = server.parts.photos
        put, first = photos.put, fake_photo("first")

        def uneven(agency: str, data: bytes) -> object:
            if data == first:
                raise StoreUnavailable("the store is away", store="photos")
            time.sleep(0.3)
            return put(agency, data)

        with monkeypatch.context() as broken:
            broken.setattr(photos, "put", uneven)
            with pytest.raises(grpc.aio.AioRpcError):
                await client.enrol(enrolling("ann", [first, fake_photo("second")]))
        server.parts.eraser.sweep()
        await asyncio.sleep(0.5)  # whatever was still being put has arrived
        assert check_agreement(server.parts) == 0
