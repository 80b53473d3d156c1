"""A running server goes from one model to the other and back, over a socket; the models are fakes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import pytest

from catalogue.types import StoredRecord
from catalogue.upgrade_types import UpgradeModel, UpgradeState
from cluster.compose import Parts
from cluster.open_snapshots import open_snapshots
from cluster.server import RunningServer, running_server
from cluster.upgrade.servers import ServerNotes
from homeward.config import ServerSettings, Settings
from homeward.errors import StoreUnavailable
from homeward.types import PhotoFaces
from homeward.v1 import records_pb2, search_pb2
from index.open import open_gallery
from index.shard import Shard
from tests.cluster.children import Client, client_of, enrolling, refusal
from tests.cluster.fakes import DIMENSION, MODEL_ID, FakeEmbedding, fake_photo
from tests.cluster.serving import CASE, opening

NEW_ID = "fake-other"
OLD = UpgradeModel("old", MODEL_ID, DIMENSION)
NEW = UpgradeModel("new", NEW_ID, DIMENSION)
READY, SWITCHED = UpgradeState.READY, UpgradeState.SWITCHED


class OtherEmbedding(FakeEmbedding):
    """The same faces, in other templates."""

    model_id = NEW_ID

    async def embed(self, photo: bytes) -> PhotoFaces:
        seen = await super().embed(photo)
        faces = tuple(replace(face, template=np.roll(face.template, 1)) for face in seen.faces)
        return replace(seen, model_id=NEW_ID, faces=faces)


@asynccontextmanager
async def second(parts: Parts, model: UpgradeModel) -> AsyncIterator[Parts]:
    settings = parts.settings
    embedding = OtherEmbedding() if model == NEW else FakeEmbedding()
    gallery = open_gallery(settings.gallery, settings.data_dir, model.model_id, model.dimension)
    index = Shard(DIMENSION)
    try:
        yield replace(
            parts,
            gallery=gallery,
            index=index,
            embedding=embedding,
            snapshots=open_snapshots(settings, parts.catalogue, model.model_id, DIMENSION),
        )
    finally:
        index.close()
        gallery.close()


@asynccontextmanager
async def serving(
    folder: Path, embedding: FakeEmbedding | None = None
) -> AsyncIterator[tuple[RunningServer, Client]]:
    settings = Settings(data_dir=folder, server=ServerSettings(address="127.0.0.1:0"))
    async with (
        running_server(settings, opening(embedding), second) as running,
        grpc.aio.insecure_channel(running.address) as channel,
    ):
        yield running, client_of(channel)


async def found_by(client: Client, photo: bytes, model_id: str = "") -> tuple[str, list[str]]:
    request = search_pb2.SearchRequest(context=CASE, photo=photo, limit=3, model_id=model_id)
    answer = await client.search.Search(request)
    return answer.account.model_id, [one.record_id for one in answer.lists[0].candidates]


def models_of(record: StoredRecord) -> set[str]:
    return {face.model_id for photo in record.photos for face in photo.faces}


async def until_loaded(running: RunningServer, model_id: str) -> None:
    async with asyncio.timeout(20):
        while model_id not in running.switch._sides:
            await running.switch.step()
            await asyncio.sleep(0.02)


async def test_searches_never_fail_and_enrolments_are_in_both_through_a_switch_and_back(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as (running, client):
        catalogue = running.parts.catalogue
        first = fake_photo("first")
        lease = catalogue.upgrades.begin(OLD, NEW, "test")
        catalogue.upgrades.move(lease, (UpgradeState.EMBEDDING,), READY)
        await until_loaded(running, NEW_ID)
        one = (await client.enrol(enrolling("one", [first]))).record.record_id
        assert models_of(catalogue.get(one)) == {MODEL_ID, NEW_ID}
        stop, failures, answered = asyncio.Event(), list[grpc.aio.AioRpcError](), set[str]()

        async def search() -> None:
            while not stop.is_set():
                try:
                    model, best = await found_by(client, first)
                    answered.add(model)
                    assert best[0] == one
                except grpc.aio.AioRpcError as error:
                    failures.append(error)

        searching = [asyncio.create_task(search()) for _ in range(4)]
        catalogue.upgrades.switch(lease, (READY,), SWITCHED, NEW_ID)
        await running.switch.step()
        assert running.parts.embedding.model_id == NEW_ID
        two = (await client.enrol(enrolling("two", [fake_photo("second")]))).record.record_id
        assert models_of(catalogue.get(two)) == {MODEL_ID, NEW_ID}
        assert catalogue.upgrades.count_uncovered(MODEL_ID) == 0
        await client.delete(one)
        stop.set()
        await asyncio.gather(*searching, return_exceptions=True)
        catalogue.upgrades.switch(lease, (SWITCHED,), READY, MODEL_ID)
        await running.switch.step()
        assert await found_by(client, fake_photo("second")) == (MODEL_ID, [two])
        assert failures == []
        assert answered == {MODEL_ID, NEW_ID}
        for model in (MODEL_ID, NEW_ID):  # the deleted child is in neither
            assert (await found_by(client, first, model))[1] == [two]
        gone = open_gallery(running.parts.settings.gallery, tmp_path, NEW_ID, DIMENSION)
        assert gone.count() == 1
        gone.close()


async def test_both_models_can_be_asked_and_a_template_goes_to_the_model_that_made_it(tmp_path: Path) -> None:
    async with serving(tmp_path) as (running, client):
        catalogue = running.parts.catalogue
        photo = fake_photo("p")
        code, error = await refusal(found_by(client, photo, NEW_ID))
        assert (code, error.code) == (grpc.StatusCode.UNAVAILABLE, "MODEL_NOT_LOADED")
        lease = catalogue.upgrades.begin(OLD, NEW, "test")
        await running.switch.step()
        assert list(running.switch._sides) == [MODEL_ID]  # its rows are not complete yet
        catalogue.upgrades.move(lease, (UpgradeState.EMBEDDING,), READY)
        await until_loaded(running, NEW_ID)
        record = (await client.enrol(enrolling("one", [photo]))).record.record_id
        await running.switch.step()
        notes = ServerNotes(catalogue).alive()
        assert [(note.serving, set(note.loaded)) for note in notes] == [(MODEL_ID, {MODEL_ID, NEW_ID})]
        async with asyncio.timeout(10):  # the standby follows the change log
            while (await found_by(client, photo, NEW_ID))[1] != [record]:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        catalogue.upgrades.switch(lease, (READY,), SWITCHED, NEW_ID)
        await running.switch.step()
        assert list(await client.found(photo)) == [record]  # by a template of the model before
        catalogue.upgrades.move(lease, (SWITCHED,), UpgradeState.FINISHING)
        await running.switch.step()
        assert list(running.switch._sides) == [NEW_ID]
        code, error = await refusal(client.found(photo))
        assert error.code == "TEMPLATE_MODEL_DIFFERS"
        assert await found_by(client, photo) == (NEW_ID, [record])


async def test_new_facts_reach_the_rows_of_both_models(tmp_path: Path) -> None:
    async with serving(tmp_path) as (running, client):
        catalogue = running.parts.catalogue
        lease = catalogue.upgrades.begin(OLD, NEW, "test")
        catalogue.upgrades.move(lease, (UpgradeState.EMBEDDING,), READY)
        await until_loaded(running, NEW_ID)
        photo = fake_photo("p")
        await client.enrol(enrolling("one", [photo]))
        request = enrolling("one", [fake_photo("q")])
        request.attributes.sex = records_pb2.SEX_MALE
        request.attributes.sex_verified = True
        await client.enrol(request)
        gallery = open_gallery(running.parts.settings.gallery, tmp_path, NEW_ID, DIMENSION)
        rows = [row for columns in gallery.iterate() for row in columns.face_rows()]
        gallery.close()
        assert len(rows) == 2
        assert {row.sex for row in rows} == {
            row.sex for row in running.parts.gallery.iterate().__next__().face_rows()
        }
        assert len({row.sex for row in rows}) == 1


async def test_a_server_that_stood_still_while_its_model_was_erased_does_not_answer_with_what_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cluster.upgrade.switch.SURE_S", 0.0, raising=False)
    async with serving(tmp_path) as (running, client):
        catalogue = running.parts.catalogue
        photo = fake_photo("p")
        one = (await client.enrol(enrolling("one", [photo]))).record.record_id
        assert await found_by(client, photo) == (MODEL_ID, [one])
        async with running.switch._stepping:  # it looks at nothing, and who drives takes it for dead
            lease = catalogue.upgrades.begin(OLD, NEW, "test")
            catalogue.upgrades.move(lease, (UpgradeState.EMBEDDING,), READY)
            catalogue.upgrades.move(lease, (READY,), SWITCHED)
            catalogue.upgrades.move(lease, (SWITCHED,), UpgradeState.FINISHING)
            catalogue.upgrades.retire_some(lease, NEW_ID, MODEL_ID, "", 10)
            code, error = await refusal(found_by(client, photo))
            assert (code, error.code) == (grpc.StatusCode.UNAVAILABLE, "MODEL_LOADING")


async def test_a_server_that_cannot_switch_says_so_and_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(tmp_path) as (running, _):
        catalogue = running.parts.catalogue
        lease = catalogue.upgrades.begin(OLD, NEW, "test")
        catalogue.upgrades.move(lease, (UpgradeState.EMBEDDING,), READY)
        await until_loaded(running, NEW_ID)

        def fail(*_: object) -> int:
            raise StoreUnavailable("Milvus does not answer")

        side = running.switch._sides[NEW_ID]
        monkeypatch.setattr(type(side.parts.live), "catch_up", fail)
        catalogue.upgrades.switch(lease, (READY,), SWITCHED, NEW_ID)
        ServerNotes(catalogue).leave(running.switch._name)
        with pytest.raises(StoreUnavailable):
            await running.switch.step()
        (note,) = ServerNotes(catalogue).alive()
        assert note.serving == MODEL_ID


async def test_a_server_that_was_just_set_to_another_model_says_why_nobody_is_found(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(tmp_path) as (_, client):
        await client.enrol(enrolling("one", [fake_photo("first")]))
    assert "nobody can be found" not in caplog.text
    async with serving(tmp_path, OtherEmbedding()):
        pass
    assert f"enrolled with {MODEL_ID}, and {NEW_ID} serves" in caplog.text
    assert "homeward models migrate" in caplog.text
