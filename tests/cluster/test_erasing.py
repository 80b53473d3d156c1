"""A deleted child leaves no byte: not in a store's files, not in a log that was not yet folded in."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from catalogue.store import Catalogue
from cluster.erasing import AGAIN, KEEP, REWRITE_DUE, Eraser
from cluster.server import RunningServer
from homeward.errors import StoreUnavailable
from homeward.v1 import operations_pb2, records_pb2
from index.gallery import ErasureState
from tests.cluster.children import Client, check_agreement, enrolling, key, serving
from tests.cluster.fakes import fake_photo, fake_template
from tests.cluster.leftovers import contents, files_with_photo, files_with_template

ERASE = operations_pb2.EraseRequest()


def words(name: str) -> records_pb2.Attributes:
    return records_pb2.Attributes(
        case_reference=f"case-of-{name}", provenance=f"family-of-{name}", event_place=f"place-of-{name}"
    )


def files_with_words(folder: Path, name: str) -> set[Path]:
    wanted = [f"{what}-of-{name}".encode() for what in ("case", "family", "reference", "place")]
    return {path for path, data in contents(folder) if any(word in data for word in wanted)}


async def test_after_erase_no_byte_of_a_deleted_child_is_in_any_file(tmp_path: Path) -> None:
    photos = {name: fake_photo(f"photo-{name}", faces=2) for name in ("kept", "gone", "early")}
    async with serving(tmp_path) as (server, client):
        records = {}
        for name, photo in photos.items():
            request = enrolling(name, [photo], key=key(f"reference-of-{name}"), attributes=words(name))
            request.photos[0].choice = records_pb2.FACE_CHOICE_COMPOSITE
            records[name] = (await client.enrol(request)).record.record_id
        await asyncio.gather(*(client.enrol(enrolling(f"n{n}", [fake_photo(f"n{n}")])) for n in range(40)))
        server.parts.gallery.flush()
        await client.delete(records["early"])
        again = enrolling("gone", [photos["gone"]], key=key("reference-of-gone"), attributes=words("gone"))
        again.photos[0].choice = records_pb2.FACE_CHOICE_COMPOSITE
        await client.enrol(again)  # its newest rows are in a log, older ones in a sealed file
        answer = await client.delete(records["gone"])
        states = {one.store: one.WhichOneof("state") for one in answer.erasures}
        assert states["photos"] == states["index"] == "erased"
        assert files_with_photo(tmp_path, photos["gone"]) == set()
        erased = await client.operations.Erase(ERASE)
        assert {one.store: one.erased for one in erased.stores} == {
            "photos": True,
            "outcomes": True,
            "snapshots": True,
            "gallery": True,
            "catalogue": True,
        }
        for name, photo in photos.items():
            found = {
                "photo": files_with_photo(tmp_path, photo),
                "first": files_with_template(tmp_path, fake_template(photo, 0)),
                "second": files_with_template(tmp_path, fake_template(photo, 1)),
                "words": files_with_words(tmp_path, name),
            }
            if name == "kept":
                assert all(found.values()), "the search for leftovers would not see any"
            else:
                assert not any(found.values()), f"{name}: {found}"
        assert check_agreement(server.parts) == 42
    async with serving(tmp_path) as (server, _):
        assert check_agreement(server.parts) == 42


async def test_a_deletion_owes_a_rewrite_until_it_is_done(tmp_path: Path) -> None:
    async with serving(tmp_path) as (server, client):
        record = (await client.enrol(enrolling("ann", [fake_photo("ann")]))).record.record_id
        await client.operations.Erase(ERASE)
        first = await client.delete(record)
        pending = {one.store: one.erasure_pending_until for one in first.erasures}
        due = server.parts.eraser.mark_due()
        assert due <= pending["gallery"].ToDatetime(due.tzinfo) < due + timedelta(minutes=1)
        assert not server.parts.eraser.is_due()
        await client.operations.Erase(ERASE)
        assert server.parts.eraser.mark_due() > due


async def test_a_child_deleted_during_a_rewrite_owes_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(tmp_path) as (server, client):
        record = (await client.enrol(enrolling("ann", [fake_photo("ann")]))).record.record_id
        vacuum, loop = server.parts.catalogue.vacuum, asyncio.get_running_loop()

        def delete_first(*, whole: bool) -> tuple[str, ...]:
            asyncio.run_coroutine_threadsafe(client.delete(record), loop).result(30)
            return vacuum(whole=whole)

        monkeypatch.setattr(server.parts.catalogue, "vacuum", delete_first)
        await client.operations.Erase(ERASE)
        assert server.parts.catalogue.get_meta("rewrite_due")


async def owing(server: RunningServer, client: Client) -> tuple[Eraser, Catalogue]:
    """A child was deleted, and the rewrite is due now."""
    await client.delete((await client.enrol(enrolling("ann", [fake_photo("ann")]))).record.record_id)
    server.parts.catalogue.set_meta(REWRITE_DUE, datetime.now(UTC).isoformat())
    return server.parts.eraser, server.parts.catalogue


async def test_what_milvus_does_by_itself_is_not_asked_of_it_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(tmp_path) as (server, client):
        eraser, catalogue = await owing(server, client)
        by_itself = ErasureState(False, datetime.now(UTC) + timedelta(days=3))
        monkeypatch.setattr(type(server.parts.gallery), "erase", lambda _: by_itself)
        done = {one.store: one for one in await asyncio.to_thread(eraser.rewrite_due)}
        assert "by itself" in done["gallery"].note
        assert not done["gallery"].erased
        assert not catalogue.get_meta(REWRITE_DUE)
        assert eraser.rewrite_due() == []


async def test_a_rewrite_that_is_hindered_waits_and_is_done_by_one_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(tmp_path) as (server, client):
        eraser, catalogue = await owing(server, client)

        def refuse(*_: object) -> None:
            raise StoreUnavailable("the photo store is away", store="photos")

        with monkeypatch.context() as broken:
            broken.setattr(type(server.parts.photos), "sweep", refuse)
            assert not all(one.erased for one in await asyncio.to_thread(eraser.rewrite_due))
        assert not eraser.is_due()
        assert eraser.rewrite_due() == []
        due = datetime.fromisoformat(str(catalogue.get_meta(REWRITE_DUE)))
        assert timedelta(hours=1) < due - datetime.now(UTC) <= AGAIN


async def test_tables_that_a_server_may_not_lock_are_left_to_an_operator_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(tmp_path) as (server, client):
        eraser, catalogue = await owing(server, client)
        monkeypatch.setattr(catalogue, "vacuum", lambda *, whole: () if whole else ("faces", "photos"))
        done = {one.store: one for one in await asyncio.to_thread(eraser.rewrite_due)}
        assert done["catalogue"].note.endswith("faces, photos; run homeward erase")
        due = datetime.fromisoformat(str(catalogue.get_meta(REWRITE_DUE)))
        assert AGAIN < due - datetime.now(UTC) <= KEEP
        erased = await client.operations.Erase(ERASE)
        assert all(one.erased for one in erased.stores)
        assert not catalogue.get_meta(REWRITE_DUE)


async def test_what_a_store_refuses_to_remove_is_pending_and_goes_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo = fake_photo("ann")
    async with serving(tmp_path) as (server, client):
        record = (await client.enrol(enrolling("ann", [photo]))).record.record_id

        def refuse(*_: object) -> None:
            raise StoreUnavailable("the photo store is away", store="photos")

        with monkeypatch.context() as broken:
            broken.setattr(type(server.parts.photos), "delete", refuse)
            answer = await client.delete(record)
        states = {one.store: one.WhichOneof("state") for one in answer.erasures}
        assert states["photos"] == "erasure_pending_until"
        assert record not in await client.found(photo)
        assert files_with_photo(tmp_path, photo)
    async with serving(tmp_path) as (server, _):
        assert files_with_photo(tmp_path, photo) == set()
        assert check_agreement(server.parts) == 0
